//! One local port for all TCP routes: SOCKS5 and an HTTP proxy, told apart by the first octet, and the PAC file that sends
//! browsers there for the gateway's routes alone.
//!
//! [`names`] is what it leads to, [`socks`] and [`http`] are what programs speak, [`pac`] is the file. A program of another
//! user of this machine is turned away, whatever it speaks.

mod http;
mod names;
mod pac;
mod socks;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pomerium_shared::{
    destination::Destination,
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
};
use tokio::{
    io,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{names::Names, socks::Asked};
use super::{PATIENCE, STREAMS_MAX, Seen, Stop, accept, shutdown};
use crate::{access::random, exit, failure::Failure, link::backoff::Backoff, reach::Reach, visitor};

/// How long a program may take to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A local port that leads to every TCP route of a gateway.
#[derive(Debug)]
pub(crate) struct Proxy {
    listener: TcpListener,
}

/// What each connection needs.
#[derive(Debug)]
struct Shared {
    reach: Arc<Reach>,
    names: Names,
    seen: Arc<dyn Seen>,
    /// Where the proxy is, as the PAC file says it.
    local: SocketAddr,
    streams: TaskTracker,
    cut: CancellationToken,
}

/// Why a program got no stream.
#[derive(Debug)]
enum Denied {
    /// It is none of the gateway's.
    NotListed(Destination),
    /// It is, and yet there is none.
    Failed(Failure),
}

impl Proxy {
    /// Takes a local port.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| Failure::ListenProxy { address, source })?;
        Ok(Self { listener })
    }

    /// Where programs connect.
    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until told to stop; its streams live in the tracker and may outlive it.
    pub(crate) async fn run(self, reach: Arc<Reach>, seen: Arc<dyn Seen>, tracker: TaskTracker, stop: Stop) {
        let Ok(local) = self.local() else { return };
        let slots = Arc::new(Semaphore::new(STREAMS_MAX));
        let names = Names::of(Arc::clone(&reach));
        let shared =
            Shared { reach, names, seen, local, streams: tracker.clone(), cut: stop.streams.clone() };
        let shared = Arc::new(shared);
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
                    tracing::warn!(%error, "a local connection was not accepted");
                    tokio::select! {
                        () = stop.accepting.cancelled() => return,
                        () = sleep(backoff.after_failure(random())) => continue,
                    }
                }
            };
            backoff = Backoff::default();
            if !visitor::is_own(&stream).unwrap_or(false) {
                tracing::warn!("a process of another user was turned away");
                Leg::tcp(stream).abort(EndReason::Policy);
                continue;
            }
            let (shared, accepting) = (Arc::clone(&shared), stop.accepting.clone());
            tracker.spawn(async move {
                if let Err(error) = shared.serve(stream, &accepting).await {
                    tracing::debug!(%error, "a program left the proxy");
                }
                drop(slot);
            });
        }
    }
}

impl Shared {
    async fn serve(self: &Arc<Self>, stream: TcpStream, stopping: &CancellationToken) -> io::Result<()> {
        if let Err(error) = relay::keepalive(&stream) {
            tracing::debug!(%error, "keep-alive is off for a local connection");
        }
        let mut first = [0];
        let peeked = tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            peeked = timeout(HEAD_TIMEOUT, stream.peek(&mut first)) => peeked,
        };
        match peeked?? {
            0 => Ok(()),
            _ if first[0] == socks::VERSION => self.by_socks(stream).await,
            _ => http::serve(self, stream, stopping).await,
        }
    }

    async fn by_socks(&self, mut stream: TcpStream) -> io::Result<()> {
        let destination = match timeout(HEAD_TIMEOUT, socks::asked(&mut stream)).await?? {
            Asked::Stream(destination) => destination,
            Asked::Other(answer) => return socks::say(&mut stream, answer).await,
        };
        match self.open(&destination).await {
            Ok(app) => {
                socks::say(&mut stream, socks::Answer::Open).await?;
                self.carry(Leg::tcp(stream), app, &destination).await;
                Ok(())
            }
            Err(denied) => socks::say(&mut stream, socks::Answer::to(denied.exit())).await,
        }
    }

    /// Opens a stream to a destination, if it is one of the gateway's.
    async fn open(&self, to: &Destination) -> Result<Leg, Denied> {
        let opened = async {
            if !self.names.has(to).await.map_err(Denied::Failed)? {
                return Err(Denied::NotListed(to.clone()));
            }
            self.reach.connect_patiently(to, PATIENCE).await.map_err(Denied::Failed)
        };
        let opened = tokio::select! {
            biased;
            () = self.cut.cancelled() => Err(Denied::Failed(Failure::Stream(EndReason::Shutdown))),
            opened = opened => opened,
        };
        if let Err(denied) = &opened {
            self.seen.refused(to, &denied.told());
        }
        opened
    }

    async fn carry(&self, local: Leg, app: Leg, to: &Destination) {
        self.seen.began();
        let (options, counters) = (RelayOptions::default(), self.seen.counters());
        let end = relay::run_counted(local, app, options, shutdown(&self.cut), &counters).await;
        let (up, down) = (end.bytes_from_client, end.bytes_from_app);
        self.seen.ended(up, down, &format!("{to}: stream ended: {} ({up} B up, {down} B down)", end.reason));
    }
}

impl Denied {
    fn exit(&self) -> exit::Exit {
        match self {
            Self::NotListed(_) => exit::Exit::NotAllowed,
            Self::Failed(failure) => exit::verdict(failure).0,
        }
    }

    /// What happened and what to do.
    fn told(&self) -> String {
        match self {
            Self::NotListed(to) => format!(
                "pomerium-cli: {to} is none of the gateway's TCP routes\n  This proxy carries those alone: see `pomerium-cli \
                 routes`, and let the PAC file choose what goes through it."
            ),
            Self::Failed(failure) => exit::message(failure),
        }
    }
}
