//! The published keys of one configured issuer: fetched through its discovery document, kept for a while.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, StatusCode, header};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::{
    jws::{self, Expected, JwsError, Verified},
    provider::endpoint::is_endpoint_of,
};
use crate::https_client::{HttpsClient, SendError};

/// After this keys are fetched anew, so that one that was taken back is forgotten.
const KEYS_LIFE: Duration = Duration::from_secs(3600);
/// Between two fetches, however many unknown keys strangers name, and whether or not the last one worked.
const FETCH_INTERVAL: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Issuer {
    url: Url,
    http: HttpsClient,
    /// The lock also lets only one fetch run at a time.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Option<(Arc<Vec<Jwk>>, SystemTime)>,
    tried_at: Option<SystemTime>,
}

/// Why a token does not count.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssuerError {
    /// It is not good.
    #[error(transparent)]
    Token(#[from] JwsError),
    /// The issuer's keys are not known: nothing can be said of its tokens now.
    #[error("the keys of the issuer cannot be fetched: {0}")]
    NoKeys(String),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Url,
}

impl Issuer {
    pub(super) fn new(url: Url, http: HttpsClient) -> Self {
        Self { url, http, kept: Mutex::default() }
    }

    /// Whether `iss` names this issuer; one without a path is written with or without the closing slash.
    pub(super) fn is(&self, iss: &str) -> bool {
        iss == self.url.as_str() || (self.url.path() == "/" && iss == self.url.as_str().trim_end_matches('/'))
    }

    /// Verifies a token of this issuer, with newly fetched keys when it may have changed them.
    pub(super) async fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: SystemTime,
    ) -> Result<Verified, IssuerError> {
        let keys = self.keys(KEYS_LIFE, now).await?;
        match self.verify_by(token, &keys, audiences, now) {
            Err(JwsError::NoKey) => {
                let keys = self.keys(Duration::ZERO, now).await?;
                Ok(self.verify_by(token, &keys, audiences, now)?)
            }
            other => Ok(other?),
        }
    }

    fn verify_by(
        &self,
        token: &str,
        keys: &[Jwk],
        audiences: &[String],
        now: SystemTime,
    ) -> Result<Verified, JwsError> {
        let issuer = self.url.as_str();
        match jws::verify(token, keys, Expected { issuer, audiences }, now) {
            Err(JwsError::OtherIssuer) if self.url.path() == "/" => {
                let issuer = issuer.trim_end_matches('/');
                jws::verify(token, keys, Expected { issuer, audiences }, now)
            }
            other => other,
        }
    }

    /// The keys, not older than `age` unless they were fetched (or not to be had) a moment ago.
    async fn keys(&self, age: Duration, now: SystemTime) -> Result<Arc<Vec<Jwk>>, IssuerError> {
        let mut kept = self.kept.lock().await;
        // A clock that was set back makes everything old.
        let is_within = |then: SystemTime, age| now.duration_since(then).is_ok_and(|since| since < age);
        let is_fresh = kept.keys.as_ref().is_some_and(|(_, then)| is_within(*then, age));
        let is_too_soon = kept.tried_at.is_some_and(|then| is_within(then, FETCH_INTERVAL));
        if !is_fresh && !is_too_soon {
            kept.tried_at = Some(now);
            match self.fetch().await {
                Ok(keys) => kept.keys = Some((Arc::new(keys), now)),
                Err(error) => {
                    tracing::warn!(issuer = %self.url, error = &error as &dyn std::error::Error, "keys not fetched");
                }
            }
        }
        match &kept.keys {
            Some((keys, then)) if is_within(*then, KEYS_LIFE) => Ok(Arc::clone(keys)),
            _ => Err(IssuerError::NoKeys("try again in half a minute".to_owned())),
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, IssuerError> {
        let no_keys = |why: &str| IssuerError::NoKeys(why.to_owned());
        let base = self.url.as_str().trim_end_matches('/');
        let document = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let discovery: Discovery = serde_json::from_slice(&document)
            .map_err(|_| no_keys("its discovery document has no issuer or jwks_uri"))?;
        if !self.is(&discovery.issuer) {
            return Err(no_keys("its discovery document is another issuer's"));
        }
        if !is_endpoint_of(&self.url, &discovery.jwks_uri) {
            return Err(no_keys("its jwks_uri is without https or on this machine"));
        }
        let document = self.get(discovery.jwks_uri.as_str()).await?;
        jws::keys_of(&document).ok_or_else(|| no_keys("its key set is malformed"))
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, IssuerError> {
        let failed = |error: SendError| IssuerError::NoKeys(error.to_string());
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| failed(error.into()))?;
        let answer = self.http.send(request).await.map_err(failed)?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(failed(SendError::Status(status))),
        }
    }
}
