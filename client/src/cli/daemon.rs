//! `daemon`: holds the sign-in, the connections and the kept forwards for all other commands.

use std::{os::unix::net::UnixListener as StdListener, path::PathBuf};

use clap::Args;
use tokio::net::UnixListener;
use tokio_util::task::TaskTracker;

use super::{Shared, connect, forwards_file, socket_path};
use crate::{
    daemon::{self, gateways::Gateways},
    failure::Failure,
    local_api::socket::{self, SocketError},
};

/// Hold the sign-in, one connection to each gateway, and the forwards of forwards.yaml, until it is stopped.
///
/// Every other command finds it by itself. It may be started by systemd when it is first needed: see packaging/systemd/user.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// The file of forwards [default: pomerium/forwards.yaml in the folder of your settings]
    #[arg(long, value_name = "FILE")]
    forwards: Option<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

/// The socket that systemd listened on for this process, if it did. To be called before any thread begins: it takes the
/// variables that say so out of the environment.
pub(super) fn handed_over() -> Option<StdListener> {
    listenfd::ListenFd::from_env().take_unix_listener(0).ok().flatten()
}

impl Daemon {
    pub(crate) async fn run(self, handed_over: Option<StdListener>) -> Result<(), Failure> {
        let listener = match handed_over {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)?
            }
            None => socket::bind(&socket_path().ok_or(SocketError::NoFolder)?).await?,
        };
        let forwards = self.forwards.or_else(forwards_file);
        let (shared, connections) = (self.shared, TaskTracker::new());
        let gateways = Gateways::new(move |gateway| shared.access(gateway, &connections));
        tracing::info!("the daemon answers");
        daemon::Daemon::new(gateways, forwards).run(listener, connect::stop_signal()).await
    }
}
