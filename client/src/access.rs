//! Asks a gateway as this person: sends the token, and when it is refused signs in once and asks again.
//!
//! Local connections that wait for an answer are held meanwhile; they never see the sign-in.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, header::AUTHORIZATION};
use pomerium_shared::{destination::Destination, relay::Leg, tunnel::Connected};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    cache::Cache,
    failure::Failure,
    gateway::Gateway,
    link::{
        Link, LinkError,
        answer::{Refusal, Verdict},
        backoff::Backoff,
    },
    login::{self, LoginError, browser::Browser, device::by_device, flight::Flight},
    token::Token,
};

const LOGIN_PATH: &str = "/.pomerium/api/v1/login?pomerium_redirect_uri=";
const ROUTES_PATH: &str = "/.pomerium/api/v1/routes";

/// A route as the gateway lists it.
#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub(crate) struct Route {
    /// Its id.
    #[serde(default)]
    pub(crate) id: String,
    /// What people call it.
    #[serde(default)]
    pub(crate) name: String,
    /// `http`, `tcp`, `udp` or `mcp`.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    /// The URL that leads to it.
    #[serde(default)]
    pub(crate) from: String,
    /// What it is for.
    #[serde(default)]
    pub(crate) description: String,
    /// The command that connects to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) connect_command: String,
}

#[derive(Deserialize)]
struct RouteList {
    routes: Vec<Route>,
}

/// Who asks.
#[derive(Debug)]
pub(crate) enum Caller {
    /// A person with a browser.
    Person(Browser),
    /// A person whose browser is on another machine.
    Device,
    /// A program with a token of its own; it never signs in.
    ServiceAccount(Token),
}

/// What the gateway said: `None` when it agreed.
trait Answer {
    fn refusal(&self) -> Option<Refusal>;
}

impl Answer for Response<Bytes> {
    fn refusal(&self) -> Option<Refusal> {
        Refusal::of(self)
    }
}

impl Answer for Connected {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Open { .. } => None,
            Self::Refused(response) => Refusal::of(response),
        }
    }
}

/// One gateway, asked by one caller.
#[derive(Debug)]
pub(crate) struct Access {
    link: Link,
    cache: Option<Cache>,
    caller: Caller,
    flight: Flight,
}

impl Access {
    /// Nothing is dialled or read yet.
    pub(crate) fn new(link: Link, cache: Option<Cache>, caller: Caller) -> Self {
        Self { link, cache, caller, flight: Flight::default() }
    }

    /// The link under it.
    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// Where it leads.
    pub(crate) const fn gateway(&self) -> &Gateway {
        self.link.gateway()
    }

    /// Opens a stream to an app.
    pub(crate) async fn connect(&self, to: &Destination) -> Result<Leg, Failure> {
        let what = format!("connect to {to}");
        match self.ask(&what, |headers| self.link.connect(to, headers)).await? {
            (Connected::Open { leg, .. }, _) => Ok(leg),
            (Connected::Refused(_), _) => Err(Failure::BadAnswer { what: "a connection" }),
        }
    }

    /// The same, but waits for a gateway that is gone for a while, up to `patience`.
    pub(crate) async fn connect_patiently(
        &self,
        to: &Destination,
        patience: Duration,
    ) -> Result<Leg, Failure> {
        let mut backoff = Backoff::default();
        let mut left = patience;
        loop {
            match self.connect(to).await {
                Err(Failure::Link(error)) if error.may_pass() => {
                    let pause = backoff.after_failure(random());
                    let Some(rest) = left.checked_sub(pause) else {
                        return Err(Failure::Link(error));
                    };
                    left = rest;
                    sleep(pause).await;
                }
                ended => return ended,
            }
        }
    }

    /// The routes that the gateway lists for this caller.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, Failure> {
        let (response, _) =
            self.ask("list the routes", |headers| self.link.get(ROUTES_PATH, headers)).await?;
        let list: RouteList = serde_json::from_slice(response.body())
            .map_err(|_| Failure::BadAnswer { what: "the list of routes" })?;
        Ok(list.routes)
    }

    /// A token that the gateway takes: the one at hand, or that of a sign-in made now.
    pub(crate) async fn signed_in(&self) -> Result<Token, Failure> {
        let (_, token) = self.ask("sign in", |headers| self.link.get(ROUTES_PATH, headers)).await?;
        match token {
            Some(token) => Ok(token),
            // The gateway answered without any token: it lists routes to strangers. Sign in all the same.
            None => self.renew(None, "").await,
        }
    }

    /// Asks, signs in if the token is refused, and asks once more.
    async fn ask<A: Answer, F: Future<Output = Result<A, LinkError>>>(
        &self,
        what: &str,
        call: impl Fn(HeaderMap) -> F,
    ) -> Result<(A, Option<Token>), Failure> {
        let mut token = self.token_at_hand();
        let mut signed_in = false;
        loop {
            let mut headers = HeaderMap::new();
            if let Some(token) = &token {
                headers.insert(AUTHORIZATION, token.authorization());
            }
            let answer = call(headers).await?;
            let Some(refusal) = answer.refusal() else {
                return Ok((answer, token));
            };
            let Verdict::SignIn { token_is_dead } = refusal.verdict else {
                return Err(Failure::Refused { what: format!("cannot {what}"), refusal: Box::new(refusal) });
            };
            if signed_in {
                return Err(self.login_failure(Arc::new(LoginError::StillRefused)));
            }
            if let (true, Some(token), Some(cache)) = (token_is_dead, &token, &self.cache)
                && let Err(error) = cache.forget(self.gateway(), token)
            {
                tracing::warn!(%error, "a dead token stays in the cache");
            }
            token = Some(self.renew(token.as_ref(), &refusal.demand).await?);
            signed_in = true;
        }
    }

    fn token_at_hand(&self) -> Option<Token> {
        if let Caller::ServiceAccount(token) = &self.caller {
            return Some(token.clone());
        }
        match self.cache.as_ref()?.token(self.gateway()) {
            Ok(token) => token.or_else(|| self.flight.brought()),
            Err(error) => {
                tracing::warn!(error = %crate::exit::chain(&error), "the token cache cannot be read");
                self.flight.brought()
            }
        }
    }

    async fn renew(&self, stale: Option<&Token>, demand: &str) -> Result<Token, Failure> {
        if matches!(self.caller, Caller::ServiceAccount(_)) {
            return Err(self.login_failure(Arc::new(LoginError::NotInteractive)));
        }
        let sign_in = || async {
            match &self.caller {
                Caller::Person(browser) => {
                    login::by_browser(browser, |redirect_uri| self.sign_in_page(redirect_uri, demand)).await
                }
                Caller::Device => {
                    by_device(|path, form| async move { Ok(self.link.post_form(path, form).await?) }).await
                }
                Caller::ServiceAccount(_) => Err(LoginError::NotInteractive),
            }
        };
        self.flight
            .renew(self.cache.as_ref(), self.gateway(), stale, sign_in)
            .await
            .map_err(|source| self.login_failure(source))
    }

    async fn sign_in_page(&self, redirect_uri: String, demand: &str) -> Result<String, Failure> {
        let encoded: String = url::form_urlencoded::byte_serialize(redirect_uri.as_bytes()).collect();
        let demand = if demand.is_empty() { String::new() } else { format!("&{demand}") };
        let response = self.link.get(&format!("{LOGIN_PATH}{encoded}{demand}"), HeaderMap::new()).await?;
        if let Some(refusal) = Refusal::of(&response) {
            let what = "cannot ask where to sign in".to_owned();
            return Err(Failure::Refused { what, refusal: Box::new(refusal) });
        }
        String::from_utf8(response.into_body().into())
            .map_err(|_| Failure::BadAnswer { what: "the request for a sign-in page" })
    }

    fn login_failure(&self, source: Arc<LoginError>) -> Failure {
        // A sign-in that failed because the gateway is away is told as just that.
        Failure::Login { gateway: self.gateway().clone(), source }
    }
}

/// A number for the jitter; without randomness all pauses are simply the shortest.
pub(crate) fn random() -> u16 {
    let mut bytes = [0_u8; 2];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u16::from_be_bytes(bytes),
        Err(_) => 0,
    }
}
