//! Tokens for programs (RFC 6749, 3.2): for a device whose person signs in elsewhere, for a code that a
//! browser brought, and for a workload's own token.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::{AuthRequest, Authenticate, device_grant, hand_over_code, pages, workload};
use crate::{secret::Secret, session::Session, store::StoreError};

/// Where programs ask for a token, on each host.
pub(super) const TOKEN_PATH: &str = "/.pomerium/api/v1/token";
/// Where a device begins a sign-in, on each host.
pub(super) const DEVICE_AUTHORIZATION_PATH: &str = "/.pomerium/api/v1/device_authorization";

/// Why there is no token, in the words of RFC 6749 (5.2), 8628 (3.5) and 8693 (2.2.2).
#[derive(Debug)]
pub(super) enum TokenRefusal {
    /// The request's own fault.
    Invalid { error: &'static str, why: &'static str },
    /// Too much of it at the moment.
    Busy(&'static str),
    /// The store does not answer.
    Store(StoreError),
}

impl TokenRefusal {
    pub(super) const fn request(why: &'static str) -> Self {
        Self::Invalid { error: "invalid_request", why }
    }

    pub(super) const fn grant(why: &'static str) -> Self {
        Self::Invalid { error: "invalid_grant", why }
    }
}

impl From<StoreError> for TokenRefusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A token that was made, and the session behind it.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) token: Secret<String>,
    pub(super) session: Arc<Session>,
}

/// The fields of a form; one that is sent twice counts as not sent (RFC 6749, 3.2).
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn of(body: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(body).into_owned().collect())
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        let first = values.next().filter(|value| !value.is_empty());
        if values.next().is_some() { None } else { first }
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Authenticate {
    /// Answers [`TOKEN_PATH`] and [`DEVICE_AUTHORIZATION_PATH`] on a host of ours.
    pub(super) async fn program_endpoint(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        if req.method != Method::POST {
            return pages::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        let host = req.url.host_str().unwrap_or_default();
        if !self.is_our_url(req.url) {
            return refused(TokenRefusal::request("this host signs nobody in"));
        }
        if req.url.path() == DEVICE_AUTHORIZATION_PATH {
            return self.begin_device(host, now).await.unwrap_or_else(refused);
        }
        let form = Form::of(&req.form);
        let issued = match form.one("grant_type") {
            Some(device_grant::GRANT_TYPE) => self.device_token(&form, now).await,
            Some(hand_over_code::GRANT_TYPE) => self.redeem(req, &form, now).await,
            Some(workload::GRANT_TYPE) => self.exchange(&form, host, now).await,
            Some(_) => Err(TokenRefusal::Invalid {
                error: "unsupported_grant_type",
                why: "there is no such grant here",
            }),
            None => Err(TokenRefusal::request("grant_type is missing")),
        };
        match issued {
            Ok(issued) => granted(&issued, now),
            Err(refusal) => refused(refusal),
        }
    }
}

fn granted(issued: &Issued, now: SystemTime) -> Response<Bytes> {
    let left = issued.session.expires_at.duration_since(now).unwrap_or_default();
    pages::json(&json!({
        "access_token": issued.token.expose(),
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        // As in `Authorization: Pomerium <token>`.
        "token_type": "Pomerium",
        "expires_in": left.as_secs(),
    }))
}

fn refused(refusal: TokenRefusal) -> Response<Bytes> {
    let (status, error, why) = match refusal {
        TokenRefusal::Invalid { error, why } => (StatusCode::BAD_REQUEST, error, why),
        TokenRefusal::Busy(why) => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", why),
        TokenRefusal::Store(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the session store failed");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "sessions cannot be read at the moment",
            )
        }
    };
    let mut response = pages::json(&json!({"error": error, "error_description": why}));
    *response.status_mut() = status;
    response
}
