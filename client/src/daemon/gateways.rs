//! The gateways that the daemon serves: for each one connection, one sign-in, one ledger.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use pomerium_shared::{clock::Now, destination::Destination, relay::Counters};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::ledger::Ledger;
use crate::{
    access::Access,
    failure::Failure,
    forward::Seen,
    gateway::Gateway,
    link::{CarriedBy, Held},
    local_api::wire::{GatewayStatus, Transport},
    reach::Reach,
    token::Token,
};

/// Gateways at a time; each holds a connection.
const GATEWAYS_MAX: usize = 16;
/// How long a gateway may take to answer for `status`.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const PING_PATH: &str = "/ping";

type Make = dyn Fn(Gateway) -> Result<Arc<Access>, Failure> + Send + Sync;

/// All gateways.
pub(crate) struct Gateways {
    make: Box<Make>,
    served: Mutex<HashMap<Gateway, Arc<Served>>>,
    keepers: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateways").field("served", &self.served).finish_non_exhaustive()
    }
}

/// One gateway.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) reach: Arc<Reach>,
    pub(super) ledger: Arc<Ledger>,
}

/// A destination's account, as a forward sees it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) ledger: Arc<Ledger>,
    pub(super) destination: String,
}

impl Account {
    /// The account of a stream that was asked for just now.
    pub(super) fn begun(ledger: Arc<Ledger>, destination: String) -> Self {
        ledger.began(&destination);
        Self { ledger, destination }
    }
}

impl Seen for Account {
    fn began(&self) {
        self.ledger.began(&self.destination);
    }

    fn counters(&self) -> Arc<Counters> {
        self.ledger.counters(&self.destination)
    }

    fn ended(&self, up: u64, down: u64, how: &str) {
        tracing::debug!(destination = %self.destination, up, down, how, "a stream ended");
        self.ledger.ended(&self.destination, how);
    }

    fn refused(&self, to: &Destination, why: &str) {
        tracing::debug!(destination = %to, why, "a stream was refused");
        self.ledger.began(&self.destination);
        self.ledger.ended(&self.destination, why);
    }
}

impl Gateways {
    /// None yet; `make` says how each is asked.
    pub(crate) fn new(
        make: impl Fn(Gateway) -> Result<Arc<Access>, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Box::new(make),
            served: Mutex::default(),
            keepers: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The gateway of this address, which is served from now on.
    pub(super) fn at(&self, text: &str) -> Result<Arc<Served>, Failure> {
        let gateway: Gateway = text.parse()?;
        let mut all = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = all.get(&gateway) {
            return Ok(Arc::clone(served));
        }
        if all.len() >= GATEWAYS_MAX {
            return Err(Failure::TooManyGateways { max: GATEWAYS_MAX });
        }
        let access = (self.make)(gateway.clone())?;
        let reach = Arc::new(Reach::new(Arc::clone(&access), None));
        let served = Arc::new(Served { reach, ledger: Arc::default() });
        let stop = self.stop.clone();
        // A warning that finds it full is the same again.
        let (tell, mut told) = mpsc::channel(1);
        self.keepers.spawn(async move {
            let warn = |text: &str| {
                tracing::warn!(gateway = %access.gateway(), "{text}");
                let _is_told_already = tell.try_send(text.to_owned());
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep_up(&access) => {}
                () = access.keep_reporting() => {}
                () = access.keep_warning(warn) => {}
                () = access.keep_following(warn) => {}
                () = notify(&access, &mut told) => {}
            }
        });
        all.insert(gateway, Arc::clone(&served));
        Ok(served)
    }

    /// How each fares, asked of each now.
    pub(super) async fn status(&self) -> Vec<GatewayStatus> {
        let all: Vec<_> =
            self.served.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut asked = tokio::task::JoinSet::new();
        for served in all {
            asked.spawn(async move { served.status().await });
        }
        let mut all = asked.join_all().await;
        all.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        all
    }

    /// Says goodbye to all.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.keepers.close();
        self.keepers.wait().await;
        let all: Vec<_> = self
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .map(|(_, served)| served)
            .collect();
        for served in all {
            served.reach.close().await;
        }
    }
}

impl Served {
    pub(super) fn access(&self) -> &Access {
        self.reach.own()
    }

    async fn status(&self) -> GatewayStatus {
        let access = self.access();
        let round_trip_ms = if access.link().is_used() { round_trip(access).await } else { None };
        let token = access.token_at_hand();
        let (transport, quic) = match access.link().carried_by() {
            CarriedBy::Nothing => (Transport::None, None),
            CarriedBy::Tcp => (Transport::Tcp, None),
            CarriedBy::Quic(stats) => (Transport::Quic, Some(stats)),
        };
        let end = token.as_ref().and_then(Token::expires).and_then(|end| jiff::Timestamp::try_from(end).ok());
        GatewayStatus {
            gateway: access.gateway().to_string(),
            signed_in: token.as_ref().is_some_and(|token| !token.is_expired(Now::read().wall)),
            person: token.as_ref().and_then(Token::person),
            expires: end.map(|end| format!("{end:.0}")),
            portal: access.link().portal(),
            sign_in_page: access.page().borrow().clone(),
            transport,
            round_trip_ms,
            packets_sent: quic.as_ref().map_or(0, |stats| stats.path.sent_packets),
            packets_lost: quic.as_ref().map_or(0, |stats| stats.path.lost_packets),
            routes: self.ledger.routes(),
        }
    }
}

/// A question and its answer over what carries the streams.
async fn round_trip(access: &Access) -> Option<u64> {
    let began = Now::read().monotonic;
    let answer = timeout(PING_TIMEOUT, access.link().get(PING_PATH, HeaderMap::new())).await;
    let took = Now::read().monotonic.saturating_duration_since(began);
    answer.ok()?.ok()?;
    u64::try_from(took.as_millis()).ok()
}

/// Shows on the desktop what the person is to know; never returns while there may be more.
async fn notify(access: &Access, told: &mut mpsc::Receiver<String>) {
    while let Some(text) = told.recv().await {
        #[cfg(target_os = "linux")]
        crate::notify::notify(&format!("Pomerium: {}", access.gateway().host()), &text).await;
        #[cfg(not(target_os = "linux"))]
        let _only_in_the_log = (access, text);
    }
}

/// Keeps the connection up; never returns. How long to wait in between is the link's matter.
async fn keep_up(access: &Access) {
    loop {
        match access.link().hold().await {
            Ok(Held::Connection(tunnel)) => {
                let why = tunnel.ended().await;
                tracing::info!(gateway = %access.gateway(), error = %why, "the connection has ended: connecting again");
            }
            Ok(Held::EachByItself) => sleep(Duration::from_secs(30)).await,
            Err(error) => {
                tracing::info!(error = %crate::exit::chain(&error), "the gateway is not reached: trying again");
            }
        }
    }
}
