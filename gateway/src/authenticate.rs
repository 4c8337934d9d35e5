//! Signs people in with their OpenID Connect provider, and out again.
//!
//! Here: the sign-in host's pages and redirects, the hand-over to the apps' hosts, the programmatic login of the
//! client, and the refresh of sessions. Requests come as parsed parts, answers go back whole; the HTTP server is
//! elsewhere, and nothing here decides who may use an app.

pub(crate) mod aead;
mod callback;
mod provider;
pub mod refresh;
mod sign_in;
mod sign_out;
mod signed_url;

use std::{sync::Arc, time::{Duration, SystemTime}};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use pomerium_shared::clock::Now;
use url::Url;

pub use self::provider::{Provider, ProviderError};
use crate::{
    config::{SameSite, Settings},
    portal,
    session::{
        Session,
        credentials::{self, Place},
        handle::HandleKey,
    },
    store::{Store, StoreError},
};

/// How long a redirect to sign in may lie in a tab before it is followed.
const SIGN_IN_LIFETIME: Duration = Duration::from_secs(300);

/// How long the hand-over of a session to an app's host may take.
const HAND_OVER_LIFETIME: Duration = Duration::from_secs(60);

/// A request as the sign-in service sees it.
#[derive(Debug, Clone)]
pub struct AuthRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The absolute URL.
    pub url: &'a Url,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, if it is a form.
    pub form: Bytes,
}

/// The authenticate service.
#[derive(Debug)]
pub struct Authenticate {
    settings: Arc<Settings>,
    shared_secret: [u8; 32],
    cookie_secret: [u8; 32],
    handles: HandleKey,
    provider: Arc<Provider>,
    store: Store,
}

impl Authenticate {
    /// The service of a configuration, with the secrets that it uses.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        shared_secret: [u8; 32],
        cookie_secret: [u8; 32],
        provider: Arc<Provider>,
        store: Store,
    ) -> Self {
        let handles = HandleKey::new(&shared_secret);
        Self { settings, shared_secret, cookie_secret, handles, provider, store }
    }

    /// The identity provider in use.
    #[must_use]
    pub fn provider(&self) -> Arc<Provider> {
        self.provider.clone()
    }

    /// The valid session that a request refers to; anything that is no valid handle of ours counts as none. A cookie
    /// must have been made for `host`; a client's token for this gateway.
    ///
    /// # Errors
    /// [`StoreError`]: nobody knows, so nobody gets in.
    pub async fn session_of(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        host: Option<&str>,
        now: Now,
    ) -> Result<Option<Session>, StoreError> {
        let Some(credential) = credentials::find(headers, uri, &self.settings.cookie.name) else {
            return Ok(None);
        };
        let audience = match (credential.place, host) {
            (Place::Cookie, Some(host)) => host,
            _ => self.host(),
        };
        self.session_of_token(&credential.token, audience, now.wall).await
    }

    async fn session_of_token(&self, token: &str, audience: &str, now: SystemTime) -> Result<Option<Session>, StoreError> {
        let handle = match self.handles.verify(token, now) {
            Ok(handle) if handle.audience.iter().any(|host| host == audience) => handle,
            Ok(_) => {
                tracing::debug!("a session token was made for another host");
                return Ok(None);
            }
            Err(error) => {
                tracing::debug!(%error, "a session token was refused");
                return Ok(None);
            }
        };
        let session = self.store.session(&handle.session).await?;
        Ok(session.filter(|session| session.is_valid_at(now) && session.idp_id == self.provider.id()))
    }

    /// The sign-in host, without its port.
    fn host(&self) -> &str {
        self.settings.authenticate_url.host_str().unwrap_or_default()
    }

    /// A URL on the sign-in host.
    fn own_url(&self, path: &str) -> Url {
        let mut url = self.settings.authenticate_url.clone();
        url.set_path(path);
        url.set_query(None);
        url.set_fragment(None);
        url
    }

    /// A page or redirect of the sign-in host itself.
    pub async fn handle_authenticate_host(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        match request.url.path() {
            "/" => redirect(&self.own_url("/.pomerium/"), &[]),
            "/.pomerium/" | "/.pomerium" => self.own_page(request, now).await,
            "/.pomerium/sign_in" => self.sign_in(request, now).await,
            "/oauth2/callback" => self.oauth_callback(request, now).await,
            "/.pomerium/sign_out" => self.sign_out(request, now).await,
            "/.pomerium/signed_out" => page(StatusCode::OK, portal::signed_out()),
            "/robots.txt" => text(StatusCode::OK, "User-agent: *\nDisallow: /\n"),
            _ => problem(StatusCode::NOT_FOUND, "There is no such page on the sign-in host."),
        }
    }

    /// A call of the gateway's own on any host; `None` where it is none of ours.
    pub async fn handle_route_host(&self, request: &AuthRequest<'_>, now: Now) -> Option<Response<Bytes>> {
        match request.url.path() {
            "/.pomerium/callback" | "/.pomerium/callback/" => Some(self.callback(request, now).await),
            "/.pomerium/api/v1/login" => Some(self.programmatic_login(request, now)),
            "/.pomerium/sign_out" if request.url.host_str() != Some(self.host()) => {
                Some(self.sign_out_of_host(request, now))
            }
            "/.pomerium/user" => Some(self.user(request, now).await),
            _ => None,
        }
    }

    /// The person's own claims as JSON.
    async fn user(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        match self.session_of_request(request, now).await {
            Ok(Some(session)) => {
                let claims = serde_json::json!({
                    "sub": session.user_id, "user": session.user_id, "email": session.email,
                    "groups": session.groups, "sid": session.id, "name": session.name,
                });
                let mut response = text(StatusCode::OK, claims.to_string());
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Ok(None) => problem(StatusCode::UNAUTHORIZED, "Sign in first."),
            Err(_) => store_failed(),
        }
    }

    async fn session_of_request(&self, request: &AuthRequest<'_>, now: Now) -> Result<Option<Session>, StoreError> {
        let uri: Uri = request.url.as_str().parse().unwrap_or_default();
        self.session_of(request.headers, &uri, request.url.host_str(), now).await
    }

    /// The name of the cookie that holds the session of the sign-in host itself.
    fn own_cookie(&self) -> String {
        format!("{}_authenticate", self.settings.cookie.name)
    }

    /// A session cookie, or with an empty `value` its removal.
    fn session_cookie(&self, name: &str, value: &str) -> Option<HeaderValue> {
        let cookie = &self.settings.cookie;
        let age = if value.is_empty() { 0 } else { cookie.expire.as_secs() };
        let mut text = format!("{name}={value}; Path=/; Max-Age={age}; Secure");
        if cookie.http_only {
            text.push_str("; HttpOnly");
        }
        if let Some(domain) = &cookie.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        match cookie.same_site {
            Some(SameSite::Strict) => text.push_str("; SameSite=Strict"),
            Some(SameSite::Lax) => text.push_str("; SameSite=Lax"),
            Some(SameSite::None) => text.push_str("; SameSite=None"),
            None => {}
        }
        HeaderValue::from_str(&text).ok()
    }
}

/// A query parameter.
fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn redirect(to: &Url, cookies: &[Option<HeaderValue>]) -> Response<Bytes> {
    let mut response = text(StatusCode::FOUND, "");
    if let Ok(location) = HeaderValue::from_str(to.as_str()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    for cookie in cookies.iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie.clone());
    }
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("x-pomerium-intercepted-response", HeaderValue::from_static("true"));
    response
}

fn page(status: StatusCode, html: String) -> Response<Bytes> {
    let mut response = text(status, html);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(portal::CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A page that says what went wrong and what to do.
fn problem(status: StatusCode, detail: &str) -> Response<Bytes> {
    let title = status.canonical_reason().unwrap_or("Error");
    page(status, portal::error(&portal::ErrorPage { status: status.as_u16(), title, detail, request_id: "" }))
}

fn store_failed() -> Response<Bytes> {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "The session store does not answer. Try again; tell your administrator if it stays.")
}
