//! The session handle: a signed reference to a session in the store, carried by cookies and client tokens.
//!
//! It holds no claim that anything is decided by: the store says whether the session lives and whose it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Session, SessionId};

/// How far the clocks of two gateways may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Signs and verifies handles with the shared secret (HS256, RFC 7515).
pub struct HandleKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandleKey").finish_non_exhaustive()
    }
}

/// What a verified handle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHandle {
    /// The session it refers to.
    pub session: SessionId,
    /// The hosts it was made for.
    pub audience: Vec<String>,
}

/// Why a token is no handle of ours. The peer is told nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// Wrong form, algorithm, signature or time.
    #[error("the token is malformed, expired, or not signed by this gateway")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    /// It claims to have been made in the future.
    #[error("the token was issued in the future")]
    FromTheFuture,
    /// The token could not be signed.
    #[error("the session token could not be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct HandleClaims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    iat: i64,
    exp: i64,
    jti: SessionId,
    idp_id: String,
    #[serde(default)]
    databroker_server_version: u64,
    #[serde(default)]
    databroker_record_version: u64,
}

impl HandleKey {
    /// The key that is the shared secret.
    #[must_use]
    pub fn new(shared_secret: &[u8; 32]) -> Self {
        Self {
            encoding: EncodingKey::from_secret(shared_secret),
            decoding: DecodingKey::from_secret(shared_secret),
        }
    }

    /// Makes a handle for `session` that is good for `audience` until the session ends.
    ///
    /// # Errors
    /// [`HandleError::Signing`], which no input leads to.
    pub fn mint(&self, session: &Session, audience: &[String], now: SystemTime) -> Result<String, HandleError> {
        let claims = HandleClaims {
            iss: audience.first().cloned().unwrap_or_default(),
            sub: session.user_id.as_str().to_owned(),
            aud: audience.to_vec(),
            iat: unix(now),
            exp: unix(session.expires_at),
            jti: session.id.clone(),
            idp_id: session.idp_id.clone(),
            databroker_server_version: 0,
            databroker_record_version: 0,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(HandleError::Signing)
    }

    /// Verifies a token. HS256 alone is taken, whatever the token says of itself.
    ///
    /// # Errors
    /// [`HandleError`]: the token is worth nothing.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<SessionHandle, HandleError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // Time is ours to judge, by the clock that is given; the audience is the caller's.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "aud"]);
        let claims = jsonwebtoken::decode::<HandleClaims>(token, &self.decoding, &validation)
            .map_err(HandleError::Invalid)?
            .claims;
        if claims.exp <= unix(now) {
            return Err(HandleError::Invalid(jsonwebtoken::errors::ErrorKind::ExpiredSignature.into()));
        }
        if claims.iat > unix(now + CLOCK_SKEW) {
            return Err(HandleError::FromTheFuture);
        }
        Ok(SessionHandle { session: claims.jti, audience: claims.aud })
    }
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;
    use crate::session::UserId;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn session() -> Session {
        Session {
            id: SessionId::new("s1"),
            user_id: UserId::new("u1"),
            idp_id: "idp".to_owned(),
            email: String::new(),
            name: String::new(),
            groups: vec![],
            claims: crate::session::Claims::new(),
            issued_at: UNIX_EPOCH + NOW,
            expires_at: UNIX_EPOCH + NOW + Duration::from_secs(60),
        }
    }

    #[test]
    fn a_handle_is_good_until_its_session_ends() {
        let key = HandleKey::new(&[1; 32]);
        let now = UNIX_EPOCH + NOW;
        let token = key.mint(&session(), &["a.example".to_owned()], now).unwrap();
        assert_eq!(key.verify(&token, now).unwrap().session, SessionId::new("s1"));
        assert!(key.verify(&token, now + Duration::from_secs(60)).is_err());
        assert!(key.verify(&token, now - Duration::from_secs(120)).is_err());
    }

    #[test]
    fn forged_handles_are_refused() {
        let now = UNIX_EPOCH + NOW;
        let key = HandleKey::new(&[1; 32]);
        let token = key.mint(&session(), &["a.example".to_owned()], now).unwrap();
        assert!(HandleKey::new(&[2; 32]).verify(&token, now).is_err(), "a foreign key");
        let payload = token.split('.').nth(1).unwrap();
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"None","typ":"JWT"}"#, r#"{"alg":"RS256"}"#] {
            let unsigned = format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header));
            assert!(key.verify(&unsigned, now).is_err(), "{header}");
        }
        assert!(key.verify("", now).is_err());
        assert!(key.verify("a.b.c", now).is_err());
    }
}
