//! Whether whoever asks over gRPC is a service of ours: by the certificate of its connection, or by a token that only the
//! holder of `shared_secret` can make.

use http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use pomerium_shared::clock::Now;
use serde::Deserialize;

use crate::secret::Secret;

/// Octets of a token at most: it says nothing but when it ends.
const TOKEN_LEN_MAX: usize = 512;

/// The one claim of a caller's token. One that says more was made for something else, such as a session's handle, which
/// is signed with the same secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    exp: i64,
}

/// Why a caller is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallerError {
    /// Neither a client certificate nor a token.
    #[error("no token: send one in the metadata jwt, signed with shared_secret")]
    Missing,
    /// Signed by somebody else, or of another shape.
    #[error("the token is not one for services, or is signed with another secret")]
    Forged,
    /// Past its `exp`.
    #[error("the token has expired")]
    Expired,
}

/// Checks the token in `jwt`, or in `authorization` with or without `Bearer`: HS256, with an `exp` and nothing else.
pub(super) fn check(secret: &Secret<[u8; 32]>, headers: &HeaderMap, now: Now) -> Result<(), CallerError> {
    let value = headers.get("jwt").or_else(|| headers.get(header::AUTHORIZATION));
    let text = value.ok_or(CallerError::Missing)?.to_str().map_err(|_| CallerError::Forged)?;
    let token = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => text,
    };
    if token.len() > TOKEN_LEN_MAX {
        return Err(CallerError::Forged);
    }
    let mut validation = Validation::new(Algorithm::HS256);
    // The clock is an argument here: `exp` is looked at below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(secret.expose());
    let token = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|_| CallerError::Forged)?;
    if token.claims.exp <= now.unix_seconds() {
        return Err(CallerError::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn signed(claims: &Value, secret: &[u8]) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret))
            .unwrap()
    }

    fn result(name: &'static str, value: &str) -> Result<(), CallerError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        check(&Secret::new(SECRET), &headers, Now::read())
    }

    #[test]
    fn a_token_with_an_end_and_nothing_else_is_taken_from_either_place() {
        let token = signed(&json!({ "exp": Now::read().unix_seconds() + 60 }), &SECRET);
        assert_eq!(result("jwt", &token), Ok(()));
        assert_eq!(result("authorization", &format!("Bearer {token}")), Ok(()));
        assert_eq!(result("authorization", &token), Ok(()));
    }

    #[test]
    fn every_other_token_is_refused() {
        let soon = Now::read().unix_seconds() + 60;
        let unsigned = signed(&json!({ "exp": soon }), &SECRET);
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", unsigned.split('.').nth(1).unwrap());
        for (what, token, expected) in [
            ("expired", signed(&json!({ "exp": soon - 61 }), &SECRET), CallerError::Expired),
            ("another key", signed(&json!({ "exp": soon }), &[8; 32]), CallerError::Forged),
            ("without an end", signed(&json!({}), &SECRET), CallerError::Forged),
            (
                "a session's handle",
                signed(&json!({ "exp": soon, "jti": "x", "aud": ["a"] }), &SECRET),
                CallerError::Forged,
            ),
            ("unsigned", unsigned, CallerError::Forged),
            ("no token", "x".to_owned(), CallerError::Forged),
            ("too long", "x".repeat(10_000), CallerError::Forged),
        ] {
            assert_eq!(result("jwt", &token), Err(expected), "{what}");
        }
        assert_eq!(check(&Secret::new(SECRET), &HeaderMap::new(), Now::read()), Err(CallerError::Missing));
    }
}
