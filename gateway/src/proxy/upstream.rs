//! The gateway's side towards the apps of one route: pooled connections to each, which one is next, and which are out.

pub(crate) mod balance;
mod check;
mod dial;
mod grpc_check;
mod health;
mod kept;
mod trust;

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body::Body as _;
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};

use self::{
    balance::{Balancer, Draw},
    dial::Dial,
    health::Health,
    kept::Kept,
};
pub(crate) use self::{check::watch_over, health::Outcome, kept::Answer};
use crate::{
    body::Body,
    config::{Balancing, CircuitBreakers, HealthCheck, HttpTarget, Upstream},
};

/// For the connection to an app, name look-up and TLS included: an app that needs longer is down.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of an answer that are read ahead of the client who takes them, and of the longest head that an app may send.
const READ_AHEAD_LEN: usize = 64 * 1024;

/// Idle connections kept per app.
const POOL_IDLE_MAX: usize = 64;

type UpstreamClient = Client<Dial, Body>;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The system has no usable root certificates and the route names none.
    #[error("cannot read the system's root certificates; set tls_custom_ca_file on the route")]
    NoRoots(#[source] io::Error),
    /// A configured certificate or key is not usable.
    #[error("the route's TLS certificate or key is not usable")]
    Certificate(#[source] rustls::Error),
    /// The expected server name is no name.
    #[error("tls_server_name is no host name")]
    ServerName,
    /// The URL of an upstream cannot be dialled.
    #[error("the upstream is no URL that can be dialled")]
    Url(#[source] http::uri::InvalidUri),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The app takes no connection.
    #[error("the app cannot be connected to")]
    Connect(#[source] io::Error),
    /// The connection ended without an answer.
    #[error("the app broke off the connection")]
    Broken(#[source] hyper::Error),
    /// One of these, on a connection of hyper's pool.
    #[error(transparent)]
    Pooled(#[from] legacy::Error),
}

impl CallError {
    /// Whether the app cannot have seen anything of the request.
    pub(crate) fn is_connect(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Broken(_) => false,
            Self::Pooled(error) => error.is_connect(),
        }
    }
}

/// The apps of one route.
pub(crate) struct Pool {
    /// For logs.
    route: String,
    members: Vec<Member>,
    checks: Vec<HealthCheck>,
    balancing: Balancing,
    limits: CircuitBreakers,
    /// Whether there is nothing to choose and nothing to know: one upstream, which is never out.
    is_lone: bool,
    requests: Arc<AtomicUsize>,
    retries: Arc<AtomicUsize>,
    state: Mutex<State>,
}

struct State {
    balancer: Balancer,
    health: Health,
}

struct Member {
    upstream: Upstream,
    dial: Dial,
    client: UpstreamClient,
    /// For requests without a body, to apps that are spoken to in plain HTTP/1.1 and over any number of connections.
    kept: Option<Arc<Kept>>,
    /// HTTP/1.1 alone, for requests that ask for an upgrade.
    upgrades: UpstreamClient,
    load: Arc<AtomicUsize>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.members.iter().map(|member| &member.upstream.name);
        f.debug_struct("Pool")
            .field("route", &self.route)
            .field("members", &names.collect::<Vec<_>>())
            .finish()
    }
}

impl Pool {
    pub(crate) fn new(route: &str, target: &HttpTarget) -> Result<Self, UpstreamError> {
        let upstreams = &target.upstreams;
        let tls = upstreams.members.iter().any(|upstream| upstream.origin.scheme() == "https");
        let tls = tls.then(|| trust::config(&target.tls)).transpose()?;
        let member = |upstream: &Upstream| {
            let dial = Dial::new(upstream, &target.tls, tls.as_ref(), upstreams.limits.max_connections)?;
            let is_kept = upstream.origin.scheme() == "http"
                && !upstream.is_h2c
                && upstreams.limits.max_connections.is_none();
            Ok(Member {
                upstream: upstream.clone(),
                kept: is_kept.then(|| Kept::new(dial.clone())),
                client: client(dial.clone(), upstream.is_h2c, POOL_IDLE_MAX),
                // A kept connection may be closed as the request is on its way, and an upgrade is not sent again.
                upgrades: client(dial.for_upgrades(), false, 0),
                dial,
                load: Arc::default(),
            })
        };
        let members: Result<Vec<Member>, UpstreamError> = upstreams.members.iter().map(member).collect();
        let (members, checks) = (members?, upstreams.health_checks.clone());
        let detection = upstreams.outlier_detection;
        let health = Health::new(members.len(), checks.len(), detection, upstreams.panic_threshold);
        let balancer = Balancer::new(upstreams.balancing, &upstreams.members);
        Ok(Self {
            route: route.to_owned(),
            is_lone: members.len() == 1 && checks.is_empty(),
            members,
            checks,
            balancing: upstreams.balancing,
            limits: upstreams.limits,
            requests: Arc::default(),
            retries: Arc::default(),
            state: Mutex::new(State { balancer, health }),
        })
    }

    /// Takes over what `old` knows of the upstreams that both have: a reload makes no sick app well.
    pub(crate) fn take_over(&self, old: &Self) {
        if self.checks != old.checks {
            return;
        }
        let known = old.state().health.clone();
        let mut state = self.state();
        for (ours, member) in self.members.iter().enumerate() {
            let same = |other: &Member| other.upstream.name == member.upstream.name;
            if let Some(theirs) = old.members.iter().position(same) {
                state.health.take_over(ours, &known, theirs);
            }
        }
    }

    /// What the next choice is made from; `caller` is asked only if the policy keeps callers with an upstream.
    pub(crate) fn draw(&self, caller: impl FnOnce() -> u64) -> Draw {
        let mut draw = Draw { key: 0, random: 0 };
        match self.balancing {
            Balancing::RingHash | Balancing::Maglev => draw.key = caller(),
            Balancing::LeastRequest | Balancing::Random => draw.random = random(),
            Balancing::RoundRobin => {}
        }
        draw
    }

    /// An upstream that is in and was not `tried` yet.
    pub(crate) fn pick(&self, tried: &[usize], draw: Draw, now: Instant) -> Option<usize> {
        if self.is_lone {
            return tried.is_empty().then_some(0);
        }
        let mut state = self.state();
        let State { balancer, health } = &mut *state;
        let is_in = health.usable(now);
        let usable = |place| is_in(place) && !tried.contains(&place);
        let load = |place: usize| self.members[place].load.load(Ordering::Relaxed);
        balancer.pick(usable, load, draw)
    }

    /// Whether a request that fails could go to another upstream.
    pub(crate) fn has_others(&self, tried: &[usize]) -> bool {
        tried.len() < self.members.len()
    }

    /// Counts a request in; `None` when the route has as many under way as it may.
    pub(crate) fn enter(&self) -> Option<Count> {
        Count::enter(&self.requests, self.limits.max_requests)
    }

    /// Counts a retry in; `None` when the route has as many under way as it may.
    pub(crate) fn enter_retry(&self) -> Option<Count> {
        Count::enter(&self.retries, self.limits.max_retries)
    }

    /// Counts a request in at an upstream.
    pub(crate) fn load(&self, place: usize) -> Option<Count> {
        Count::enter(&self.members[place].load, None)
    }

    pub(crate) fn upstream(&self, place: usize) -> &Upstream {
        &self.members[place].upstream
    }

    /// Notes how a request went.
    pub(crate) fn answered(&self, place: usize, outcome: Outcome, now: Instant) {
        if self.is_lone {
            return;
        }
        let ejected = self.state().health.answered(place, outcome, now);
        if let Some(time) = ejected {
            let upstream = &self.members[place].upstream.name;
            tracing::warn!(route = self.route, upstream, seconds = time.as_secs(), "upstream ejected");
        }
    }

    /// Sends a request to an upstream. Boxed: the types inside are too long for the compiler to follow.
    pub(crate) fn send(&self, place: usize, request: Request<Body>, is_upgrade: bool) -> Sending {
        let member = &self.members[place];
        if let Some(kept) = &member.kept
            && !is_upgrade
            && request.body().is_end_stream()
        {
            let (kept, (head, _nothing)) = (kept.clone(), request.into_parts());
            return Box::pin(async move { kept.send(head).await });
        }
        let sending = if is_upgrade { &member.upgrades } else { &member.client }.request(request);
        Box::pin(async move { Ok(sending.await?.map(Answer::of)) })
    }

    /// Ends connections to the apps that nobody needs any more.
    pub(crate) fn tidy(&self, now: Instant) {
        for kept in self.members.iter().filter_map(|member| member.kept.as_ref()) {
            kept.tidy(now);
        }
    }

    /// Whether anything is to be watched.
    pub(crate) fn is_checked(&self) -> bool {
        !self.checks.is_empty()
    }

    /// Held for a few instructions at a time; what it guards is whole even after a panic elsewhere.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way to an app.
pub(crate) type Sending = Pin<Box<dyn Future<Output = Result<Response<Answer>, CallError>> + Send>>;

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    fn enter(counter: &Arc<AtomicUsize>, max: Option<u32>) -> Option<Self> {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        let count = Self(counter.clone());
        max.is_none_or(|max| before < usize::try_from(max).unwrap_or(usize::MAX)).then_some(count)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn client(dial: Dial, is_h2c: bool, idle_max: usize) -> UpstreamClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_max_idle_per_host(idle_max)
        .http1_max_buf_size(READ_AHEAD_LEN)
        .http2_only(is_h2c)
        .build(dial)
}

fn random() -> u64 {
    let mut octets = [0; 8];
    // Without randomness the first upstreams get more, which is no harm.
    _ = aws_lc_rs::rand::fill(&mut octets);
    u64::from_be_bytes(octets)
}
