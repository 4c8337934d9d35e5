//! Asks a gateway as this person: sends the token, and when it is refused signs in once and asks again.
//!
//! Local connections that wait for an answer are held meanwhile; they never see the sign-in.

pub(crate) mod errand;
mod news;
mod peers;
mod resume;
mod route;
mod sign_out;

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use pomerium_shared::{
    clock::Now, destination::Destination, posture::PostureReport, relay::Leg, resume::Budget,
    tunnel::Connected, udp::Carriage,
};
use tokio::{
    sync::{Mutex, watch},
    time::sleep,
};
use tokio_util::task::TaskTracker;

use self::{
    errand::{Errand, Next},
    route::RouteList,
};
pub(crate) use self::{news::News, route::Route};
use crate::{
    cache::Cache,
    device::{key::DeviceKey, posture},
    ending::{self, Ending, Watch},
    failure::Failure,
    gateway::Gateway,
    link::{Ground, Link, LinkError, answer::Refusal, backoff::Patience},
    login::{
        self, LoginError, Page, Wish,
        browser::Browser,
        callback::Expects,
        device::by_device,
        flight::Flight,
        proof::TOKEN_PATH,
        turns::{Asked, Renewed},
    },
    token::Token,
};

const LOGIN_PATH: &str = "/.pomerium/api/v1/login?pomerium_redirect_uri=";
const POSTURE_PATH: &str = "/.pomerium/api/v1/posture";
/// By this the gateway says what the browser will bring.
const HAND_OVER_FIELD: &str = "pomerium-hand-over";
const ROUTES_PATH: &str = "/.pomerium/api/v1/routes";

/// Octets that all streams together keep until the gateway has them.
const KEPT_LEN_MAX: usize = 64 * 1024 * 1024;

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

impl<A: Answer> Answer for (A, Ground) {
    fn refusal(&self) -> Option<Refusal> {
        self.0.refusal()
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
    flight: Arc<Flight>,
    reports: Mutex<Reports>,
    /// For what the streams keep until the gateway has it.
    kept: Budget,
    /// The page that waits for the person to sign in.
    page: watch::Sender<Option<String>>,
    /// What the gateway has told unasked.
    news: watch::Sender<News>,
    /// For sign-ins, which outlive those who asked for them.
    me: Weak<Self>,
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
    pub(crate) fn new(
        link: Link,
        cache: Option<Cache>,
        caller: Caller,
        key: Option<DeviceKey>,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        let cache = cache.map(|cache| if key.is_some() { cache.for_device() } else { cache });
        let has_person = !matches!(caller, Caller::ServiceAccount(_));
        Arc::new_cyclic(|me| Self {
            link,
            cache,
            caller,
            key,
            flight: Flight::new(has_person, tracker),
            reports: Mutex::default(),
            kept: Budget::new(KEPT_LEN_MAX),
            page: watch::Sender::default(),
            news: watch::Sender::default(),
            me: Weak::clone(me),
        })
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

    /// Opens a stream to an app, which outlives the connection that it begins on where the gateway can do that.
    pub(crate) async fn connect(self: &Arc<Self>, to: &Destination) -> Result<Leg, Failure> {
        let what = format!("connect to {to}");
        let call = |headers| self.link.connect(to, resume::asking(headers));
        match self.ask(Asked::ByStream, &what, call).await? {
            ((Connected::Open { response, leg }, ground), _) => {
                Ok(resume::opened(self, to, &response, leg, ground))
            }
            ((Connected::Refused(_), _), _) => Err(Failure::BadAnswer { what: "a connection" }),
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
        self: &Arc<Self>,
        to: &Destination,
        patience: Duration,
    ) -> Result<Leg, Failure> {
        let mut patience = Patience::of(patience);
        loop {
            let began = Now::read().monotonic;
            let error = match self.connect(to).await {
                Err(Failure::Link(error)) if error.may_pass() => error,
                ended => return ended,
            };
            let took = Now::read().monotonic.saturating_duration_since(began);
            let Some(pause) = patience.after_failure(took, random()) else {
                return Err(Failure::Link(error));
            };
            sleep(pause).await;
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
            None => Ok(self.renew(Asked::ByPerson, None, "").await?.token),
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
            Ok(self.renew(Asked::ByPerson, Some(&token), "").await?.token)
        } else {
            Ok(token)
        }
    }

    /// Keeps a token for the commands to come, as a sign-in does by itself where it can; the error says why it could not.
    pub(crate) fn keep(&self, token: &Token) -> Result<(), Failure> {
        if !self.can_sign_in() {
            return Ok(());
        }
        let cache = self.cache.as_ref().ok_or(Failure::NoCache)?;
        let is_kept = cache.token(self.gateway())?.as_ref() == Some(token);
        if is_kept { Ok(()) } else { Ok(cache.keep(self.gateway(), token)?) }
    }

    /// Asks, signs in if the token is refused, and asks once more.
    async fn ask<A: Answer, F: Future<Output = Result<A, LinkError>>>(
        &self,
        asked: Asked,
        what: &str,
        call: impl Fn(HeaderMap) -> F,
    ) -> Result<(A, Option<Token>), Failure> {
        let mut token = self.token_at_hand();
        let mut errand = Errand::default();
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
            let token_is_dead = match errand.refused(refusal.verdict) {
                Next::GiveUp => {
                    let what = format!("cannot {what}");
                    return Err(Failure::Refused { what, refusal: Box::new(refusal) });
                }
                Next::StillRefused => {
                    self.flight.disappointed(&refusal.demand);
                    return Err(self.login_failure(Arc::new(LoginError::StillRefused)));
                }
                Next::SignIn { token_is_dead } => token_is_dead,
            };
            if let (true, Some(token), Some(cache)) = (token_is_dead, &token, &self.cache)
                && let Err(error) = cache.forget(self.gateway(), token)
            {
                tracing::warn!(%error, "a dead token stays in the cache");
            }
            let renewed = self.renew(asked, token.as_ref(), &refusal.demand).await?;
            errand.renewed(&renewed);
            token = Some(renewed.token);
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

    async fn renew(&self, asked: Asked, stale: Option<&Token>, demand: &str) -> Result<Renewed, Failure> {
        let me = Weak::clone(&self.me);
        let wanted = demand.to_owned();
        let sign_in = || async move {
            let Some(me) = me.upgrade() else { return Err(LoginError::NotInteractive) };
            let token = me.sign_in(&wanted).await;
            me.page.send_replace(None);
            token
        };
        let renewed = self
            .flight
            .renew(self.cache.as_ref(), self.gateway(), stale, demand, asked, sign_in)
            .await
            .map_err(|source| self.login_failure(source))?;
        if let Some(key) = &self.key
            && renewed.token.bound_to().as_deref() != Some(key.thumbprint())
        {
            tracing::warn!(
                "the session is not bound to this device: something between here and the gateway ends TLS, or the gateway is older"
            );
        }
        Ok(renewed)
    }

    async fn sign_in(&self, demand: &str) -> Result<Token, LoginError> {
        match &self.caller {
            Caller::Person(browser) => {
                let trade = |form| async { Ok(self.link.post_form(TOKEN_PATH, form).await?) };
                login::by_browser(browser, |wish| self.sign_in_page(wish, demand), trade).await
            }
            Caller::Device => {
                by_device(|path, form| async move { Ok(self.link.post_form(path, form).await?) }).await
            }
            Caller::ServiceAccount(_) => Err(LoginError::NotInteractive),
        }
    }

    async fn sign_in_page(&self, wish: Wish, demand: &str) -> Result<Page, Failure> {
        let encoded: String = url::form_urlencoded::byte_serialize(wish.redirect_uri.as_bytes()).collect();
        // The characters of base64url stand in a query as they are.
        let mut path = format!("{LOGIN_PATH}{encoded}&pomerium_code_challenge={}", wish.challenge);
        if !demand.is_empty() {
            path.push_str(&format!("&{demand}"));
        }
        if let Some(key) = &self.key {
            path.push_str(&format!("&pomerium_device_key={}", key.thumbprint()));
        }
        let response = self.link.get(&path, HeaderMap::new()).await?;
        if let Some(refusal) = Refusal::of(&response) {
            let what = "cannot ask where to sign in".to_owned();
            return Err(Failure::Refused { what, refusal: Box::new(refusal) });
        }
        let knows_codes = response.headers().get(HAND_OVER_FIELD).is_some_and(|how| how == "code");
        let expects = if knows_codes { Expects::Code } else { Expects::CodeOrToken };
        let address = String::from_utf8(response.into_body().into())
            .map_err(|_| Failure::BadAnswer { what: "the request for a sign-in page" })?;
        self.page.send_replace(Some(address.trim().to_owned()));
        Ok(Page { address, expects })
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

#[cfg(test)]
pub(crate) mod tests;
