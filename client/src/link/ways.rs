//! Which way leads to the gateway now: the one QUIC connection, or TLS over TCP where UDP does not get through.
//!
//! QUIC has a head start in the race; where TCP wins it, QUIC is tried on in the background, and takes over once it gets
//! through. A connection that takes no new streams is kept until its last one has ended. What stands, and who dials when, is
//! decided in [`line`](super::line).

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pomerium_shared::{clock::Now, tunnel::TunnelClient};
use tokio::{
    sync::{Notify, OnceCell, watch},
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    CarriedBy, LinkError,
    dial::{self, Dialled},
    http1::Http1,
    line::{Carrier, Carries, Line, Standing, Wanted, WayBack},
    path::Sources,
    portal,
};
use crate::{access::random, gateway::Gateway};

/// QUIC's head start over TCP: a round trip and a lost packet on most ways.
const TCP_AFTER: Duration = Duration::from_millis(500);
/// Between two looks whether this machine has moved, while TCP serves: elsewhere UDP may get through, and TCP does not follow.
const MOVED_INTERVAL: Duration = Duration::from_secs(2);
/// How long closing may take until the gateway has heard of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What one use of the link goes over.
pub(super) enum Way {
    /// The connection, and whether the gateway's silence puts it in doubt.
    Http3(TunnelClient, watch::Receiver<bool>),
    /// A TCP connection of its own.
    Http1,
}

/// TCP's part of the line: the guarded task looks for the way back to QUIC.
type OverTcp = DropGuard;

impl Carries for Box<Dialled> {
    fn is_open(&self) -> bool {
        Dialled::is_open(self)
    }

    fn is_doubtful(&self) -> bool {
        Dialled::is_doubtful(self)
    }
}

type Dialling = Pin<Box<dyn Future<Output = Result<Box<Dialled>, LinkError>> + Send>>;

/// Who won.
enum Raced {
    Http3(Box<Dialled>),
    /// TCP; and QUIC, if it may still get through.
    Http1(Option<Dialling>),
}

/// All ways to one gateway.
pub(super) struct Ways {
    inner: Arc<Inner>,
    /// One dials for all who wait.
    dialling: tokio::sync::Mutex<Option<LinkError>>,
    /// How many attempts have failed.
    failures: AtomicU64,
    stop: CancellationToken,
    _stop: DropGuard,
}

struct Inner {
    gateway: Gateway,
    quic: quinn::ClientConfig,
    http1: Http1,
    tracker: TaskTracker,
    line: Mutex<Line<Box<Dialled>, OverTcp>>,
    /// Wakes those who wait to dial.
    found: Notify,
    /// Where the gateway is, to see whence this machine gets there: all its addresses, for not every network has a way to each.
    at: OnceCell<Vec<SocketAddr>>,
}

impl Ways {
    pub(super) fn new(
        gateway: Gateway,
        quic: quinn::ClientConfig,
        http1: Http1,
        tracker: TaskTracker,
    ) -> Self {
        let (line, found, at) = (Mutex::default(), Notify::new(), OnceCell::new());
        let inner = Inner { gateway, quic, http1, tracker, line, found, at };
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        Self {
            inner: Arc::new(inner),
            dialling: tokio::sync::Mutex::default(),
            failures: AtomicU64::default(),
            stop,
            _stop: guard,
        }
    }

    pub(super) fn http1(&self) -> &Http1 {
        &self.inner.http1
    }

    /// The way to use now, found if there is none.
    pub(super) async fn now(&self, wanted: Wanted) -> Result<Way, LinkError> {
        if !self.inner.gateway.tls() {
            return Ok(Way::Http1);
        }
        let failures = self.failures.load(Ordering::Acquire);
        if let Some(way) = self.inner.standing() {
            return Ok(way);
        }
        let pause = self.inner.lock().pause_of(wanted, Now::read());
        tokio::select! {
            () = sleep(pause) => {}
            // Somebody who was to wait for less has found one.
            () = self.inner.found.notified() => {}
        }
        let mut last = self.dialling.lock().await;
        // An attempt that failed while this one waited speaks for both.
        if self.failures.load(Ordering::Acquire) != failures
            && let Some(error) = last.clone()
        {
            return Err(error);
        }
        loop {
            if let Some(way) = self.inner.standing() {
                return Ok(way);
            }
            let found = match self.inner.doubt() {
                None => self.find().await,
                Some(mut doubt) => tokio::select! {
                    // It came back by itself.
                    Ok(_) = doubt.wait_for(|is_doubtful| !is_doubtful) => continue,
                    found = self.find() => found,
                },
            };
            if let Err(error) = &found {
                *last = Some(error.clone());
                self.failures.fetch_add(1, Ordering::Release);
            }
            return found;
        }
    }

    async fn find(&self) -> Result<Way, LinkError> {
        self.inner.lock().begun(random(), Now::read());
        match Box::pin(self.race()).await {
            Ok(raced) => Ok(self.take(raced)),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// Takes note of an attempt that failed, and looks whether a captive portal is why.
    async fn failed(&self, error: LinkError) -> LinkError {
        let page = if error.may_be_portal() { portal::look(&self.inner.gateway).await } else { None };
        match page {
            None => {
                self.inner.lock().failed(Now::read());
                error
            }
            Some(page) => {
                self.inner.lock().held_by_portal(page.clone(), Now::read());
                LinkError::Portal { page, source: Arc::new(error) }
            }
        }
    }

    /// TCP serves no more either: the next one races anew.
    pub(super) async fn http1_failed(&self, error: LinkError) -> LinkError {
        self.inner.lock().tcp_failed(random(), Now::read());
        self.failed(error).await
    }

    /// The page of the captive portal that the last attempt met.
    pub(super) fn portal(&self) -> Option<String> {
        self.inner.lock().portal().map(str::to_owned)
    }

    /// Waits until this machine has another address than now. Cancel-safe.
    pub(super) async fn moved(&self) {
        let mut here = self.inner.sources().await;
        loop {
            sleep(MOVED_INTERVAL).await;
            let now = self.inner.sources().await;
            if now.have_changed_from(&here) {
                return;
            }
            here = now.or(&here);
        }
    }

    /// Whether anything was found, and nobody closed it since. Without TLS there is nothing to find.
    pub(super) fn is_used(&self) -> bool {
        !self.inner.gateway.tls() || self.inner.lock().is_used()
    }

    pub(super) fn carried_by(&self) -> CarriedBy {
        match self.inner.lock().standing() {
            Standing::Quic(dialled) | Standing::InDoubt(dialled) => {
                CarriedBy::Quic(Box::new(dialled.tunnel().quic().stats()))
            }
            Standing::Tcp => CarriedBy::Tcp,
            Standing::Gone => CarriedBy::Nothing,
        }
    }

    /// Says goodbye to the gateway, so that it need not wait for a time-out.
    pub(super) async fn close(&self) {
        let carrier = self.inner.lock().close();
        if let Carrier::Quic(dialled) = carrier {
            let _late_is_harmless = timeout(CLOSE_TIMEOUT, dialled.close()).await;
        }
    }

    /// The first way that gets through. The error is TCP's where both fail: it is the plainer one.
    async fn race(&self) -> Result<Raced, LinkError> {
        let mut quic = self.inner.dial();
        let early = tokio::select! {
            dialled = &mut quic => Some(dialled),
            () = sleep(TCP_AFTER) => None,
        };
        match early {
            Some(Ok(dialled)) => return Ok(Raced::Http3(dialled)),
            Some(Err(error)) if !error.may_be_udp() => return Err(error),
            Some(Err(_)) => {
                self.http1().probe().await?;
                return Ok(Raced::Http1(None));
            }
            None => {}
        }
        let mut probe = std::pin::pin!(self.http1().probe());
        tokio::select! {
            dialled = &mut quic => match dialled {
                Ok(dialled) => Ok(Raced::Http3(dialled)),
                Err(error) if !error.may_be_udp() => Err(error),
                Err(_) => probe.await.map(|()| Raced::Http1(None)),
            },
            probed = &mut probe => match probed {
                Ok(()) => Ok(Raced::Http1(Some(quic))),
                Err(of_tcp) => match quic.await {
                    Ok(dialled) => Ok(Raced::Http3(dialled)),
                    Err(error) => Err(if error.may_be_udp() { of_tcp } else { error }),
                },
            },
        }
    }

    fn take(&self, raced: Raced) -> Way {
        match raced {
            Raced::Http3(dialled) => {
                let way = dialled.way();
                self.inner.reached(Carrier::Quic(dialled));
                way
            }
            Raced::Http1(still_dialling) => {
                tracing::info!("UDP does not get through: using TLS over TCP");
                let stop = self.stop.child_token();
                let (inner, stopped) = (Arc::clone(&self.inner), stop.clone());
                self.inner.tracker.spawn(async move {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        dialled = inner.find_way_back(still_dialling) => inner.come_back(dialled, &stopped),
                    }
                });
                self.inner.reached(Carrier::Tcp(stop.drop_guard()));
                Way::Http1
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Line<Box<Dialled>, OverTcp>> {
        // A panic of another holder leaves some carrier, which is as good as any.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dial(&self) -> Dialling {
        let dialled = dial::quic(self.gateway.clone(), self.quic.clone(), self.tracker.clone());
        Box::pin(async move { dialled.await.map(Box::new) })
    }

    /// The addresses that this machine has on the way to the gateway now; none before its name could be looked up.
    async fn sources(&self) -> Sources {
        let look_up = || dial::resolve(&self.gateway);
        let at = self.at.get_or_try_init(look_up).await;
        at.map(|at| Sources::towards(at)).unwrap_or_default()
    }

    /// The way that new streams may take without another thought.
    fn standing(&self) -> Option<Way> {
        let mut line = self.lock();
        let ended = line.ended(random(), Now::read());
        let way = match line.standing() {
            Standing::Quic(dialled) => Some(dialled.way()),
            Standing::Tcp => Some(Way::Http1),
            Standing::InDoubt(_) | Standing::Gone => None,
        };
        drop(line);
        if let Some(ended) = ended {
            self.leave(ended);
        }
        way
    }

    /// The doubt of a connection that may yet come back.
    fn doubt(&self) -> Option<watch::Receiver<bool>> {
        match self.lock().standing() {
            Standing::Quic(dialled) | Standing::InDoubt(dialled) => Some(dialled.doubt()),
            Standing::Tcp | Standing::Gone => None,
        }
    }

    fn reached(&self, new: Carrier<Box<Dialled>, OverTcp>) {
        let old = self.lock().reached(new, Now::read());
        self.found.notify_waiters();
        if let Carrier::Quic(dialled) = old {
            self.leave(dialled);
        }
    }

    /// Lets the streams finish that a connection still has.
    fn leave(&self, dialled: Box<Dialled>) {
        self.tracker.spawn(async move {
            dialled.tunnel().finished().await;
            let _late_is_harmless = timeout(CLOSE_TIMEOUT, dialled.close()).await;
        });
    }

    /// Tries QUIC now and then, and wherever this machine comes to, until it gets through.
    async fn find_way_back(&self, mut attempt: Option<Dialling>) -> Box<Dialled> {
        loop {
            if let Some(attempt) = attempt.take()
                && let Ok(dialled) = attempt.await
            {
                return dialled;
            }
            let mut way_back = WayBack::after(self.sources().await, Now::read());
            while !way_back.is_due(&self.sources().await, Now::read()) {
                sleep(MOVED_INTERVAL).await;
            }
            attempt = Some(self.dial());
        }
    }

    fn come_back(&self, dialled: Box<Dialled>, stopped: &CancellationToken) {
        let mut line = self.lock();
        // Whoever took the carrier away has cancelled this under the same lock.
        if !stopped.is_cancelled() {
            tracing::info!(address = %dialled.address(), "UDP gets through again: back to QUIC");
            let _over_tcp = line.reached(Carrier::Quic(dialled), Now::read());
        }
    }
}
