//! `connect`: a local port for each chosen route, until Ctrl-C.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{Shared, forwards_file, named_or_last, print, remember, user_cache};
use crate::{
    access::Route,
    cache::write_private,
    daemon,
    failure::Failure,
    forward::{
        Forward, Stop,
        board::{Board, BoardRow, Row},
        proxy::Proxy,
        saved::{self, Saved},
        udp::UdpForward,
    },
    gateway::Gateway,
    link::answer::shown,
    local_api::wire::{Reply, Request},
    reach::Reach,
    target::Target,
};

/// How long streams may live on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);
/// How long cut streams may take to tell their peers.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Open a local port for each TCP and UDP route (or only for those named) and keep them open until Ctrl-C.
///
/// Ctrl-C lets live streams end for up to 10 seconds; a second one cuts them.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Names of routes, or their host:port; all TCP and UDP routes if none is given
    #[arg(value_name = "ROUTE")]
    routes: Vec<String>,
    /// Keep these forwards in forwards.yaml, each on a loopback address of its own, for the daemon to hold open
    #[arg(long)]
    save: bool,
    /// Reach the routes by their names and own ports, through a network device; as root or with CAP_NET_ADMIN
    #[cfg(target_os = "linux")]
    #[arg(long, conflicts_with = "save")]
    tun: bool,
    /// With --tun: leave /etc/resolv.conf alone
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "tun")]
    no_dns: bool,
    /// Any host of the gateway, as https://host:port; the one used last if not given
    #[arg(long, alias = "pomerium-url", value_name = "URL", env = "POMERIUM_URL")]
    gateway: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

impl Connect {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let gateway = named_or_last(self.gateway.as_deref(), user_cache().as_ref())?;
        let tracker = TaskTracker::new();
        let reach = self.shared.reach(gateway, &tracker)?;
        let routes = tokio::select! {
            routes = reach.routes() => routes?,
            stopped = stop_signal() => return stopped,
        };
        remember(reach.gateway());
        let (mut forwards, mut rows) = (Vec::new(), Vec::new());
        let chosen = chosen(&routes, &self.routes, reach.gateway())?;
        if self.save {
            return save(&reach, chosen).await;
        }
        #[cfg(target_os = "linux")]
        if self.tun {
            return Box::pin(super::tun::serve(reach, chosen, !self.no_dns, tracker)).await;
        }
        for route in chosen {
            let forward = bind_near(&route, rows.len()).await?;
            let local = forward.local()?;
            if let Some(note) = moved(&route, local) {
                tell(&note);
            }
            let destination = route.target.destination.to_string();
            rows.push(Row { name: route.name, local, destination, streams: 0 });
            forwards.push(forward);
        }
        serve(reach, forwards, Arc::new(Board::new(rows)), tracker).await
    }
}

/// A route that a local port can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) is_udp: bool,
    pub(super) target: Target,
}

/// The routes to open: those named, or all that a local port can lead to. Each name must be one.
fn chosen(routes: &[Route], names: &[String], gateway: &Gateway) -> Result<Vec<Chosen>, Failure> {
    let all: Vec<Chosen> = routes
        .iter()
        .filter(|route| matches!(route.kind.as_str(), "tcp" | "udp"))
        .filter_map(|route| {
            // The gateway that listed the route carries it, over the connection that is open already.
            let target = route.from.parse::<Target>().ok()?.through(Some(gateway.clone()));
            let name =
                if route.name.is_empty() { target.destination.to_string() } else { route.name.clone() };
            Some(Chosen { name, is_udp: route.kind == "udp", target })
        })
        .collect();
    if all.is_empty() {
        return Err(Failure::NoRoutes { gateway: gateway.clone() });
    }
    if names.is_empty() {
        return Ok(all);
    }
    names
        .iter()
        .map(|wanted| {
            let is_meant =
                |route: &&Chosen| route.name == *wanted || route.target.destination.to_string() == *wanted;
            all.iter().find(is_meant).cloned().ok_or_else(|| Failure::NoSuchRoute {
                name: wanted.clone(),
                known: all.iter().map(|route| shown(&route.name)).collect::<Vec<_>>().join(", "),
            })
        })
        .collect()
}

/// Keeps forwards in the file, beside those that are there, and lets the daemon know.
async fn save(reach: &Reach, chosen: Vec<Chosen>) -> Result<(), Failure> {
    let path = forwards_file().ok_or(Failure::NoSettings)?;
    let mut all = daemon::forwards::read(&path)?;
    let mut told = String::new();
    for Chosen { name, is_udp, target } in chosen {
        if is_udp {
            told.push_str(&format!(
                "{}: not kept, for it speaks UDP; open it with pomerium-cli udp\n",
                shown(&name)
            ));
            continue;
        }
        let (gateway, route) = (target.gateway, target.destination);
        let listen = saved::address_of(&gateway, &route);
        told.push_str(&format!("{}: {listen} leads to {route}\n", shown(&name)));
        let new = Saved { name, gateway, route, listen, protocol: None };
        all.retain(|old| old.name != new.name && old.listen != new.listen);
        all.push(new);
    }
    write_private(&path, &saved::text_of(&all))?;
    told.push_str(&match reach.line().await {
        None => "Kept. Start the daemon to open them: pomerium-cli daemon\n".to_owned(),
        Some(mut line) => match line.ask(Request::Reload, |_| {}).await? {
            Reply::Reloaded { forwards } => format!("Kept; the daemon holds {forwards} forwards.\n"),
            _ => return Err(Failure::BadAnswer { what: "a change of forwards" }),
        },
    });
    reach.close().await;
    print(&told)
}

/// The route's own port on the loopback address if it is free, else any.
async fn bind_near(route: &Chosen, row: usize) -> Result<Opened, Failure> {
    let own = SocketAddr::from(([127, 0, 0, 1], route.target.destination.port()));
    match bind(route, own, row).await {
        Err(Failure::Listen { .. }) => bind(route, SocketAddr::from(([127, 0, 0, 1], 0)), row).await,
        bound => bound,
    }
}

async fn bind(route: &Chosen, at: SocketAddr, row: usize) -> Result<Opened, Failure> {
    let to = route.target.destination.clone();
    Ok(match route.is_udp {
        true => Opened::Udp(UdpForward::bind(at, to, row).await?),
        false => Opened::Tcp(Forward::bind(at, to).await?),
    })
}

/// What the person must know when a forward is not on the port where they would look for it: there, something else answers.
fn moved(route: &Chosen, local: SocketAddr) -> Option<String> {
    let wanted = route.target.destination.port();
    (local.port() != wanted).then(|| {
        let (name, command) = (shown(&route.name), if route.is_udp { "udp" } else { "tcp" });
        format!(
            "note: {name} is on {local}, not on its own port {wanted}, which is taken or not free to use: what answers \
             there is not {name}. To choose a port: pomerium-cli {command} {} --listen 127.0.0.1:PORT",
            route.target.destination
        )
    })
}

#[expect(clippy::print_stderr, reason = "the person must see it whatever the log level is")]
pub(super) fn tell(note: &str) {
    eprintln!("{note}");
}

/// A local port that leads to an app.
pub(super) enum Opened {
    /// For connections.
    Tcp(Forward),
    /// For datagrams.
    Udp(UdpForward),
    /// For connections to any of the routes.
    Proxy(Proxy),
}

impl Opened {
    /// Where programs find it.
    fn local(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Tcp(forward) => forward.local(),
            Self::Udp(forward) => forward.local(),
            Self::Proxy(proxy) => proxy.local(),
        }
    }
}

/// Runs forwards until Ctrl-C, then drains them.
pub(super) async fn serve(
    reach: Arc<Reach>,
    forwards: Vec<Opened>,
    board: Arc<Board>,
    connections: TaskTracker,
) -> Result<(), Failure> {
    let (stop, streams, listeners) = (Stop::default(), TaskTracker::new(), TaskTracker::new());
    board.show();
    for (row, forward) in forwards.into_iter().enumerate() {
        let (board, streams, stop) = (Arc::clone(&board), streams.clone(), stop.clone());
        match forward {
            Opened::Tcp(forward) => {
                let seen = Arc::new(BoardRow { board, row });
                listeners.spawn(forward.run(Arc::clone(&reach), seen, streams, stop))
            }
            Opened::Proxy(proxy) => {
                let seen = Arc::new(BoardRow { board, row });
                listeners.spawn(proxy.run(Arc::clone(&reach), seen, streams, stop))
            }
            // Datagrams go by this process's own connection.
            Opened::Udp(forward) => {
                listeners.spawn(forward.run(Arc::clone(reach.own()), board, streams, stop))
            }
        };
    }
    tokio::select! {
        stopped = stop_signal() => stopped?,
        () = reach.keep_up(&board) => {}
        () = reach.own().keep_reporting() => {}
        () = reach.own().keep_warning(|told| board.tell(told)) => {}
    }
    stop.accepting.cancel();
    listeners.close();
    listeners.wait().await;
    streams.close();
    if !streams.is_empty() {
        board.link("draining");
        tokio::select! {
            _late = timeout(GRACE, streams.wait()) => {}
            stopped = stop_signal() => stopped?,
        }
    }
    stop.streams.cancel();
    // What does not end by then ends with the process.
    let _late = timeout(CUT_TIMEOUT, streams.wait()).await;
    reach.close().await;
    connections.close();
    Ok(())
}

/// Waits for Ctrl-C or a polite end from outside.
pub(super) async fn stop_signal() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => Ok(pressed?),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, kind: &str, from: &str) -> Route {
        Route {
            id: String::new(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            from: from.to_owned(),
            description: String::new(),
            connect_command: String::new(),
        }
    }

    fn gateway() -> Gateway {
        "https://gate.example:8443".parse().unwrap()
    }

    #[test]
    fn all_routes_with_a_port_go_through_the_gateway_that_listed_them() {
        let routes = [
            route("web", "http", "https://web.example"),
            route("db", "tcp", "tcp+https://db.example:5432"),
            route("", "tcp", "tcp+https://gate.example/ssh:22"),
            route("dns", "udp", "udp+https://dns.example:53"),
            route("broken", "tcp", "nonsense"),
        ];
        let all = chosen(&routes, &[], &gateway()).unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|route| (route.name.as_str(), route.target.destination.to_string(), route.is_udp))
            .collect();
        let expected =
            [("db", "db.example:5432", false), ("ssh:22", "ssh:22", false), ("dns", "dns.example:53", true)];
        assert_eq!(names, expected.map(|(name, to, is_udp)| (name, to.to_owned(), is_udp)));
        assert!(all.iter().all(|route| route.target.gateway == gateway()));
    }

    #[test]
    fn a_forward_on_another_port_than_its_own_is_told() {
        let target: Target = "db.example:5432".parse().unwrap();
        let db = Chosen { name: "db".to_owned(), is_udp: false, target };
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(moved(&db, at(5432)), None);
        let note = moved(&db, at(40_000)).unwrap();
        for said in ["db is on 127.0.0.1:40000", "5432", "pomerium-cli tcp db.example:5432 --listen"] {
            assert!(note.contains(said), "{note}");
        }
        let note = moved(&Chosen { is_udp: true, ..db }, at(40_000)).unwrap();
        assert!(note.contains("pomerium-cli udp db.example:5432"), "{note}");
    }

    #[test]
    fn a_name_that_is_no_route_is_told_with_those_that_are() {
        let routes = [route("db", "tcp", "tcp+https://db.example:5432")];
        assert_eq!(chosen(&routes, &["db.example:5432".to_owned()], &gateway()).unwrap().len(), 1);
        let Err(Failure::NoSuchRoute { known, .. }) = chosen(&routes, &["web".to_owned()], &gateway()) else {
            panic!("a route that does not exist was opened");
        };
        assert_eq!(known, "db");
    }
}
