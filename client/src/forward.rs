//! Local listeners: each accepted connection becomes one stream over the gateway's one connection.
//!
//! How the stream is opened is `access`; what the person sees of it is [`board`].

pub(crate) mod board;
pub(crate) mod udp;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pomerium_shared::{
    destination::Destination,
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::board::Board;
use crate::{
    access::{Access, random},
    failure::Failure,
    link::backoff::Backoff,
};

/// Streams of one listener at a time; further connections wait in the kernel's queue.
const STREAMS_MAX: usize = 4096;
/// How long an accepted connection is held while the gateway is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// When to stop: first accepting, then everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Accept nothing new.
    pub(crate) accepting: CancellationToken,
    /// Cut what still lives.
    pub(crate) streams: CancellationToken,
}

/// A local port that leads to one app.
#[derive(Debug)]
pub(crate) struct Forward {
    listener: TcpListener,
    destination: Destination,
    row: usize,
}

impl Forward {
    /// Takes a local port.
    pub(crate) async fn bind(
        address: SocketAddr,
        destination: Destination,
        row: usize,
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address).await.map_err(|source| Failure::Listen {
            wanted_by: destination.clone(),
            address,
            source,
        })?;
        Ok(Self { listener, destination, row })
    }

    /// Where programs connect.
    pub(crate) fn local(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until told to stop; its streams live in the tracker and may outlive it.
    pub(crate) async fn run(self, access: Arc<Access>, board: Arc<Board>, tracker: TaskTracker, stop: Stop) {
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
                    sleep(backoff.after_failure(random())).await;
                    continue;
                }
            };
            backoff = Backoff::default();
            let (access, board, cut) = (Arc::clone(&access), Arc::clone(&board), stop.streams.clone());
            let (destination, row) = (self.destination.clone(), self.row);
            tracker.spawn(async move {
                board.began(row);
                let told = carry(&access, stream, &destination, &cut).await;
                board.ended(row, &told);
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

/// Carries one local connection to its end and says in words how it ended.
async fn carry(access: &Access, local: TcpStream, to: &Destination, cut: &CancellationToken) -> String {
    if let Err(error) = relay::keepalive(&local) {
        tracing::debug!(%error, "keep-alive is off for a local connection");
    }
    let local = Leg::tcp(local);
    let opened = tokio::select! {
        biased;
        () = cut.cancelled() => {
            local.abort(EndReason::Shutdown);
            return format!("stream ended: {}", EndReason::Shutdown);
        }
        opened = access.connect_patiently(to, PATIENCE) => opened,
    };
    match opened {
        Ok(app) => {
            let end = relay::run(local, app, RelayOptions::default(), shutdown(cut)).await;
            format!(
                "stream ended: {} ({} B up, {} B down)",
                end.reason, end.bytes_from_client, end.bytes_from_app
            )
        }
        Err(failure) => {
            local.abort(EndReason::App);
            crate::exit::message(&failure)
        }
    }
}

/// The reason to cut, once there is one.
pub(crate) async fn shutdown(cut: &CancellationToken) -> EndReason {
    cut.cancelled().await;
    EndReason::Shutdown
}
