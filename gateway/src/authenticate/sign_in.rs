//! The sign-in host's half: from a signed wish to the identity provider, and from a session to the host it is wished for.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    AuthRequest, Authenticate, cookies,
    hand_over_code::{CODE_CHALLENGE, CodeChallenge},
    pages,
    provider::PendingSignIn,
    provider_answer::provider_failed,
    route_host::CALLBACK_PATH as ROUTE_CALLBACK_PATH,
    signed_url::{self, VerifiedUrl},
    state::{self, SignInState},
    store_failed,
};
use crate::{
    device::Thumbprint,
    secret::Secret,
    session::{Session, demand::SignInDemand},
    store::{StoreError, aead},
};

/// Where the proxy sends whoever has no session.
pub(super) const SIGN_IN_PATH: &str = "/.pomerium/sign_in";
/// Where the identity provider sends people back.
pub(super) const CALLBACK_PATH: &str = "/oauth2/callback";

/// Where a signed-in person signs in anew.
pub(super) const RENEW_PATH: &str = "/.pomerium/renew";

/// A signed sign-in URL: long enough to find a password, short enough to be stale in a history.
pub(super) const SIGN_IN_LIFE: Duration = Duration::from_secs(300);
/// The hop back to the route host: a browser follows at once.
pub(super) const HAND_OVER_LIFE: Duration = Duration::from_secs(60);
/// How far the clocks of two gateways may be apart.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(60);

pub(super) const REDIRECT_URI: &str = "pomerium_redirect_uri";
pub(super) const CALLBACK_URI: &str = "pomerium_callback_uri";
pub(super) const IDP_ID: &str = "pomerium_idp_id";
pub(super) const PROGRAMMATIC: &str = "pomerium_programmatic";
pub(super) const BINDING: &str = "pomerium_binding";
pub(super) const DEVICE_KEY: &str = "pomerium_device_key";
pub(super) const DEMAND_PREFIX: &str = "pomerium_";
pub(super) const SESSION_ENCRYPTED: &str = "pomerium_session_encrypted";

/// Where somebody wants to go once they are signed in. Its targets were checked against our hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    /// Where it began, or the program's own listener.
    pub(super) redirect: Url,
    /// The callback of one of our hosts.
    pub(super) callback: Url,
    /// Whether the handle goes to a program rather than into a cookie.
    pub(super) is_programmatic: bool,
    /// Fingerprint of the secret of the browser that began; a program has none.
    pub(super) binding: Option<String>,
    /// The device key that the program proved to hold when it asked: its session is bound to it.
    #[serde(default)]
    pub(super) device_key: Option<Thumbprint>,
    /// What the program will prove when it asks for its token; without it the token itself goes through the browser.
    #[serde(default)]
    pub(super) code_challenge: Option<CodeChallenge>,
    /// What the route asks of the sign-in.
    pub(super) demand: SignInDemand,
}

/// A demand as it travels in a sign-in URL.
pub(super) fn demand_parameters(demand: &SignInDemand) -> Vec<(String, String)> {
    let named = |(name, value)| (format!("{DEMAND_PREFIX}{name}"), value);
    demand.parameters().into_iter().map(named).collect()
}

impl Authenticate {
    /// Sends a browser without a session to sign in, and binds the sign-in to this browser. For navigations by GET:
    /// a program gets a 401 instead.
    ///
    /// # Errors
    /// [`StoreError`]: no randomness.
    pub fn sign_in_response(
        &self,
        original_url: &Url,
        headers: &HeaderMap,
        demand: &SignInDemand,
        now: SystemTime,
    ) -> Result<Response<Bytes>, StoreError> {
        let browser = cookies::browser_secret(headers, cookies::BINDING_COOKIE, false)?;
        let to = self.sign_in_redirect(original_url, browser.value.expose(), demand, now);
        let mut response = pages::redirect(to.as_str());
        append_cookie(&mut response, browser.set_cookie);
        Ok(response)
    }

    /// The signed URL that begins a sign-in and returns to `original_url`. `browser_binding` is the secret in the
    /// browser's cookie of that name; only its hash travels.
    #[must_use]
    pub fn sign_in_redirect(
        &self,
        original_url: &Url,
        browser_binding: &str,
        demand: &SignInDemand,
        now: SystemTime,
    ) -> Url {
        let binding = cookies::fingerprint(browser_binding);
        let demand = demand_parameters(demand);
        let mut parameters = vec![
            (REDIRECT_URI, original_url.as_str()),
            (IDP_ID, self.idp_id.as_str()),
            (BINDING, binding.as_str()),
        ];
        parameters.extend(demand.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.signed(SIGN_IN_PATH, &parameters, SIGN_IN_LIFE, now)
    }

    /// A signed URL on the sign-in host.
    pub(super) fn signed(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        life: Duration,
        now: SystemTime,
    ) -> Url {
        let mut url = self.config.authenticate_url.clone();
        url.set_path(path);
        signed_url::sign(self.config.shared_secret.expose(), &url, parameters, life, now)
    }

    pub(super) async fn sign_in(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let verified = match signed_url::verify(self.config.shared_secret.expose(), req.url, CLOCK_SKEW, now)
        {
            Ok(verified) => verified,
            Err(error) => {
                tracing::debug!(%error, "a sign-in link was refused");
                return bad_request("This sign-in link is not valid any more. Open the application again.");
            }
        };
        let Some(wish) = self.wish_of(&verified) else {
            return bad_request("This sign-in link leads to a place that is not served here.");
        };
        // A bound session is one of its own: the browser's is not, and stays the browser's.
        if wish.device_key.is_some() {
            return self.to_provider(wish, req.headers, now).await;
        }
        match self.sign_in_host_session(req, now).await {
            // With a prompt the provider is asked each time: no session shows that it was.
            Ok(Some(session)) if wish.demand.prompt.is_none() && wish.demand.check(&session, now).is_ok() => {
                let response = self.hand_over_or_ask(&wish, &session, now).await;
                if is_framed(req.headers) && response.status() != StatusCode::FOUND {
                    return pages::in_a_tab(&wish.redirect);
                }
                response
            }
            // Identity providers do not show themselves in frames.
            Ok(_) if is_framed(req.headers) => pages::in_a_tab(&wish.redirect),
            Ok(_) if req.headers.get("x-requested-with").is_some_and(|by| by == "XMLHttpRequest") => {
                pages::problem(StatusCode::UNAUTHORIZED, "Sign in first.")
            }
            Ok(_) => self.to_provider(wish, req.headers, now).await,
            Err(error) => store_failed(&error),
        }
    }

    fn wish_of(&self, verified: &VerifiedUrl) -> Option<Wish> {
        if verified.parameter(IDP_ID) != Some(&self.idp_id) {
            return None;
        }
        let redirect: Url = verified.parameter(REDIRECT_URI)?.parse().ok()?;
        let is_programmatic = verified.parameter(PROGRAMMATIC) == Some("true");
        let callback = match verified.parameter(CALLBACK_URI) {
            Some(callback) if is_programmatic => callback.parse().ok()?,
            _ => redirect.join(ROUTE_CALLBACK_PATH).ok()?,
        };
        let binding = verified.parameter(BINDING).map(str::to_owned);
        let device_key =
            verified.parameter(DEVICE_KEY).filter(|_| is_programmatic).map(Thumbprint::from_text);
        let code_challenge = CodeChallenge::of_parameter(verified.parameter(CODE_CHALLENGE)).ok()?;
        let demand =
            SignInDemand::of_parameters(|name| verified.parameter(&format!("{DEMAND_PREFIX}{name}")))?;
        let wish = Wish { redirect, callback, is_programmatic, binding, device_key, code_challenge, demand };
        self.is_allowed(&wish).then_some(wish)
    }

    pub(super) fn is_allowed(&self, wish: &Wish) -> bool {
        let may_return = if wish.is_programmatic {
            self.is_programmatic_target(&wish.redirect)
        } else {
            self.is_our_url(&wish.redirect) && wish.binding.is_some()
        };
        may_return && self.is_our_url(&wish.callback) && wish.callback.path() == ROUTE_CALLBACK_PATH
    }

    async fn to_provider(&self, wish: Wish, headers: &HeaderMap, now: SystemTime) -> Response<Bytes> {
        let is_posted = self.config.identity_provider.quirks.answers_by_form;
        let made = (|| {
            let browser = cookies::browser_secret(headers, cookies::CSRF_COOKIE, is_posted)?;
            let pending = PendingSignIn {
                nonce: Secret::new(cookies::random_text()?),
                pkce_verifier: Secret::new(cookies::random_text()?),
            };
            let demand = wish.demand.clone();
            let state = SignInState { wish, pending };
            let sealed = state::seal(self.config.cookie_secret.expose(), &state, &browser.value, now)?;
            Ok::<_, StoreError>((browser, state.pending, demand, sealed))
        })();
        let (browser, pending, demand, sealed) = match made {
            Ok(made) => made,
            Err(error) => return store_failed(&error),
        };
        match self.provider.authorization_url(&pending, &demand, sealed).await {
            Ok(url) => {
                let mut response = pages::redirect(url.as_str());
                append_cookie(&mut response, browser.set_cookie);
                response
            }
            Err(error) => provider_failed(&error),
        }
    }

    /// To the route host's callback, with the handle sealed in a URL that works once and for a minute.
    pub(super) fn hand_over(&self, wish: &Wish, session: &Session, now: SystemTime) -> Response<Bytes> {
        if !self.is_allowed(wish) {
            return bad_request("This sign-in leads to a place that is not served here any more.");
        }
        // A program may speak to the gateway at its sign-in host; a browser's cookie is for the app's host alone.
        let hosts = [
            wish.is_programmatic.then_some(&self.config.authenticate_url),
            (!wish.is_programmatic).then_some(&wish.redirect),
            Some(&wish.callback),
        ];
        let mut audience: Vec<String> =
            hosts.into_iter().flatten().filter_map(|url| url.host_str()).map(str::to_owned).collect();
        audience.dedup();
        let sealed = self.handle_key.mint(session, &audience, now).ok().and_then(|handle| {
            aead::seal(
                self.config.shared_secret.expose(),
                handle.expose().as_bytes(),
                SESSION_ENCRYPTED.as_bytes(),
            )
            .ok()
        });
        let Some(sealed) = sealed.map(|sealed| URL_SAFE.encode(sealed)) else {
            return pages::problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The session could not be handed over.",
            );
        };
        let mut parameters =
            vec![(REDIRECT_URI, wish.redirect.as_str()), (SESSION_ENCRYPTED, sealed.as_str())];
        if wish.is_programmatic {
            parameters.push((PROGRAMMATIC, "true"));
        }
        if let Some(challenge) = &wish.code_challenge {
            parameters.push((CODE_CHALLENGE, challenge.as_str()));
        }
        if let Some(binding) = &wish.binding {
            parameters.push((BINDING, binding));
        }
        let secret = self.config.shared_secret.expose();
        pages::redirect(signed_url::sign(secret, &wish.callback, &parameters, HAND_OVER_LIFE, now).as_str())
    }
}

/// Whether the browser says that the answer will stand in a frame (Fetch Metadata).
#[must_use]
pub fn is_framed(headers: &HeaderMap) -> bool {
    let dest = headers.get("sec-fetch-dest").and_then(|dest| dest.to_str().ok());
    matches!(dest, Some("iframe" | "frame" | "embed" | "object" | "fencedframe"))
}

pub(super) fn append_cookie(response: &mut Response<Bytes>, line: Option<HeaderValue>) {
    if let Some(line) = line {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
}

pub(super) fn bad_request(what: &str) -> Response<Bytes> {
    pages::problem(StatusCode::BAD_REQUEST, what)
}
