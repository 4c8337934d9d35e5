//! Asks a gateway as this person: sends the token, and when it is refused signs in once and asks again.
//!
//! Local connections that wait for an answer are held meanwhile; they never see the sign-in.

mod peers;
mod route;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use pomerium_shared::{
    clock::Now, destination::Destination, posture::PostureReport, relay::Leg, tunnel::Connected,
    udp::Carriage,
};
use tokio::{
    sync::{Mutex, watch},
    time::sleep,
};

pub(crate) use self::route::Route;
use self::route::RouteList;
use crate::{
    cache::Cache,
    device::{key::DeviceKey, posture},
    ending::{self, Ending, Watch},
    failure::Failure,
    gateway::Gateway,
    link::{
        Link, LinkError,
        answer::{Refusal, Verdict},
        backoff::Backoff,
    },
    login::{
        self, LoginError,
        browser::Browser,
        device::by_device,
        flight::{Asked, Flight},
    },
    token::Token,
};

const LOGIN_PATH: &str = "/.pomerium/api/v1/login?pomerium_redirect_uri=";
const POSTURE_PATH: &str = "/.pomerium/api/v1/posture";
const SIGN_OUT_PATH: &str = "/.pomerium/sign_out";
const ROUTES_PATH: &str = "/.pomerium/api/v1/routes";

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

impl<S> Answer for Connected<S> {
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
    /// What sessions are bound to when they are begun here.
    key: Option<DeviceKey>,
    flight: Flight,
    reports: Mutex<Reports>,
    /// The page that waits for the person to sign in.
    page: watch::Sender<Option<String>>,
}

/// What the gateway has heard of this machine from this process.
#[derive(Debug, Default)]
struct Reports {
    /// The token with which the first report was tried.
    tried: Option<Token>,
    /// What it took last, and when.
    heard: Option<(PostureReport, Instant)>,
}

impl Access {
    /// Nothing is dialled or read yet.
    pub(crate) fn new(link: Link, cache: Option<Cache>, caller: Caller, key: Option<DeviceKey>) -> Self {
        let cache = cache.map(|cache| if key.is_some() { cache.for_device() } else { cache });
        Self {
            link,
            cache,
            caller,
            key,
            flight: Flight::default(),
            reports: Mutex::default(),
            page: watch::Sender::default(),
        }
    }

    /// The link under it.
    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// The page that waits for the person to sign in, as it comes and goes.
    pub(crate) fn page(&self) -> watch::Receiver<Option<String>> {
        self.page.subscribe()
    }

    /// Where it leads.
    pub(crate) const fn gateway(&self) -> &Gateway {
        self.link.gateway()
    }

    /// Opens a stream to an app.
    pub(crate) async fn connect(&self, to: &Destination) -> Result<Leg, Failure> {
        let what = format!("connect to {to}");
        match self.ask(Asked::ByStream, &what, |headers| self.link.connect(to, headers)).await? {
            (Connected::Open { leg, .. }, _) => Ok(leg),
            (Connected::Refused(_), _) => Err(Failure::BadAnswer { what: "a connection" }),
        }
    }

    /// Opens a flow of datagrams to an app.
    pub(crate) async fn connect_udp(&self, to: &Destination) -> Result<Carriage, Failure> {
        let what = format!("connect to {to}");
        match self.ask(Asked::ByStream, &what, |headers| self.link.connect_udp(to, headers)).await? {
            (Connected::Open { leg, .. }, _) => Ok(leg),
            (Connected::Refused(_), _) => Err(Failure::BadAnswer { what: "a flow of datagrams" }),
        }
    }

    /// [`Self::connect`], but waits for a gateway that is gone for a while, up to `patience`.
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
        let (response, _) = self
            .ask(Asked::ByPerson, "list the routes", |headers| self.link.get(ROUTES_PATH, headers))
            .await?;
        let list: RouteList = serde_json::from_slice(response.body())
            .map_err(|_| Failure::BadAnswer { what: "the list of routes" })?;
        Ok(list.routes)
    }

    /// A token that the gateway takes: the one at hand, or that of a sign-in made now.
    pub(crate) async fn signed_in(&self) -> Result<Token, Failure> {
        let (_, token) =
            self.ask(Asked::ByPerson, "sign in", |headers| self.link.get(ROUTES_PATH, headers)).await?;
        match token {
            Some(token) => Ok(token),
            // The gateway answered without any token: it lists routes to strangers. Sign in all the same.
            None => self.renew(Asked::ByPerson, None, "").await,
        }
    }

    /// The same, but a session that is about to end is renewed now.
    pub(crate) async fn signed_in_for_long(&self) -> Result<Token, Failure> {
        let held = self.token_at_hand();
        let token = self.signed_in().await?;
        // What was begun just now may be short, but is no longer by another sign-in.
        let is_old = held.as_ref() == Some(&token);
        let is_ending = Ending::of(&token, Now::read().wall).is_some();
        if is_old && is_ending && self.can_sign_in() {
            self.renew(Asked::ByPerson, Some(&token), "").await
        } else {
            Ok(token)
        }
    }

    /// Ends the session at the gateway, if there is one and it is this machine's alone; says whether it did. The token is
    /// not touched.
    pub(crate) async fn end_session(&self) -> Result<bool, LinkError> {
        let Some(token) = self.token_at_hand().filter(|token| token.bound_to().is_some()) else {
            return Ok(false);
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.authorization());
        Ok(self.link.get(SIGN_OUT_PATH, headers).await?.status().is_success())
    }

    /// Forgets every token of the gateway; says whether there was one.
    pub(crate) fn forget(&self) -> Result<bool, Failure> {
        self.flight.forget();
        let Some(cache) = &self.cache else { return Ok(false) };
        let had_any = cache.clone().for_programs().forget_any(self.gateway())?
            | cache.clone().for_device().forget_any(self.gateway())?;
        Ok(had_any)
    }

    /// Asks, signs in if the token is refused, and asks once more.
    async fn ask<A: Answer, F: Future<Output = Result<A, LinkError>>>(
        &self,
        asked: Asked,
        what: &str,
        call: impl Fn(HeaderMap) -> F,
    ) -> Result<(A, Option<Token>), Failure> {
        let mut token = self.token_at_hand();
        let mut signed_in = false;
        loop {
            let mut headers = HeaderMap::new();
            if let Some(token) = &token {
                self.report_first(token).await;
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
            token = Some(self.renew(asked, token.as_ref(), &refusal.demand).await?);
            signed_in = true;
        }
    }

    /// Looks at this machine again and again, and reports what has changed; never returns.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn keep_reporting(&self) {
        loop {
            sleep(posture::LOOK_INTERVAL).await;
            // Nothing is dialled for it: a link that is not in use has nothing to report for.
            if let Some(token) = self.token_at_hand().filter(|_| self.link.is_used()) {
                self.report(&token, &mut *self.reports.lock().await).await;
            }
        }
    }

    /// Looks again and again whether the session is about to end, and tells each end once; never returns.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn keep_warning(&self, tell: impl Fn(&str)) {
        let mut watch = Watch::default();
        loop {
            // What another process has renewed is in the cache.
            let token = self.token_at_hand().filter(|_| self.can_sign_in());
            if let Some(ending) = watch.look(token.as_ref(), Now::read().wall) {
                tell(&ending.to_string());
            }
            sleep(ending::LOOK_EVERY).await;
        }
    }

    /// Whether there is a person who can sign in anew.
    const fn can_sign_in(&self) -> bool {
        !matches!(self.caller, Caller::ServiceAccount(_))
    }

    /// Reports before anything is asked with this token: policy may want to know. Others wait for that meanwhile.
    async fn report_first(&self, token: &Token) {
        let mut reports = self.reports.lock().await;
        if reports.tried.as_ref() != Some(token) {
            reports.tried = Some(token.clone());
            self.report(token, &mut reports).await;
        }
    }

    /// Reports this machine's state, if its session is bound to it and the gateway should hear. A report that fails
    /// changes nothing here: the gateway says what it means for the apps.
    async fn report(&self, token: &Token, reports: &mut Reports) {
        let is_bound =
            self.key.as_ref().is_some_and(|key| token.bound_to().as_deref() == Some(key.thumbprint()));
        if !is_bound {
            return;
        }
        let report = posture::collect().await;
        let now = Now::read().monotonic;
        if !posture::is_due(reports.heard.as_ref(), &report, now) {
            return;
        }
        let Ok(body) = serde_json::to_vec(&report) else { return };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.authorization());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.link.post(POSTURE_PATH, headers, body.into()).await {
            Ok(response) if response.status().is_success() => reports.heard = Some((report, now)),
            Ok(response) => {
                tracing::debug!(status = %response.status(), "the gateway took no report of this device")
            }
            Err(error) => tracing::debug!(error = %crate::exit::chain(&error), "no report of this device"),
        }
    }

    /// The token that would be sent now.
    pub(crate) fn token_at_hand(&self) -> Option<Token> {
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

    async fn renew(&self, asked: Asked, stale: Option<&Token>, demand: &str) -> Result<Token, Failure> {
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
        let token = self
            .flight
            .renew(self.cache.as_ref(), self.gateway(), stale, asked, sign_in)
            .await
            .map_err(|source| self.login_failure(source));
        self.page.send_replace(None);
        let token = token?;
        if let Some(key) = &self.key
            && token.bound_to().as_deref() != Some(key.thumbprint())
        {
            tracing::warn!(
                "the session is not bound to this device: something between here and the gateway ends TLS, or the gateway is older"
            );
        }
        Ok(token)
    }

    async fn sign_in_page(&self, redirect_uri: String, demand: &str) -> Result<String, Failure> {
        let encoded: String = url::form_urlencoded::byte_serialize(redirect_uri.as_bytes()).collect();
        let mut path = format!("{LOGIN_PATH}{encoded}");
        if !demand.is_empty() {
            path.push_str(&format!("&{demand}"));
        }
        if let Some(key) = &self.key {
            // The characters of base64url stand in a query as they are.
            path.push_str(&format!("&pomerium_device_key={}", key.thumbprint()));
        }
        let response = self.link.get(&path, HeaderMap::new()).await?;
        if let Some(refusal) = Refusal::of(&response) {
            let what = "cannot ask where to sign in".to_owned();
            return Err(Failure::Refused { what, refusal: Box::new(refusal) });
        }
        let page = String::from_utf8(response.into_body().into())
            .map_err(|_| Failure::BadAnswer { what: "the request for a sign-in page" })?;
        self.page.send_replace(Some(page.trim().to_owned()));
        Ok(page)
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
