//! The daemon: one process a person that owns the sign-in, the connection to each gateway, and the forwards that are kept.
//!
//! [`gateways`] are the connections, [`ledger`] counts what goes over them, [`forwards`] holds the listeners of the file
//! ([`listeners`] decides which), [`session`] answers one local caller, `tun` has the network device. What may be asked stands in
//! `docs/local-api.md`.

pub(crate) mod forwards;
pub(crate) mod gateways;
mod ledger;
pub(crate) mod listeners;
mod session;
#[cfg(target_os = "linux")]
pub(crate) mod tun;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{forwards::Forwards, gateways::Gateways};
use crate::{access::random, failure::Failure, link::backoff::Backoff, local_api::socket};

/// Local callers at a time; each stream of a command is one.
const CALLERS_MAX: usize = 4096;
/// How often the file of forwards is read again: ports that were taken may be free by then.
const FILE_INTERVAL: Duration = Duration::from_secs(15);
/// How long what is open may take to end once the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// What the daemon consists of.
#[derive(Debug)]
pub(crate) struct Daemon {
    gateways: Gateways,
    forwards: Forwards,
    #[cfg(target_os = "linux")]
    tun: Option<tun::Tun>,
    callers: TaskTracker,
    stop: CancellationToken,
}

impl Daemon {
    /// A daemon that serves nothing yet.
    pub(crate) fn new(gateways: Gateways, forwards_file: Option<PathBuf>) -> Self {
        let stop = gateways.stop().clone();
        let forwards = Forwards::of(forwards_file, stop.child_token());
        Self {
            gateways,
            forwards,
            #[cfg(target_os = "linux")]
            tun: None,
            callers: TaskTracker::new(),
            stop,
        }
    }

    /// The same with a network device.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_tun(self, tun: Option<tun::Tun>) -> Self {
        Self { tun, ..self }
    }

    /// Answers on the socket until `stopped`; then ends what is open.
    pub(crate) async fn run(
        self,
        listener: UnixListener,
        stopped: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let daemon = Arc::new(self);
        let ended = tokio::select! {
            ended = stopped => ended,
            () = daemon.accept(&listener) => Ok(()),
            () = daemon.keep_forwards() => Ok(()),
            () = daemon.keep_tun() => Ok(()),
        };
        daemon.close().await;
        ended
    }

    async fn close(&self) {
        // First: while it is there, all of this machine asks it for names.
        #[cfg(target_os = "linux")]
        if let Some(tun) = &self.tun {
            tun.close().await;
        }
        self.stop.cancel();
        self.callers.close();
        let _late_is_cut = timeout(GRACE, self.callers.wait()).await;
        self.forwards.close(GRACE).await;
        self.gateways.close().await;
    }

    /// Has the network device come on by itself, if there may be one; never returns.
    async fn keep_tun(&self) {
        #[cfg(target_os = "linux")]
        if let Some(tun) = &self.tun {
            tun.keep(&self.gateways).await;
        }
        std::future::pending().await
    }

    async fn accept(self: &Arc<Self>, listener: &UnixListener) {
        let slots = Arc::new(Semaphore::new(CALLERS_MAX));
        let mut backoff = Backoff::default();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a local caller was not accepted");
                    sleep(backoff.after_failure(random())).await;
                    continue;
                }
            };
            backoff = Backoff::default();
            if !socket::is_own(&stream) {
                tracing::warn!("a process of another user was turned away");
                continue;
            }
            let daemon = Arc::clone(self);
            self.callers.spawn(async move {
                daemon.serve(stream).await;
                drop(slot);
            });
        }
    }

    async fn serve(&self, stream: UnixStream) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            ended = session::run(self, stream) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a local caller left");
                }
            }
        }
    }

    /// Reads the file of forwards now and then; never returns.
    async fn keep_forwards(&self) {
        loop {
            if let Err(failure) = self.forwards.reload(&self.gateways).await {
                tracing::warn!(error = %crate::exit::chain(&failure), "the forwards stay as they are");
            }
            sleep(FILE_INTERVAL).await;
        }
    }
}
