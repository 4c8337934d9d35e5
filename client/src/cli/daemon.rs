//! `daemon`: holds the sign-in, the connections and the kept forwards for all other commands.

use std::{os::unix::net::UnixListener as StdListener, path::PathBuf};

use clap::Args;
use tokio::net::UnixListener;
use tokio_util::task::TaskTracker;

#[cfg(target_os = "linux")]
use super::user_cache;
use super::{Shared, connect, forwards_file, socket_path};
#[cfg(target_os = "linux")]
use crate::daemon::tun::{First, Tun};
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
    /// Have a network device, which leads to all routes by their names as soon as you are signed in; with CAP_NET_ADMIN
    #[cfg(target_os = "linux")]
    #[arg(long)]
    tun: bool,
    /// With --tun: leave alone whom this machine asks for names
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "tun")]
    no_dns: bool,
    /// With --tun: the gateway whose routes it leads to; the one used last if not given
    #[cfg(target_os = "linux")]
    #[arg(long, alias = "pomerium-url", value_name = "URL", env = "POMERIUM_URL")]
    gateway: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

/// What the daemon does before any thread begins: what it is given is not for the programs that it starts.
pub(super) fn prepare() -> Option<StdListener> {
    #[cfg(target_os = "linux")]
    if let Err(error) = crate::tun::privilege::withhold() {
        tracing::debug!(%error, "no privilege to keep from others");
    }
    handed_over()
}

/// The socket that systemd listened on for this process, if it did. To be called before any thread begins: it takes the
/// variables that say so out of the environment.
fn handed_over() -> Option<StdListener> {
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
        #[cfg(target_os = "linux")]
        let tun = match (self.tun, self.gateway) {
            (false, _) => None,
            (true, None) => Some(First { named: None, cache: user_cache(), dns: !self.no_dns }),
            (true, Some(named)) => {
                Some(First { named: Some(named.parse()?), cache: None, dns: !self.no_dns })
            }
        };
        let (shared, connections) = (self.shared, TaskTracker::new());
        let gateways = Gateways::new(move |gateway| shared.access(gateway, &connections));
        let daemon = daemon::Daemon::new(gateways, forwards);
        #[cfg(target_os = "linux")]
        let daemon = daemon.with_tun(tun.map(Tun::new));
        tracing::info!("the daemon answers");
        daemon.run(listener, connect::stop_signal()).await
    }
}
