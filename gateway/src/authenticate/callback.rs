//! The hand-over of a session from the sign-in host to an app's host, or to the waiting client.
//!
//! The link is signed, sealed, good for a minute and for one use; where a cookie is to be set, only the browser that
//! began the sign-in can use it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use http::{Response, StatusCode};
use pomerium_shared::clock::Now;
use subtle::ConstantTimeEq as _;
use url::Url;

use super::{
    AuthRequest, Authenticate, HAND_OVER_LIFETIME, aead, parameter, problem, redirect, sign_in::hash, signed_url, store_failed,
};
use crate::session::{Session, credentials};

/// What the sealed session is bound to.
const ASSOCIATED: &[u8] = b"pomerium session hand-over";

/// The cookie that binds a sign-in to the browser that began it.
pub(crate) const LOGIN_COOKIE: &str = "_pomerium_login";

impl Authenticate {
    /// Sends the session on to where the sign-in began; `link` is the signed sign-in URL.
    pub(super) fn hand_over(&self, session: &Session, link: &Url, now: Now) -> Response<Bytes> {
        let target = parameter(link, "pomerium_redirect_uri").and_then(|uri| uri.parse::<Url>().ok());
        let callback = parameter(link, "pomerium_callback_uri").and_then(|uri| uri.parse::<Url>().ok());
        let (Some(target), Some(mut callback)) = (target, callback) else {
            return problem(StatusCode::BAD_REQUEST, "This sign-in does not say where it leads. Start again from the app.");
        };
        let is_programmatic = parameter(link, "pomerium_programmatic").as_deref() == Some("true");
        let audience: Vec<String> =
            [Some(self.host()), target.host_str(), callback.host_str()].into_iter().flatten().map(str::to_owned).collect();
        let Ok(token) = self.handles.mint(session, &audience, now.wall) else {
            return problem(StatusCode::INTERNAL_SERVER_ERROR, "The session could not be signed.");
        };
        let sealed = URL_SAFE.encode(aead::seal(&self.shared_secret, token.as_bytes(), ASSOCIATED));
        let binding = parameter(link, "pomerium_login_binding").unwrap_or_default();
        callback
            .query_pairs_mut()
            .clear()
            .append_pair("pomerium_session_encrypted", &sealed)
            .append_pair("pomerium_redirect_uri", target.as_str())
            .append_pair("pomerium_programmatic", if is_programmatic { "true" } else { "false" })
            .append_pair("pomerium_login_binding", &binding);
        redirect(&signed_url::sign(callback, &self.shared_secret, now.wall, HAND_OVER_LIFETIME), &[])
    }

    /// `/.pomerium/callback/`: takes the session that the sign-in host sent.
    pub(super) async fn callback(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        let refuse = |why: &str| problem(StatusCode::BAD_REQUEST, why);
        let signature = match signed_url::verify(request.url, &self.shared_secret, now.wall) {
            Ok(signature) => signature,
            Err(error) => return refuse(&format!("This sign-in cannot be finished: {error}.")),
        };
        let target = parameter(request.url, "pomerium_redirect_uri").and_then(|uri| uri.parse::<Url>().ok());
        let token = parameter(request.url, "pomerium_session_encrypted")
            .and_then(|sealed| URL_SAFE.decode(sealed).ok())
            .and_then(|sealed| aead::open(&self.shared_secret, &sealed, ASSOCIATED))
            .and_then(|token| String::from_utf8(token).ok());
        let (Some(mut target), Some(token)) = (target, token) else {
            return refuse("This sign-in cannot be finished: the link is damaged. Start again from the app.");
        };
        let is_programmatic = parameter(request.url, "pomerium_programmatic").as_deref() == Some("true");
        if !is_programmatic && !self.began_here(request) {
            return refuse("This sign-in was begun in another browser. Start again from the app.");
        }
        if !is_programmatic && target.host_str() != request.url.host_str() {
            return refuse("This sign-in leads to another host. Start again from the app.");
        }
        let expires_at = now.wall + HAND_OVER_LIFETIME * 3;
        match self.store.claim_once(&format!("hand-over {}", hash(&signature)), expires_at, now.wall).await {
            Ok(true) => {}
            Ok(false) => return refuse("This link was used before. Start again from the app."),
            Err(_) => return store_failed(),
        }
        if is_programmatic {
            target.query_pairs_mut().append_pair("pomerium_jwt", &token);
            return redirect(&target, &[]);
        }
        redirect(&target, &[self.session_cookie(&self.settings.cookie.name, &token)])
    }

    /// Whether this browser holds the cookie that the sign-in was bound to.
    fn began_here(&self, request: &AuthRequest<'_>) -> bool {
        let bound = parameter(request.url, "pomerium_login_binding").unwrap_or_default();
        let held = credentials::cookie(request.headers, LOGIN_COOKIE).map(hash).unwrap_or_default();
        !bound.is_empty() && bool::from(bound.as_bytes().ct_eq(held.as_bytes()))
    }
}
