//! Which way leads to the gateway now: the one QUIC connection, or TLS over TCP where UDP does not get through.
//!
//! QUIC has a head start in the race; where TCP wins it, QUIC is tried on in the background, and takes over once it gets
//! through. A connection that takes no new streams is kept until its last one has ended.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pomerium_shared::tunnel::TunnelClient;
use tokio::{
    sync::watch,
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
    path,
};
use crate::gateway::Gateway;

/// QUIC's head start over TCP: a round trip and a lost packet on most ways.
const TCP_AFTER: Duration = Duration::from_millis(500);
/// How long TCP serves before UDP is tried again.
const UDP_AGAIN_AFTER: Duration = Duration::from_secs(120);
/// Between two looks whether this machine has moved, while TCP serves: elsewhere UDP may get through.
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

/// How the gateway is spoken to at the moment.
enum Carrier {
    None,
    Http3(Box<Dialled>),
    /// Until the guarded task has found the way back.
    Http1 {
        _way_back: DropGuard,
    },
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
    dialling: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    _stop: DropGuard,
}

struct Inner {
    gateway: Gateway,
    quic: quinn::ClientConfig,
    http1: Http1,
    tracker: TaskTracker,
    carrier: Mutex<Carrier>,
}

impl Ways {
    pub(super) fn new(
        gateway: Gateway,
        quic: quinn::ClientConfig,
        http1: Http1,
        tracker: TaskTracker,
    ) -> Self {
        let inner = Inner { gateway, quic, http1, tracker, carrier: Mutex::new(Carrier::None) };
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        Self { inner: Arc::new(inner), dialling: tokio::sync::Mutex::default(), stop, _stop: guard }
    }

    pub(super) fn http1(&self) -> &Http1 {
        &self.inner.http1
    }

    /// The way to use now, found if there is none.
    pub(super) async fn now(&self) -> Result<Way, LinkError> {
        if !self.inner.gateway.tls() {
            return Ok(Way::Http1);
        }
        if let Some(way) = self.inner.standing() {
            return Ok(way);
        }
        let _one_for_all = self.dialling.lock().await;
        loop {
            if let Some(way) = self.inner.standing() {
                return Ok(way);
            }
            let Some(mut doubt) = self.inner.doubt() else {
                return Ok(self.take(Box::pin(self.race()).await?));
            };
            tokio::select! {
                // It came back by itself.
                Ok(_) = doubt.wait_for(|is_doubtful| !is_doubtful) => {}
                raced = Box::pin(self.race()) => return Ok(self.take(raced?)),
            }
        }
    }

    /// TCP serves no more either: the next one races anew.
    pub(super) fn http1_failed(&self) {
        let mut carrier = self.inner.lock();
        if matches!(*carrier, Carrier::Http1 { .. }) {
            *carrier = Carrier::None;
        }
    }

    /// Whether anything was found, and nobody closed it since.
    pub(super) fn is_used(&self) -> bool {
        !matches!(*self.inner.lock(), Carrier::None)
    }

    pub(super) fn carried_by(&self) -> CarriedBy {
        match &*self.inner.lock() {
            Carrier::Http3(dialled) if dialled.is_open() => {
                CarriedBy::Quic(Box::new(dialled.tunnel().quic().stats()))
            }
            Carrier::Http1 { .. } => CarriedBy::Tcp,
            Carrier::Http3(_) | Carrier::None => CarriedBy::Nothing,
        }
    }

    /// Says goodbye to the gateway, so that it need not wait for a time-out.
    pub(super) async fn close(&self) {
        let carrier = mem::replace(&mut *self.inner.lock(), Carrier::None);
        if let Carrier::Http3(dialled) = carrier {
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
                self.inner.replace(Carrier::Http3(dialled));
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
                self.inner.replace(Carrier::Http1 { _way_back: stop.drop_guard() });
                Way::Http1
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Carrier> {
        // A panic of another holder leaves one of the three, which is as good as any.
        self.carrier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dial(&self) -> Dialling {
        let dialled = dial::quic(self.gateway.clone(), self.quic.clone(), self.tracker.clone());
        Box::pin(async move { dialled.await.map(Box::new) })
    }

    /// The way that new streams may take without another thought.
    fn standing(&self) -> Option<Way> {
        let mut carrier = self.lock();
        match &*carrier {
            Carrier::Http3(dialled) if !dialled.is_open() => {
                let ended = mem::replace(&mut *carrier, Carrier::None);
                drop(carrier);
                self.leave(ended);
                None
            }
            Carrier::Http3(dialled) if dialled.is_doubtful() => None,
            Carrier::Http3(dialled) => Some(dialled.way()),
            Carrier::Http1 { .. } => Some(Way::Http1),
            Carrier::None => None,
        }
    }

    /// The doubt of a connection that may yet come back.
    fn doubt(&self) -> Option<watch::Receiver<bool>> {
        match &*self.lock() {
            Carrier::Http3(dialled) => Some(dialled.doubt()),
            Carrier::Http1 { .. } | Carrier::None => None,
        }
    }

    fn replace(&self, new: Carrier) {
        let old = mem::replace(&mut *self.lock(), new);
        self.leave(old);
    }

    /// Lets the streams finish that a connection still has.
    fn leave(&self, carrier: Carrier) {
        let Carrier::Http3(dialled) = carrier else { return };
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
            tokio::select! {
                () = sleep(UDP_AGAIN_AFTER) => {}
                () = self.moved() => {}
            }
            attempt = Some(self.dial());
        }
    }

    /// Waits until this machine has another address than now.
    async fn moved(&self) {
        let Some(&gateway) = dial::resolve(&self.gateway).await.ok().as_deref().and_then(<[_]>::first) else {
            return std::future::pending().await;
        };
        let here = path::source(gateway);
        loop {
            sleep(MOVED_INTERVAL).await;
            let now = path::source(gateway);
            if now.is_some() && now != here {
                return;
            }
        }
    }

    fn come_back(&self, dialled: Box<Dialled>, stopped: &CancellationToken) {
        let mut carrier = self.lock();
        // Whoever took the carrier away has cancelled this under the same lock.
        if !stopped.is_cancelled() {
            tracing::info!(address = %dialled.address(), "UDP gets through again: back to QUIC");
            *carrier = Carrier::Http3(dialled);
        }
    }
}
