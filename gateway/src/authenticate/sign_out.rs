//! The way out: the session ends in the store, the cookies go, and the identity provider is told.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use pomerium_shared::clock::Now;

use super::{AuthRequest, Authenticate, page, problem, redirect, signed_url, store_failed};
use crate::portal;

/// How long the way from an app's host to the sign-in host may take.
const LIFETIME: Duration = Duration::from_secs(60);

impl Authenticate {
    /// On an app's host: drops its cookie and goes on to the sign-in host. Another site's link only gets as far as
    /// the question whether to sign out.
    pub(super) fn sign_out_of_host(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        let url = self.own_url("/.pomerium/sign_out");
        if is_cross_site(request.headers) {
            return redirect(&url, &[]);
        }
        let signed = signed_url::sign(url, &self.shared_secret, now.wall, LIFETIME);
        redirect(&signed, &[self.session_cookie(&self.settings.cookie.name, "")])
    }

    /// On the sign-in host: a signed link or the page's own form signs out, anything else gets the form.
    pub(super) async fn sign_out(&self, request: &AuthRequest<'_>, now: Now) -> Response<Bytes> {
        let is_signed = signed_url::verify(request.url, &self.shared_secret, now.wall).is_ok();
        let is_confirmed = request.method == Method::POST && !is_cross_site(request.headers);
        if !is_signed && !is_confirmed {
            if request.method == Method::POST {
                return problem(StatusCode::BAD_REQUEST, "Another site asked to sign you out. Nothing was done.");
            }
            return page(StatusCode::OK, portal::confirm_sign_out());
        }
        let session = match self.own_session(request, now).await {
            Ok(session) => session,
            Err(_) => return store_failed(),
        };
        let mut next = self.settings.signout_redirect_url.clone().unwrap_or_else(|| self.own_url("/.pomerium/signed_out"));
        if let Some(session) = session {
            let tokens = self.store.tokens(&session.id).await.ok().flatten();
            if self.store.end_session(&session.id).await.is_err() {
                return store_failed();
            }
            tracing::info!("session-id" = session.id.as_str(), "user" = session.user_id.as_str(), "signed out");
            let after = self.own_url("/.pomerium/signed_out");
            if let Some(tokens) = tokens
                && let Some(url) = self.provider.end_session_url(&tokens.id_token, &after).await
            {
                next = url;
            }
        }
        redirect(&next, &[self.session_cookie(&self.own_cookie(), "")])
    }
}

/// Whether a browser says that another site caused the request (Fetch Metadata).
fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    // Browsers always say; what says nothing is no browser and has no cookies to abuse.
    matches!(site, Some("cross-site"))
}
