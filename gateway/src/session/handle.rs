//! The session handle: a signed text that names a session, in a cookie or an `Authorization` header.
//!
//! A handle proves nothing but that we once made it: whoever reads one must still find the session in the store.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use pomerium_shared::clock::unix_seconds;
use serde::{Deserialize, Serialize};

use super::{Session, SessionId, UserId};
use crate::{device::Thumbprint, secret::Secret};

/// Seconds that a handle may come from the future: clocks of several gateways differ.
const CLOCK_SKEW_SECONDS: u64 = 60;

/// Octets of a handle at most: cookies end at 4 KiB, and what is longer was not made here.
pub const HANDLE_LEN_MAX: usize = 4096;

/// Handles whose signature is remembered at most.
const REMEMBERED_MAX: usize = 10_000;

/// Makes and checks handles (JWS compact, HS256 only).
#[derive(Debug)]
pub struct HandleKey {
    secret: Secret<[u8; 32]>,
    issuer: String,
    genuine: Genuine,
}

/// What handles say whose signature was found good: a browser shows the same one with each request. Time and audience are
/// checked each time.
#[derive(Default)]
struct Genuine(Mutex<HashMap<String, Arc<Claims>>>);

impl fmt::Debug for Genuine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Genuine").finish_non_exhaustive()
    }
}

impl Genuine {
    fn claims_of(&self, token: &str) -> Option<Arc<Claims>> {
        self.handles().get(token).cloned()
    }

    fn remember(&self, token: &str, claims: &Arc<Claims>) {
        let mut handles = self.handles();
        if handles.len() >= REMEMBERED_MAX {
            handles.clear();
        }
        handles.insert(token.to_owned(), claims.clone());
    }

    /// Held for one look; what it guards is whole even after a panic elsewhere.
    fn handles(&self) -> MutexGuard<'_, HashMap<String, Arc<Claims>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a genuine, unexpired handle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHandle {
    /// The session it names.
    pub session_id: SessionId,
    /// Whose session it was made for.
    pub user_id: UserId,
    /// The identity provider behind it.
    pub idp_id: String,
    /// The hosts that it was made for.
    pub audience: Vec<String>,
    /// The device key that its holder must prove.
    pub bound_to: Option<Thumbprint>,
}

/// Why a text is no handle for us. For the log: the other side learns only "not signed in".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Not a JWT, or without a claim that each handle has.
    #[error("the session handle is malformed")]
    Malformed,
    /// Signed with another key, with another algorithm or not at all.
    #[error("the session handle was not signed by this gateway")]
    Forged,
    /// Past its `exp`.
    #[error("the session handle has expired")]
    Expired,
    /// Its `iat` is too far ahead.
    #[error("the session handle comes from the future")]
    FromTheFuture,
    /// Made for other hosts.
    #[error("the session handle was made for another host")]
    OtherAudience,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    iat: u64,
    exp: u64,
    jti: String,
    idp_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    // Always 0 here; software that reads our handles expects numbers.
    #[serde(default)]
    databroker_server_version: u64,
    #[serde(default)]
    databroker_record_version: u64,
}

/// What the holder must prove (RFC 7800, 3.1). A method that we do not know makes the handle malformed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    /// RFC 8705, 3.1.
    #[serde(rename = "x5t#S256")]
    certificate: Thumbprint,
}

impl HandleKey {
    /// A key from the shared secret; `issuer` is the host that signs people in.
    #[must_use]
    pub fn new(secret: [u8; 32], issuer: impl Into<String>) -> Self {
        Self { secret: Secret::new(secret), issuer: issuer.into(), genuine: Genuine::default() }
    }

    /// A handle of `session` for these hosts; it ends when the session does.
    ///
    /// # Errors
    /// [`HandleError::Malformed`] when the crypto library refuses to sign, which leaves no handle.
    pub fn mint(
        &self,
        session: &Session,
        audience: &[String],
        now: SystemTime,
    ) -> Result<Secret<String>, HandleError> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: session.user_id.as_str().to_owned(),
            aud: audience.to_vec(),
            iat: unix_seconds(now),
            exp: unix_seconds(session.expires_at),
            jti: session.id.as_str().to_owned(),
            idp_id: session.idp_id.clone(),
            cnf: session.bound_to.clone().map(|certificate| Confirmation { certificate }),
            databroker_server_version: 0,
            databroker_record_version: 0,
        };
        let key = EncodingKey::from_secret(self.secret.expose());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map(Secret::new)
            .map_err(|_| HandleError::Malformed)
    }

    /// Reads a handle that this key signed and that has not expired. With `host`, it must be made for that host.
    ///
    /// # Errors
    /// [`HandleError`], one variant a reason.
    pub fn verify(
        &self,
        token: &str,
        host: Option<&str>,
        now: SystemTime,
    ) -> Result<SessionHandle, HandleError> {
        if token.len() > HANDLE_LEN_MAX {
            return Err(HandleError::Malformed);
        }
        let claims = match self.genuine.claims_of(token) {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.decode(token)?);
                self.genuine.remember(token, &claims);
                claims
            }
        };
        let now = unix_seconds(now);
        if now >= claims.exp {
            return Err(HandleError::Expired);
        }
        if claims.iat > now.saturating_add(CLOCK_SKEW_SECONDS) {
            return Err(HandleError::FromTheFuture);
        }
        if host.is_some_and(|host| !claims.aud.iter().any(|aud| aud.eq_ignore_ascii_case(host))) {
            return Err(HandleError::OtherAudience);
        }
        Ok(SessionHandle {
            session_id: SessionId::new(claims.jti.clone()),
            user_id: UserId::new(claims.sub.clone()),
            idp_id: claims.idp_id.clone(),
            audience: claims.aud.clone(),
            bound_to: claims.cnf.as_ref().map(|cnf| cnf.certificate.clone()),
        })
    }

    /// What a token says that we signed.
    fn decode(&self, token: &str) -> Result<Claims, HandleError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // Time and audience are checked against the moment and the host that `verify` is given.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims = HashSet::from(["exp".to_owned(), "sub".to_owned()]);
        let key = DecodingKey::from_secret(self.secret.expose());
        jsonwebtoken::decode::<Claims>(token, &key, &validation).map(|data| data.claims).map_err(|error| {
            match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => HandleError::Forged,
                _ => HandleError::Malformed,
            }
        })
    }
}

#[cfg(test)]
mod tests;
