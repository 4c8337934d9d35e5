//! Local listeners: each accepted connection becomes one stream over the gateway's one connection.
//!
//! How the stream is opened is `access`; what the person sees of it is [`board`].

pub(crate) mod board;
pub(crate) mod chosen;
pub(crate) mod proxy;
pub(crate) mod refused;
pub(crate) mod saved;
pub(crate) mod udp;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pomerium_shared::{
    destination::Destination,
    reason::EndReason,
    relay::{self, Counters, Leg, RelayOptions},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::refused::Protocol;
use crate::{access::random, failure::Failure, link::backoff::Backoff, reach::Reach};

/// Streams of one listener at a time; further connections wait in the kernel's queue.
const STREAMS_MAX: usize = 4096;
/// How long an accepted connection is held while the gateway is away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// When to stop: first accepting, then everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Accept nothing new.
    pub(crate) accepting: CancellationToken,
    /// Cut what still lives.
    pub(crate) streams: CancellationToken,
}

/// Who hears of the streams of a forward.
pub(crate) trait Seen: std::fmt::Debug + Send + Sync + 'static {
    /// One began.
    fn began(&self);
    /// What all of them count together while they go on.
    fn counters(&self) -> Arc<Counters> {
        Arc::default()
    }
    /// One ended: bytes to and from the app, and how.
    fn ended(&self, up: u64, down: u64, how: &str);
    /// One was asked for and not opened, and why.
    fn refused(&self, to: &Destination, why: &str);
    /// The gateway lists the route no more.
    fn gone(&self) {}
}

/// A local port that leads to one app.
#[derive(Debug)]
pub(crate) struct Forward {
    listener: TcpListener,
    destination: Destination,
    protocol: Option<Protocol>,
}

impl Forward {
    /// Takes a local port.
    pub(crate) async fn bind(address: SocketAddr, destination: Destination) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address).await.map_err(|source| Failure::Listen {
            wanted_by: destination.clone(),
            address,
            source,
        })?;
        let protocol = Protocol::of_port(destination.port());
        Ok(Self { listener, destination, protocol })
    }

    /// The same for an app that speaks this protocol.
    pub(crate) fn speaking(self, protocol: Option<Protocol>) -> Self {
        Self { protocol: protocol.or(self.protocol), ..self }
    }

    /// Where programs connect.
    pub(crate) fn local(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until told to stop; its streams live in the tracker and may outlive it.
    pub(crate) async fn run(self, reach: Arc<Reach>, seen: Arc<dyn Seen>, tracker: TaskTracker, stop: Stop) {
        let slots = Arc::new(Semaphore::new(STREAMS_MAX));
        let mut backoff = Backoff::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.accepting.cancelled() => return,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            let (stream, slot) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: it passes when streams end.
                    tracing::warn!(%error, "a local connection was not accepted");
                    tokio::select! {
                        () = stop.accepting.cancelled() => return,
                        () = sleep(backoff.after_failure(random())) => continue,
                    }
                }
            };
            backoff = Backoff::default();
            let (reach, seen, cut) = (Arc::clone(&reach), Arc::clone(&seen), stop.streams.clone());
            let (destination, protocol) = (self.destination.clone(), self.protocol);
            tracker.spawn(async move {
                seen.began();
                let counters = seen.counters();
                let (up, down, told) = carry(&reach, stream, &destination, protocol, &cut, &counters).await;
                seen.ended(up, down, &told);
                drop(slot);
            });
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// Carries one local connection to its end; says how many bytes went up and down, and in words how it ended.
async fn carry(
    reach: &Reach,
    local: TcpStream,
    to: &Destination,
    protocol: Option<Protocol>,
    cut: &CancellationToken,
    counters: &Counters,
) -> (u64, u64, String) {
    if let Err(error) = relay::keepalive(&local) {
        tracing::debug!(%error, "keep-alive is off for a local connection");
    }
    let opened = tokio::select! {
        biased;
        () = cut.cancelled() => {
            Leg::tcp(local).abort(EndReason::Shutdown);
            return (0, 0, format!("stream ended: {}", EndReason::Shutdown));
        }
        opened = reach.connect_patiently(to, PATIENCE) => opened,
    };
    match opened {
        Ok(app) => {
            let (local, options) = (Leg::tcp(local), RelayOptions::default());
            let end = relay::run_counted(local, app, options, shutdown(cut), counters).await;
            let (up, down) = (end.bytes_from_client, end.bytes_from_app);
            (up, down, format!("stream ended: {} ({up} B up, {down} B down)", end.reason))
        }
        Err(failure) => {
            refused::tell(local, protocol, &failure, cut).await;
            (0, 0, crate::exit::message(&failure))
        }
    }
}

/// The reason to cut, once there is one.
pub(crate) async fn shutdown(cut: &CancellationToken) -> EndReason {
    cut.cancelled().await;
    EndReason::Shutdown
}
