//! `tcp`: one destination, on a local port or on standard input and output (for ssh's `ProxyCommand`).

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use clap::Args;
use pomerium_shared::{
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Shared,
    connect::{self, Opened},
    remember,
};
use crate::{
    failure::Failure,
    forward::{
        Forward,
        board::{Board, Row},
        shutdown,
    },
    reach::Reach,
    target::Target,
};

/// Open one local port, or standard input and output, for one destination.
///
/// For ssh: ssh -o ProxyCommand='pomerium-cli tcp --listen - %h:%p' me@ssh.corp.example
#[derive(Debug, Args)]
pub(crate) struct Tcp {
    /// host:port, tcp+https://host:port or tcp+https://gateway:443/host:port
    #[arg(value_name = "DEST")]
    destination: String,
    /// Local address to listen on; - is standard input and output
    #[arg(long, value_name = "ADDR|-", default_value = "127.0.0.1:0")]
    listen: Listen,
    /// The gateway to go through, instead of the one that DEST names
    #[arg(long, alias = "gateway", value_name = "URL", env = "POMERIUM_URL")]
    pomerium_url: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

/// How long the gateway may take to hear that it is over.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listen {
    Stdio,
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "-" {
            return Ok(Self::Stdio);
        }
        local_address(text)
            .map(Self::At)
            .map_err(|_| "write 127.0.0.1:PORT or - for standard input and output".to_owned())
    }
}

/// ":8080" and "localhost:8080" are common ways to say the loopback address.
pub(super) fn local_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost").unwrap_or(text);
    let full = if local.starts_with(':') { format!("127.0.0.1{local}") } else { text.to_owned() };
    full.parse().map_err(|_| "write 127.0.0.1:PORT".to_owned())
}

impl Tcp {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let gateway = self.pomerium_url.as_deref().map(str::parse).transpose()?;
        let target = self.destination.parse::<Target>()?.through(gateway);
        let tracker = TaskTracker::new();
        let reach = self.shared.reach(target.gateway.clone(), &tracker)?;
        match self.listen {
            Listen::Stdio => {
                let ended = stdio(&reach, &target).await;
                reach.close().await;
                ended
            }
            Listen::At(address) => {
                let forward = Forward::bind(address, target.destination.clone()).await?;
                let name = target.destination.to_string();
                let row = Row { name: name.clone(), local: forward.local()?, destination: name, streams: 0 };
                let forwards = vec![Opened::Tcp(forward)];
                connect::serve(reach, forwards, Arc::new(Board::new(vec![row])), tracker).await
            }
        }
    }
}

async fn stdio(reach: &Reach, target: &Target) -> Result<(), Failure> {
    let cut = CancellationToken::new();
    let carried = async {
        let app = reach.connect(&target.destination).await?;
        remember(reach.gateway());
        let local = Leg::io(tokio::io::stdin(), tokio::io::stdout());
        Ok::<_, Failure>(relay::run(local, app, RelayOptions::default(), shutdown(&cut)).await)
    };
    tokio::pin!(carried);
    let end = tokio::select! {
        end = &mut carried => end?,
        () = reach.own().keep_reporting() => return Ok(()),
        stopped = stop_signal() => {
            stopped?;
            // So that the gateway does not wait for this stream to come back.
            cut.cancel();
            let _late_is_harmless = timeout(STOP_TIMEOUT, carried).await;
            return Ok(());
        }
    };
    tracing::debug!(reason = %end.reason, up = end.bytes_from_client, down = end.bytes_from_app, "stream ended");
    match end.reason {
        EndReason::Client | EndReason::App => Ok(()),
        reason => Err(Failure::Stream(reason)),
    }
}

/// Waits for an end from outside; ssh hangs up on its `ProxyCommand`.
async fn stop_signal() -> Result<(), Failure> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        stopped = connect::stop_signal() => stopped,
        _ = hangup.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_understood_and_default_to_loopback() {
        assert_eq!("-".parse(), Ok(Listen::Stdio));
        for text in ["127.0.0.1:8080", ":8080", "localhost:8080"] {
            assert_eq!(text.parse(), Ok(Listen::At(([127, 0, 0, 1], 8080).into())), "{text}");
        }
        assert!("8080".parse::<Listen>().is_err());
        assert!("db.example:1".parse::<Listen>().is_err());
    }
}
