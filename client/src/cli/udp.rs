//! `udp`: one destination, on a local UDP port.

use std::{net::SocketAddr, sync::Arc};

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{
    Shared,
    connect::{self, Opened},
    tcp::local_address,
};
use crate::{
    failure::Failure,
    forward::{
        board::{Board, Row},
        udp::UdpForward,
    },
    reach::Reach,
    target::Target,
};

/// Open one local UDP port for one destination. Each program that sends to it has a flow of its own.
#[derive(Debug, Args)]
pub(crate) struct Udp {
    /// host:port, udp+https://host:port or udp+https://gateway:443/host:port
    #[arg(value_name = "DEST")]
    destination: String,
    /// Local address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = local_address)]
    listen: SocketAddr,
    /// The gateway to go through, instead of the one that DEST names
    #[arg(long, alias = "gateway", value_name = "URL", env = "POMERIUM_URL")]
    pomerium_url: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

impl Udp {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let gateway = self.pomerium_url.as_deref().map(str::parse).transpose()?;
        let target = self.destination.parse::<Target>()?.through(gateway);
        let tracker = TaskTracker::new();
        let access = self.shared.access(target.gateway.clone(), &tracker)?;
        let forward = UdpForward::bind(self.listen, target.destination.clone()).await?;
        let name = target.destination.to_string();
        let row = Row { name: name.clone(), local: forward.local()?, destination: name, streams: 0 };
        let reach = Arc::new(Reach::new(access, None));
        connect::serve(reach, vec![Opened::Udp(forward)], Arc::new(Board::new(vec![row])), tracker).await
    }
}
