//! The way in: to the identity provider, and back with a session.
//!
//! What must survive the round trip (PKCE verifier, nonce, where to go afterwards) lies sealed in a cookie of the
//! browser that began, bound to the `state` that the provider sends back: nobody else can finish the sign-in, and
//! nobody can finish it twice.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use pomerium_shared::clock::Now;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    AuthRequest, Authenticate, ProviderError, SIGN_IN_LIFETIME, aead, page, parameter, problem, redirect, signed_url, store_failed, text,
};
use crate::{portal, session::{Session, SessionId, credentials}};

/// Names of the sealed state cookies begin so; a hash of the state follows, so that tabs do not disturb each other.
const STATE_COOKIE: &str = "_pomerium_state_";

/// What a sign-in needs to be finished.
#[derive(Serialize, Deserialize)]
struct PendingSignIn {
    verifier: String,
    nonce: String,
    return_to: Url,
    expires_at: i64,
}

impl Authenticate {
    /// Where a browser without a session is sent: the sign-in host, with the way back signed.
    #[must_use]
    pub fn sign_in_redirect(&self, original: &Url, browser_binding: &str, now: Now) -> Url {
        let mut callback = original.clone();
        callback.set_path("/.pomerium/callback/");
        callback.set_query(None);
        let mut url = self.own_url("/.pomerium/sign_in");
        url.query_pairs_mut()
            .append_pair("pomerium_redirect_uri", original.as_str())
            .append_pair("pomerium_callback_uri", callback.as_str())
            .append_pair("pomerium_idp_id", self.provider.id())
            .append_pair("pomerium_login_binding", &hash(browser_binding));
        signed_url::sign(url, &self.shared_secret, now.wall, SIGN_IN_LIFETIME)
    }

    /// The client's login: answers with the URL that a browser is to open.
    pub(super) fn programmatic_login(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        if request.method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        }
        let Some(target) = parameter(request.url, "pomerium_redirect_uri") else {
            return text(StatusCode::NOT_FOUND, "pomerium_redirect_uri is missing\n");
        };
        let Some(target) = target.parse::<Url>().ok().filter(|url| self.may_receive_token(url)) else {
            return text(StatusCode::BAD_REQUEST, "invalid redirect uri");
        };
        let mut url = self.own_url("/.pomerium/sign_in");
        url.query_pairs_mut()
            .append_pair("pomerium_callback_uri", self.own_url("/.pomerium/callback/").as_str())
            .append_pair("pomerium_idp_id", self.provider.id())
            .append_pair("pomerium_programmatic", "true")
            .append_pair("pomerium_redirect_uri", target.as_str());
        let url = signed_url::sign(url, &self.shared_secret, now.wall, SIGN_IN_LIFETIME);
        text(StatusCode::OK, url.to_string())
    }

    /// Whether a token may be sent to this URL: a loopback address under `localhost`, or a host that is listed.
    fn may_receive_token(&self, url: &Url) -> bool {
        let is_loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(_)) | None => false,
        };
        let allowed = &self.settings.programmatic_redirect_domains;
        let is_listed = |host: &str| allowed.iter().any(|domain| domain == host);
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && (url.host_str().is_some_and(is_listed) || (is_loopback && is_listed("localhost")))
    }

    /// `/.pomerium/sign_in`: hands the session over, or goes to the identity provider for one.
    pub(super) async fn sign_in(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        if let Err(error) = signed_url::verify(request.url, &self.shared_secret, now.wall) {
            return problem(StatusCode::BAD_REQUEST, &format!("This sign-in cannot go on: {error}."));
        }
        match self.own_session(request, now).await {
            Ok(Some(session)) => self.hand_over(&session, request.url, now),
            Ok(None) => self.go_to_provider(request.url.clone(), now).await,
            Err(_) => store_failed(),
        }
    }

    /// The page of the sign-in host: who is signed in, or the way to be.
    pub(super) async fn own_page(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        match self.own_session(request, now).await {
            Ok(Some(session)) => {
                let until = jiff::Timestamp::try_from(session.expires_at).map(|at| at.to_string()).unwrap_or_default();
                page(StatusCode::OK, portal::user(&portal::UserPage {
                    email: &session.email,
                    name: &session.name,
                    groups: &session.groups,
                    session_expires: &until,
                    claims: &[],
                }))
            }
            Ok(None) => self.go_to_provider(self.own_url("/.pomerium/"), now).await,
            Err(_) => store_failed(),
        }
    }

    /// The session of the sign-in host's own cookie.
    pub(super) async fn own_session(
        &self,
        request: &AuthRequest<'_>,
        now: Now,
    ) -> Result<Option<Session>, crate::store::StoreError> {
        match credentials::cookie(request.headers, &self.own_cookie()) {
            Some(token) => self.session_of_token(token, self.host(), now.wall).await,
            None => Ok(None),
        }
    }

    async fn go_to_provider(&self, return_to: Url, now: Now) -> Response<Bytes> {
        let start = match self.provider.start(&self.own_url("/oauth2/callback")).await {
            Ok(start) => start,
            Err(error) => return provider_failed(&error),
        };
        let pending = PendingSignIn {
            verifier: start.verifier,
            nonce: start.nonce,
            return_to,
            expires_at: now.unix_seconds() + 300,
        };
        let plain = serde_json::to_vec(&pending).unwrap_or_default();
        let sealed = URL_SAFE_NO_PAD.encode(aead::seal(&self.cookie_secret, &plain, start.state.as_bytes()));
        let name = state_cookie(&start.state);
        let cookie = format!("{name}={sealed}; Path=/oauth2/callback; Max-Age=300; Secure; HttpOnly; SameSite=Lax");
        redirect(&start.url, &[HeaderValue::from_str(&cookie).ok()])
    }

    /// `/oauth2/callback`: the provider's answer. A wrong, foreign or replayed `state` sets nothing.
    pub(super) async fn oauth_callback(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        let refuse = |why: &str| problem(StatusCode::BAD_REQUEST, why);
        let Some(state) = parameter(request.url, "state") else {
            return refuse("The identity provider's answer has no state. Start again from the app.");
        };
        let name = state_cookie(&state);
        let pending = credentials::cookie(request.headers, &name)
            .and_then(|sealed| URL_SAFE_NO_PAD.decode(sealed).ok())
            .and_then(|sealed| aead::open(&self.cookie_secret, &sealed, state.as_bytes()))
            .and_then(|plain| serde_json::from_slice::<PendingSignIn>(&plain).ok())
            .filter(|pending| pending.expires_at > now.unix_seconds());
        let Some(pending) = pending else {
            return refuse("This sign-in was not begun in this browser, or too long ago. Start again from the app.");
        };
        let expires_at = now.wall + SIGN_IN_LIFETIME;
        match self.store.claim_once(&format!("state {}", hash(&state)), expires_at, now.wall).await {
            Ok(true) => {}
            Ok(false) => return refuse("This sign-in was finished before. Start again from the app."),
            Err(_) => return store_failed(),
        }
        if let Some(error) = parameter(request.url, "error") {
            tracing::info!(error, "the identity provider refused a sign-in");
            let refused = matches!(error.as_str(), "access_denied" | "unauthorized_client");
            let status = if refused { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            return problem(status, "The identity provider did not sign you in. Try again, or ask your administrator.");
        }
        let Some(code) = parameter(request.url, "code").filter(|code| !code.is_empty()) else {
            return refuse("The identity provider's answer has no code. Start again from the app.");
        };
        self.finish(&pending, code, &name, now).await
    }

    async fn finish(&self, pending: &PendingSignIn, code: String, state_cookie: &str, now: Now) -> Response<Bytes> {
        let callback = self.own_url("/oauth2/callback");
        let identity = match self.provider.exchange(code, &pending.verifier, &pending.nonce, &callback).await {
            Ok(identity) => identity,
            Err(error) => return provider_failed(&error),
        };
        let expires_at = now.wall + self.settings.cookie.expire;
        let id = SessionId::new(uuid::Uuid::new_v4().to_string());
        let (session, tokens, refresh_at) = identity.into_session(id, self.provider.id(), now.wall, expires_at);
        if let Err(error) = self.store.put_session(&session, &tokens, refresh_at).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a session could not be kept");
            return store_failed();
        }
        tracing::info!("session-id" = session.id.as_str(), "user" = session.user_id.as_str(), email = session.email, "signed in");
        let Ok(token) = self.handles.mint(&session, &[self.host().to_owned()], now.wall) else {
            return problem(StatusCode::INTERNAL_SERVER_ERROR, "The session could not be signed.");
        };
        let spent = format!("{state_cookie}=; Path=/oauth2/callback; Max-Age=0; Secure; HttpOnly; SameSite=Lax");
        let cookies = [self.session_cookie(&self.own_cookie(), &token), HeaderValue::from_str(&spent).ok()];
        redirect(&pending.return_to, &cookies)
    }
}

fn provider_failed(error: &ProviderError) -> Response<Bytes> {
    tracing::warn!(error = error as &dyn std::error::Error, "the identity provider failed");
    match error {
        ProviderError::Unreachable(_) | ProviderError::Misconfigured(_) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "The identity provider cannot be reached. Try again in a moment; tell your administrator if it stays.",
        ),
        ProviderError::Refused(_) | ProviderError::BadToken(_) => problem(
            StatusCode::BAD_REQUEST,
            "The identity provider's answer was not accepted. Start again from the app.",
        ),
    }
}

fn state_cookie(state: &str) -> String {
    let hash = digest(&SHA256, state.as_bytes());
    format!("{STATE_COOKIE}{}", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..9]))
}

/// SHA-256 as unpadded base64url.
pub(super) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}
