//! `proxy`: one local port for all TCP routes, for programs that can use a proxy.

use std::{net::SocketAddr, sync::Arc};

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{
    Shared,
    connect::{self, Opened},
    named_or_last, print, remember,
    tcp::local_address,
    user_cache,
};
use crate::{
    failure::Failure,
    forward::{
        board::{Board, Row},
        proxy::Proxy as LocalProxy,
        saved::{Leads, Saved},
    },
};

/// Open one local port that is a SOCKS5 and an HTTP proxy for the gateway's TCP routes, until Ctrl-C.
///
/// It carries the routes alone and refuses everything else; browsers are told by its PAC file, /proxy.pac, to go there for the
/// routes and elsewhere for the rest. Only your own programs may use it.
///
/// curl: curl --socks5-hostname 127.0.0.1:3128 app.corp.example:8080
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// Local address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3128", value_parser = local_address)]
    listen: SocketAddr,
    /// Keep the proxy in forwards.yaml, for the daemon to hold open
    #[arg(long)]
    save: bool,
    /// Any host of the gateway, as https://host:port; the one used last if not given
    #[arg(long, alias = "pomerium-url", value_name = "URL", env = "POMERIUM_URL")]
    gateway: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

impl Proxy {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if !self.listen.ip().is_loopback() {
            return Err(Failure::OpenProxy { address: self.listen });
        }
        let tracker = TaskTracker::new();
        let gateway = named_or_last(self.gateway.as_deref(), user_cache().as_ref())?;
        let reach = self.shared.reach(gateway, &tracker)?;
        tokio::select! {
            routes = reach.routes() => drop(routes?),
            stopped = connect::stop_signal() => return stopped,
        }
        remember(reach.gateway());
        if self.save {
            let (gateway, listen) = (reach.gateway().clone(), self.listen);
            let name = format!("proxy of {}", gateway.host());
            let proxy = Saved { name, gateway, leads: Leads::Proxy, listen };
            return connect::save(&reach, [proxy]).await;
        }
        let proxy = LocalProxy::bind(self.listen).await?;
        let local = proxy.local()?;
        print(&format!(
            "SOCKS5  socks5h://{local}\nHTTP    http://{local}\nPAC     http://{local}/proxy.pac\n\n"
        ))?;
        let destination = format!("the routes of {}", reach.gateway());
        let row = Row { name: "proxy".to_owned(), local, destination, streams: 0 };
        connect::serve(reach, vec![Opened::Proxy(proxy)], Arc::new(Board::new(vec![row])), tracker).await
    }
}
