//! The route hosts' half: where a sign-in lands, and what programs ask for.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;
use subtle::ConstantTimeEq;
use url::Url;

use super::{
    AuthRequest, Authenticate, Holder, Resolved, cookies,
    hand_over_code::{CODE, CODE_CHALLENGE, CodeChallenge, HAND_OVER_FIELD, NoChallenge},
    landings, pages,
    sign_in::{
        BINDING, CALLBACK_URI, DEVICE_KEY, IDP_ID, PROGRAMMATIC, REDIRECT_URI, SESSION_ENCRYPTED,
        SIGN_IN_LIFE, SIGN_IN_PATH, append_cookie, bad_request, demand_parameters,
    },
    sign_out::SIGN_OUT_PATH,
    signed_url::{self, VerifiedUrl},
    store_failed,
    token_endpoint::{DEVICE_AUTHORIZATION_PATH, TOKEN_PATH},
};
use crate::{
    config::SameSite,
    device::Thumbprint,
    secret::Secret,
    session::{Session, credentials, demand::SignInDemand},
    store::aead,
};

/// Where the sign-in host hands a session over.
pub(super) const CALLBACK_PATH: &str = "/.pomerium/callback/";
/// Where a program asks for a sign-in URL.
pub const LOGIN_PATH: &str = "/.pomerium/api/v1/login";
const USER_PATH: &str = "/.pomerium/user";

/// The paths that [`Authenticate::handle_route_host`] answers; none of them is ever an app's.
pub const ROUTE_HOST_PATHS: [&str; 6] =
    [CALLBACK_PATH, LOGIN_PATH, USER_PATH, SIGN_OUT_PATH, TOKEN_PATH, DEVICE_AUTHORIZATION_PATH];

impl Authenticate {
    /// Answers a request to a route host; `None` when its path is none of [`ROUTE_HOST_PATHS`].
    pub async fn handle_route_host(&self, req: AuthRequest<'_>, now: SystemTime) -> Option<Response<Bytes>> {
        let response = self.answer_route_host(req, now).await?;
        Some(pages::framed(response, &self.config.look))
    }

    async fn answer_route_host(&self, req: AuthRequest<'_>, now: SystemTime) -> Option<Response<Bytes>> {
        let path = req.url.path();
        let is_read = req.method == Method::GET || req.method == Method::HEAD;
        if !ROUTE_HOST_PATHS.contains(&path) {
            return None;
        }
        if matches!(path, TOKEN_PATH | DEVICE_AUTHORIZATION_PATH) {
            return Some(self.program_endpoint(&req, now).await);
        }
        let is_sign_out = path == SIGN_OUT_PATH && req.method == Method::POST;
        if !is_read && !is_sign_out {
            return Some(pages::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
        }
        Some(match path {
            CALLBACK_PATH => self.land(&req, now).await,
            LOGIN_PATH => self.programmatic_login(&req, now),
            USER_PATH => self.user(&req, now).await,
            _ => self.sign_out_of_route(&req, now).await,
        })
    }

    /// The end of a sign-in: only in the browser that began it, only once.
    async fn land(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        const STALE: &str = "This sign-in is not valid any more. Open the application again.";
        let secret = self.config.shared_secret.expose();
        // The sign-in host and this one read the same clock, so a minute is a minute.
        let verified = match signed_url::verify(secret, req.url, Duration::ZERO, now) {
            Ok(verified) => verified,
            Err(error) => {
                tracing::debug!(%error, "a hand-over was refused");
                return bad_request(STALE);
            }
        };
        let Some((redirect, is_programmatic)) = self.landing_target(&verified) else {
            return bad_request("This sign-in leads to a place that is not served here.");
        };
        if !is_programmatic && !was_begun_here(req, &verified) {
            return bad_request(
                "This sign-in was begun in another browser. Open the application again in this one.",
            );
        }
        let Some(handle) = self.handed_over(&verified) else { return bad_request(STALE) };
        let session =
            match self.session_of_token(handle.expose(), req.url.host_str(), Holder::HandOver, now).await {
                Ok(Ok(session)) => session,
                Ok(Err(_)) => return bad_request(STALE),
                Err(error) => return store_failed(&error),
            };
        match self
            .store
            .claim_once(&format!("handover:{}", verified.signature), verified.expires_at, now)
            .await
        {
            Ok(true) => {}
            // The back button, or a tab that is opened again: whoever is signed in by now just goes on.
            Ok(false) if !is_programmatic => return self.landed_before(req, &redirect, now).await,
            Ok(false) => return bad_request("This sign-in was already used. Open the application again."),
            Err(error) => return store_failed(&error),
        }
        if is_programmatic {
            let challenge = verified.parameter(CODE_CHALLENGE);
            return self.landed_at_program(redirect, challenge, &handle, now);
        }
        let mut response = self.landed(&redirect, &handle, &session, now);
        append_cookie(&mut response, landings::one_more(req.headers));
        response
    }

    /// Sends the browser to the program with a code for whoever proves to be that program; with the token itself, if the
    /// program asked for no more.
    fn landed_at_program(
        &self,
        mut redirect: Url,
        challenge: Option<&str>,
        handle: &Secret<String>,
        now: SystemTime,
    ) -> Response<Bytes> {
        let (name, value) = match CodeChallenge::of_parameter(challenge) {
            Ok(None) => ("pomerium_jwt", Some(handle.expose().clone())),
            Ok(Some(challenge)) => (CODE, self.code_for(handle, challenge, now)),
            Err(NoChallenge) => (CODE, None),
        };
        let Some(value) = value else { return bad_request("This sign-in cannot go on. Begin it again.") };
        redirect.query_pairs_mut().append_pair(name, &value);
        pages::redirect(redirect.as_str())
    }

    async fn landed_before(&self, req: &AuthRequest<'_>, redirect: &Url, now: SystemTime) -> Response<Bytes> {
        match self.resolve(req.headers, None, req.url.host_str(), req.key, now).await {
            Ok(Resolved::Valid(..)) => pages::redirect(redirect.as_str()),
            Ok(Resolved::Absent | Resolved::Invalid(..)) => {
                bad_request("This sign-in was already used. Open the application again.")
            }
            Err(error) => store_failed(&error),
        }
    }

    fn landed(
        &self,
        redirect: &Url,
        handle: &Secret<String>,
        session: &Session,
        now: SystemTime,
    ) -> Response<Bytes> {
        let mut response = match self.config.cookie.same_site {
            // A redirect goes on from the site that the browser came from, and takes no strict cookie along: the app
            // would send it back to sign in, for ever. A page of this host takes it along.
            SameSite::Strict => pages::onward(redirect),
            SameSite::Lax | SameSite::None => pages::redirect(redirect.as_str()),
        };
        append_cookie(&mut response, self.session_cookie(&self.config.cookie.name, handle, session, now));
        response
    }

    fn landing_target(&self, verified: &VerifiedUrl) -> Option<(Url, bool)> {
        let redirect: Url = verified.parameter(REDIRECT_URI)?.parse().ok()?;
        let is_programmatic = verified.parameter(PROGRAMMATIC) == Some("true");
        let is_allowed =
            if is_programmatic { self.is_programmatic_target(&redirect) } else { self.is_our_url(&redirect) };
        is_allowed.then_some((redirect, is_programmatic))
    }

    fn handed_over(&self, verified: &VerifiedUrl) -> Option<Secret<String>> {
        let sealed = URL_SAFE.decode(verified.parameter(SESSION_ENCRYPTED)?).ok()?;
        let plain =
            aead::open(self.config.shared_secret.expose(), &sealed, SESSION_ENCRYPTED.as_bytes()).ok()?;
        String::from_utf8(plain).ok().map(Secret::new)
    }

    /// A sign-in URL for a program that listens at `pomerium_redirect_uri`; the body is the URL and nothing else.
    fn programmatic_login(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let Some((_, redirect)) = req.url.query_pairs().find(|(name, _)| name == REDIRECT_URI) else {
            return pages::text(StatusCode::NOT_FOUND, "pomerium_redirect_uri is missing");
        };
        let redirect = redirect.parse().ok().filter(|url| self.is_programmatic_target(url));
        let (Some(redirect), Ok(callback)) = (redirect, req.url.join(CALLBACK_PATH)) else {
            return pages::text(StatusCode::BAD_REQUEST, "invalid redirect uri");
        };
        if !self.is_our_url(&callback) {
            return pages::text(StatusCode::BAD_REQUEST, "this host signs nobody in");
        }
        let Ok(device_key) = device_key_of(req) else {
            return pages::text(
                StatusCode::BAD_REQUEST,
                "pomerium_device_key names another key than the one that this connection proved",
            );
        };
        let asked: Vec<(String, String)> = req.url.query_pairs().into_owned().collect();
        let value = |name: &str| asked.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        // What a route asks for in its challenge may be asked for here: it only makes the sign-in stricter.
        let Some(demand) = SignInDemand::of_parameters(value) else {
            return pages::text(StatusCode::BAD_REQUEST, "invalid prompt, max_age or acr_values");
        };
        let Ok(challenge) = CodeChallenge::of_parameter(value(CODE_CHALLENGE)) else {
            return pages::text(
                StatusCode::BAD_REQUEST,
                "pomerium_code_challenge is no SHA-256 in base64url",
            );
        };
        let demand = demand_parameters(&demand);
        let mut parameters = vec![
            (REDIRECT_URI, redirect.as_str()),
            (CALLBACK_URI, callback.as_str()),
            (PROGRAMMATIC, "true"),
            (IDP_ID, self.idp_id.as_str()),
        ];
        if let Some(key) = device_key {
            parameters.push((DEVICE_KEY, key.as_str()));
        }
        if let Some(challenge) = &challenge {
            parameters.push((CODE_CHALLENGE, challenge.as_str()));
        }
        parameters.extend(demand.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let url = self.signed(SIGN_IN_PATH, &parameters, SIGN_IN_LIFE, now);
        let mut response = pages::text(StatusCode::OK, url.to_string());
        if challenge.is_some() {
            response.headers_mut().insert(HAND_OVER_FIELD, HeaderValue::from_static("code"));
        }
        response
    }

    async fn user(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        match self.resolve(req.headers, req.url.query(), req.url.host_str(), req.key, now).await {
            Ok(Resolved::Valid(_, session)) => pages::json(&json!({
                "sub": session.user_id,
                "user": session.user_id,
                "email": session.email,
                "groups": session.groups,
                "sid": session.id,
                "name": session.name,
            })),
            Ok(Resolved::Absent | Resolved::Invalid(..)) => {
                pages::text(StatusCode::NOT_FOUND, "not signed in")
            }
            Err(error) => store_failed(&error),
        }
    }
}

/// The other end's key is not the one that it names.
struct OtherKey;

/// The key to bind the session to: one that the program names, and that its connection proved. Where something in
/// between ends TLS no key arrives, and the session is bound to none; policy may ask for one that is.
fn device_key_of<'a>(req: &AuthRequest<'a>) -> Result<Option<&'a Thumbprint>, OtherKey> {
    let named = req.url.query_pairs().find(|(name, _)| name == DEVICE_KEY).map(|(_, value)| value);
    match (named, req.key) {
        (Some(named), Some(proven)) if named == proven.as_str() => Ok(Some(proven)),
        (Some(_), Some(_)) => Err(OtherKey),
        (Some(_), None) | (None, _) => Ok(None),
    }
}

fn was_begun_here(req: &AuthRequest<'_>, verified: &VerifiedUrl) -> bool {
    let Some(expected) = verified.parameter(BINDING) else { return false };
    credentials::cookies(req.headers, cookies::BINDING_COOKIE)
        .any(|secret| cookies::fingerprint(secret).as_bytes().ct_eq(expected.as_bytes()).into())
}
