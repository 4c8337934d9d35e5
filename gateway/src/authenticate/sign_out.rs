//! Signing out: the session ends here first, then at the identity provider.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};

use super::{
    AuthRequest, Authenticate, Resolved, pages,
    sign_in::{CLOCK_SKEW, append_cookie},
    signed_url, store_failed,
};
use crate::{
    session::{SessionId, credentials::CredentialSource},
    store::{ProviderTokens, StoreError},
};

pub(super) const SIGN_OUT_PATH: &str = "/.pomerium/sign_out";
pub(super) const SIGNED_OUT_PATH: &str = "/.pomerium/signed_out";
/// Names the session that a signed URL is about. An id alone opens nothing.
pub(super) const SESSION_ID: &str = "pomerium_session_id";
const LIFE: Duration = Duration::from_secs(300);
/// A person waits for this: revocation at the provider is best effort.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(3);

impl Authenticate {
    /// On a route host: clears its cookie and goes on to the sign-in host. A program's handle ends its session at once.
    pub(super) async fn sign_out_of_route(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        // Another site's page must not sign people out: they are asked first.
        if is_from_another_site(req) {
            let mut url = self.config.authenticate_url.clone();
            url.set_path(SIGN_OUT_PATH);
            return pages::redirect(url.as_str());
        }
        let resolved =
            match self.resolve(req.headers, req.url.query(), req.url.host_str(), req.key, now).await {
                Ok(resolved) => resolved,
                Err(error) => return store_failed(&error),
            };
        let session = match resolved {
            Resolved::Valid(CredentialSource::Cookie, session) => Some(session),
            Resolved::Valid(_, session) => {
                return match self.end(&session.id).await {
                    Ok(_) => pages::text(StatusCode::OK, "signed out"),
                    Err(error) => store_failed(&error),
                };
            }
            Resolved::Absent | Resolved::Invalid(..) => None,
        };
        let id = session.as_ref().map(|session| (SESSION_ID, session.id.as_str()));
        let url = self.signed(SIGN_OUT_PATH, &id.into_iter().collect::<Vec<_>>(), LIFE, now);
        let mut response = pages::redirect(url.as_str());
        append_cookie(&mut response, self.clear_cookie(&self.config.cookie.name));
        response
    }

    /// On the sign-in host: asks first, unless the URL is signed and names this browser's session, or our own form was sent.
    pub(super) async fn sign_out(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let verified = signed_url::verify(self.config.shared_secret.expose(), req.url, CLOCK_SKEW, now).ok();
        if req.method == Method::POST {
            if !is_same_origin(req) {
                return pages::problem(StatusCode::BAD_REQUEST, "This form was not sent from here.");
            }
        } else if verified.is_none() {
            return pages::confirm_sign_out();
        }
        let named = verified.as_ref().and_then(|url| url.parameter(SESSION_ID)).map(SessionId::new);
        let own = match self.sign_in_host_session(req, now).await {
            Ok(session) => session.map(|session| session.id.clone()),
            Err(error) => return store_failed(&error),
        };
        // A link speaks for the session that it names, and any host of ours signs one for whoever asks: the session of the
        // person who happens to follow it is ended on their own word alone.
        let asks = req.method != Method::POST && own.is_some() && own != named;
        let mut tokens = None;
        for id in [own.filter(|_| !asks), named].into_iter().flatten() {
            match self.end(&id).await {
                Ok(ended) => tokens = tokens.or(ended),
                Err(error) => return store_failed(&error),
            }
        }
        if asks {
            return pages::confirm_sign_out();
        }
        let mut response = pages::redirect(&self.after_sign_out(tokens.as_ref()).await);
        append_cookie(&mut response, self.clear_cookie(&self.sign_in_cookie_name()));
        response
    }

    /// The provider's own sign-out, which comes back to [`SIGNED_OUT_PATH`]; that page, where there is none.
    async fn after_sign_out(&self, tokens: Option<&ProviderTokens>) -> String {
        let mut back = self.config.authenticate_url.clone();
        back.set_path(SIGNED_OUT_PATH);
        let Some(tokens) = tokens else { return SIGNED_OUT_PATH.to_owned() };
        match self.provider.end_session_url(&tokens.id_token, &back).await {
            Ok(Some(url)) => url.into(),
            Ok(None) => SIGNED_OUT_PATH.to_owned(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no sign-out at the identity provider"
                );
                SIGNED_OUT_PATH.to_owned()
            }
        }
    }

    pub(super) fn signed_out_page(&self) -> Response<Bytes> {
        match &self.config.signout_redirect_url {
            Some(url) => pages::redirect(url.as_str()),
            None => pages::signed_out(),
        }
    }

    /// Ends a session for good; what the provider makes of it changes nothing.
    pub(super) async fn end(&self, id: &SessionId) -> Result<Option<ProviderTokens>, StoreError> {
        // Tokens that do not open must not keep the session alive.
        let tokens = self.store.tokens(id).await.unwrap_or_default();
        self.store.end_session(id).await?;
        tracing::info!(session = %id, "a session was ended by its person");
        if let Some(tokens) = &tokens {
            match tokio::time::timeout(REVOCATION_TIMEOUT, self.provider.revoke(tokens)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the provider did not revoke the tokens"),
                Err(_) => tracing::debug!("the provider did not revoke the tokens in time"),
            }
        }
        Ok(tokens)
    }
}

fn is_from_another_site(req: &AuthRequest<'_>) -> bool {
    req.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
}

/// By `Sec-Fetch-Site` where the browser sends it, else by `Origin`; a form without either is refused.
pub(super) fn is_same_origin(req: &AuthRequest<'_>) -> bool {
    if let Some(site) = req.headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = req.url.origin().ascii_serialization();
    req.headers.get(header::ORIGIN).is_some_and(|sent| *sent == *origin)
}
