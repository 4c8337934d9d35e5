//! Tokens that others signed (compact JWS), held against their published keys. Pure.
//!
//! The key is chosen from the keys that we fetched ourselves: nothing in a token says where a key comes from.

use std::{
    collections::HashSet,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use serde_json::{Map, Value};

/// Characters of a token at most.
const TOKEN_LEN_MAX: usize = 16 * 1024;
/// Keys of one issuer that are kept at most.
const KEYS_MAX: usize = 64;
/// How far the clocks of issuer and gateway may be apart, in seconds.
pub(super) const CLOCK_SKEW: u64 = 60;

/// Who must have made a token, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// `iss`, by the letter.
    pub(super) issuer: &'a str,
    /// One of these must be in `aud`.
    pub(super) audiences: &'a [String],
}

/// A token whose signature, issuer, audience and times hold.
#[derive(Debug)]
pub(super) struct Verified {
    /// `typ` of its header.
    pub(super) kind: Option<String>,
    pub(super) claims: Map<String, Value>,
}

/// Why a token is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwsError {
    #[error("the token is malformed or too long")]
    Malformed,
    #[error("the token's algorithm is none that is accepted")]
    BadAlgorithm,
    #[error("none of the issuer's keys made the token")]
    NoKey,
    #[error("the token comes from another issuer")]
    OtherIssuer,
    #[error("the token is for somebody else")]
    OtherAudience,
    #[error("the token has expired")]
    Expired,
    #[error("the token comes from the future")]
    FromTheFuture,
}

/// The keys in a JWK set (RFC 7517, 5) that could verify anything; others are left out.
pub(super) fn keys_of(document: &[u8]) -> Option<Vec<Jwk>> {
    let document: Value = serde_json::from_slice(document).ok()?;
    let keys = document.get("keys")?.as_array()?;
    let parsed = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    Some(parsed.filter(|key| !algorithms_of(key).is_empty()).take(KEYS_MAX).collect())
}

/// Verifies `token` at `now`. `exp` counts where there is one; who needs one asks for it.
pub(super) fn verify(
    token: &str,
    keys: &[Jwk],
    expected: Expected<'_>,
    now: SystemTime,
) -> Result<Verified, JwsError> {
    if token.len() > TOKEN_LEN_MAX {
        return Err(JwsError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| JwsError::Malformed)?;
    if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(JwsError::BadAlgorithm);
    }
    let is_named = |key: &&Jwk| header.kid.is_none() || key.common.key_id == header.kid;
    let fits = |key: &&Jwk| algorithms_of(key).contains(&header.alg);
    let claims = keys
        .iter()
        .filter(is_named)
        .filter(fits)
        .find_map(|key| claims_by(token, key, header.alg))
        .ok_or(JwsError::NoKey)?;
    check_claims(&claims, expected, now)?;
    Ok(Verified { kind: header.typ, claims })
}

fn claims_by(token: &str, key: &Jwk, algorithm: Algorithm) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(algorithm);
    // All below is checked by us, against the moment that we are given.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims = HashSet::new();
    let key = DecodingKey::from_jwk(key).ok()?;
    Some(jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation).ok()?.claims)
}

/// Asymmetric ones only: with a shared secret whoever verifies could sign.
fn algorithms_of(key: &Jwk) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    if !matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Vec::new();
    }
    let mut algorithms = match &key.algorithm {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(_) => vec![ES256, ES384],
        AlgorithmParameters::OctetKeyPair(_) => vec![EdDSA],
        _ => Vec::new(),
    };
    if let Some(named) = key.common.key_algorithm {
        algorithms.retain(|algorithm| format!("{algorithm:?}") == format!("{named:?}"));
    }
    algorithms
}

fn check_claims(
    claims: &Map<String, Value>,
    expected: Expected<'_>,
    now: SystemTime,
) -> Result<(), JwsError> {
    if claims.get("iss").and_then(Value::as_str) != Some(expected.issuer) {
        return Err(JwsError::OtherIssuer);
    }
    let is_ours = |audience: &Value| expected.audiences.iter().any(|ours| audience == ours);
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
        Some(audience) => is_ours(audience),
        None => false,
    };
    if !is_for_us {
        return Err(JwsError::OtherAudience);
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if let Some(expiry) = seconds(claims, "exp")?
        && expiry.saturating_add(CLOCK_SKEW) <= now
    {
        return Err(JwsError::Expired);
    }
    for name in ["iat", "nbf"] {
        if seconds(claims, name)?.is_some_and(|then| then > now.saturating_add(CLOCK_SKEW)) {
            return Err(JwsError::FromTheFuture);
        }
    }
    Ok(())
}

/// A `NumericDate` (RFC 7519, 2), which may have a fraction.
pub(super) fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, JwsError> {
    const LATEST: f64 = 253_402_300_800.0;
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => Ok(Some(whole)),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "its range is checked"
            )]
            (None, Some(fraction)) if (0.0..LATEST).contains(&fraction) => Ok(Some(fraction as u64)),
            _ => Err(JwsError::Malformed),
        },
        Some(_) => Err(JwsError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn jwk(key: &rcgen::KeyPair, kid: &str) -> Value {
        let point = key.public_key_raw();
        let part = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": part(&point[1..33]), "y": part(&point[33..65])})
    }

    fn keys(keys: &[Value]) -> Vec<Jwk> {
        keys_of(&serde_json::to_vec(&json!({ "keys": keys })).unwrap()).unwrap()
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer.example", "aud": ["other", "us"], "exp": NOW + 60, "iat": NOW})
    }

    fn sign(key: &rcgen::KeyPair, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = kid.map(str::to_owned);
        // Where an attacker would like us to fetch the key.
        header.jku = Some("https://evil.example/jwks".into());
        let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn check(token: &str, keys: &[Jwk]) -> Result<(), JwsError> {
        let audiences = ["us".to_owned()];
        let expected = Expected { issuer: "https://issuer.example", audiences: &audiences };
        verify(token, keys, expected, now()).map(|_| ())
    }

    #[test]
    fn only_the_issuers_own_key_makes_a_token_good() {
        let (own, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let known = keys(&[jwk(&other, "b"), jwk(&own, "a")]);
        assert_eq!(check(&sign(&own, Some("a"), &claims()), &known), Ok(()));
        assert_eq!(check(&sign(&own, None, &claims()), &known), Ok(()), "without a name all are tried");
        assert_eq!(check(&sign(&own, Some("b"), &claims()), &known), Err(JwsError::NoKey));
        let stranger = rcgen::KeyPair::generate().unwrap();
        assert_eq!(check(&sign(&stranger, Some("a"), &claims()), &known), Err(JwsError::NoKey));
        assert_eq!(check(&sign(&own, Some("a"), &claims()), &[]), Err(JwsError::NoKey));
    }

    #[test]
    fn each_claim_is_held_against_what_is_expected() {
        let own = rcgen::KeyPair::generate().unwrap();
        let known = keys(&[jwk(&own, "a")]);
        for (name, value, error) in [
            ("iss", json!("https://evil.example"), JwsError::OtherIssuer),
            ("iss", json!(["https://issuer.example"]), JwsError::OtherIssuer),
            ("aud", json!("other"), JwsError::OtherAudience),
            ("aud", json!([]), JwsError::OtherAudience),
            ("aud", json!(null), JwsError::OtherAudience),
            ("exp", json!(NOW - CLOCK_SKEW), JwsError::Expired),
            ("exp", json!("never"), JwsError::Malformed),
            ("exp", json!(-1), JwsError::Malformed),
            ("exp", json!(1e300), JwsError::Malformed),
            ("iat", json!(NOW + CLOCK_SKEW + 1), JwsError::FromTheFuture),
            ("nbf", json!(NOW + CLOCK_SKEW + 1), JwsError::FromTheFuture),
        ] {
            let mut said = claims();
            said[name] = value.clone();
            assert_eq!(check(&sign(&own, Some("a"), &said), &known), Err(error), "{name}: {value}");
        }
    }

    #[test]
    fn a_shared_secret_and_no_signature_are_no_signature() {
        let own = rcgen::KeyPair::generate().unwrap();
        // The public key as the secret of an HMAC: the classic confusion.
        let secret = EncodingKey::from_secret(own.public_key_raw());
        let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &secret).unwrap();
        let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(own.public_key_raw())});
        let known = keys(&[jwk(&own, "a"), oct]);
        assert_eq!(known.len(), 1, "a symmetric key is none");
        assert_eq!(check(&confused, &known), Err(JwsError::BadAlgorithm));
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims()));
        assert_eq!(check(&unsigned, &known), Err(JwsError::Malformed));
        assert_eq!(check(&"a".repeat(TOKEN_LEN_MAX + 1), &known), Err(JwsError::Malformed));
    }

    #[test]
    fn a_key_for_another_use_or_algorithm_is_left_out() {
        let own = rcgen::KeyPair::generate().unwrap();
        for (name, value) in [("use", "enc"), ("alg", "RS256"), ("kty", "XYZ")] {
            let mut key = jwk(&own, "a");
            key[name] = json!(value);
            assert!(keys(&[key]).is_empty(), "{name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_and_no_document_panics(text in ".{0,80}") {
            prop_assert!(check(&text, &[]).is_err());
            let _ = keys_of(text.as_bytes());
        }
    }
}
