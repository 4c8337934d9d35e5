//! What the identity provider answers, and the session that begins with it.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use sha2::{Digest, Sha256};

use super::{
    AuthRequest, Authenticate, cookies, pages,
    provider::{Granted, ProviderError},
    sign_in::{Wish, append_cookie, bad_request},
    state::{self, StateError},
    store_failed,
};
use crate::session::{Session, SessionId, credentials, expiry::session_end};

/// The longest life of a session where neither length nor time of day give one.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

impl Authenticate {
    /// The identity provider's answer. The state is checked, and used up, before anything else is looked at.
    pub(super) async fn provider_callback(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let answer = if req.method == Method::POST {
            ProviderAnswer::read(&req.form)
        } else {
            ProviderAnswer::read(req.url.query().unwrap_or_default().as_bytes())
        };
        let csrf = credentials::cookies(req.headers, cookies::CSRF_COOKIE);
        let state = match state::open(self.config.cookie_secret.expose(), &answer.state, csrf, now) {
            Ok(state) => state,
            // By now the provider knows the person: the app's host begins anew, and most likely nobody has to type again.
            Err(StateError::TooOld(wish)) if !wish.is_programmatic && self.is_allowed(&wish) => {
                return pages::redirect(wish.redirect.as_str());
            }
            Err(error) => {
                tracing::debug!(%error, "a sign-in answer was refused");
                return bad_request(
                    "This sign-in was not begun in this browser, or it took too long. Open the application again.",
                );
            }
        };
        let key = format!("state:{}", URL_SAFE.encode(Sha256::digest(&answer.state)));
        match self.store.claim_once(&key, now + 2 * state::STATE_LIFE, now).await {
            Ok(true) => {}
            Ok(false) => return self.answered_before(req, &state.wish, now).await,
            Err(error) => return store_failed(&error),
        }
        match (answer.error.as_str(), answer.code.as_str()) {
            ("access_denied" | "unauthorized_client", _) => {
                pages::problem(StatusCode::UNAUTHORIZED, "The identity provider did not sign you in.")
            }
            ("", "") => {
                bad_request("The identity provider's answer is incomplete. Open the application again.")
            }
            ("", code) => match self.provider.redeem(code.to_owned(), &state.pending, now).await {
                Ok(granted) => self.begin_session(req, &state.wish, granted, now).await,
                Err(error) => provider_failed(&error),
            },
            _ => bad_request("The identity provider reported an error. Open the application again."),
        }
    }

    /// The back button brings the provider's answer again: whoever signed in with it just goes on.
    async fn answered_before(&self, req: &AuthRequest<'_>, wish: &Wish, now: SystemTime) -> Response<Bytes> {
        match self.sign_in_host_session(req, now).await {
            Ok(Some(session)) if !wish.is_programmatic && wish.demand.check(&session, now).is_ok() => {
                self.hand_over_or_ask(wish, &session, now).await
            }
            Ok(_) => bad_request("This sign-in was already used. Open the application again."),
            Err(error) => store_failed(&error),
        }
    }

    async fn begin_session(
        &self,
        req: &AuthRequest<'_>,
        wish: &Wish,
        granted: Granted,
        now: SystemTime,
    ) -> Response<Bytes> {
        let Granted { identity, tokens } = granted;
        let cookie = &self.config.cookie;
        let mut session = Session {
            // Ours alone: a provider's `jti` names nothing here.
            id: SessionId::new(uuid::Uuid::new_v4().to_string()),
            user_id: identity.user_id,
            idp_id: self.idp_id.clone(),
            email: identity.email,
            name: identity.name,
            groups: identity.groups,
            claims: identity.claims,
            issued_at: now,
            expires_at: session_end(cookie.expire, cookie.expire_at.as_ref(), LIFE_MAX, now),
            bound_to: wish.device_key.clone(),
            vouched_until: tokens.access_expires_at.filter(|_| tokens.refresh.is_some()),
            proof: None,
        };
        if let Err(why) = wish.demand.check(&session, now) {
            tracing::info!(user = %session.user_id, %why, "the provider did not meet what the route asks for");
            return pages::problem(
                StatusCode::FORBIDDEN,
                "The identity provider did not sign you in in the way that the application asks for. Tell your administrator.",
            );
        }
        if let Some(refusal) = self.refusal_of_directory(&session).await {
            return refusal;
        }
        match self.keep_session(req, &mut session, &tokens, now).await {
            Ok(()) => {}
            Err(error) => return store_failed(&error),
        }
        tracing::info!(session = %session.id, user = %session.user_id, "somebody signed in");
        if session.bound_to.is_some() {
            return self.hand_over(wish, &session, now);
        }
        let Ok(handle) = self.handle_key.mint(&session, &[self.sign_in_audience()], now) else {
            return pages::problem(StatusCode::INTERNAL_SERVER_ERROR, "The session could not be made.");
        };
        // Straight on, not by way of the sign-in URL: a browser that keeps no cookie here does not go round in circles.
        let mut response = self.hand_over_or_ask(wish, &session, now).await;
        append_cookie(
            &mut response,
            self.session_cookie(&self.sign_in_cookie_name(), &handle, &session, now),
        );
        response
    }

    /// What somebody gets whom the directory keeps out.
    async fn refusal_of_directory(&self, session: &Session) -> Option<Response<Bytes>> {
        match self.store.is_deactivated(session).await {
            Ok(false) => None,
            Ok(true) => {
                tracing::info!(user = %session.user_id, "somebody whom the directory keeps out tried to sign in");
                Some(pages::problem(
                    StatusCode::FORBIDDEN,
                    "Your account is deactivated in your organization's directory. Tell your administrator.",
                ))
            }
            Err(error) => Some(store_failed(&error)),
        }
    }
}

/// The parameters of the callback; empty where missing.
#[derive(Default)]
struct ProviderAnswer {
    state: String,
    code: String,
    error: String,
}

impl ProviderAnswer {
    fn read(form: &[u8]) -> Self {
        let mut answer = Self::default();
        for (name, value) in url::form_urlencoded::parse(form) {
            match &*name {
                "state" => answer.state = value.into_owned(),
                "code" => answer.code = value.into_owned(),
                "error" => answer.error = value.into_owned(),
                _ => {}
            }
        }
        answer
    }
}

pub(super) fn provider_failed(error: &ProviderError) -> Response<Bytes> {
    tracing::warn!(error = error as &dyn std::error::Error, "the identity provider gave no session");
    match error {
        ProviderError::Refused(_) | ProviderError::BadIdToken(_) => {
            bad_request("The identity provider did not confirm this sign-in. Open the application again.")
        }
        ProviderError::Unreachable(_) | ProviderError::Nonconforming(_) => pages::problem(
            StatusCode::BAD_GATEWAY,
            "The identity provider cannot be reached or is set up wrongly. Try again in a minute; if it lasts, tell your administrator.",
        ),
    }
}
