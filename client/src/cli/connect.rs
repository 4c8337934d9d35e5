//! `connect`: a local port for each chosen route, until Ctrl-C.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Shared, named_or_last, remember, user_cache};
use crate::{
    access::{Access, Route, random},
    failure::Failure,
    forward::{
        Forward, Stop,
        board::{Board, Row},
        udp::UdpForward,
    },
    gateway::Gateway,
    link::{Held, Link, answer::shown, backoff::Backoff},
    target::Target,
};

/// How long streams may live on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);
/// How long cut streams may take to tell their peers.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Open a local port for each TCP route (or only for those named) and keep them open until Ctrl-C.
///
/// Ctrl-C lets live streams end for up to 10 seconds; a second one cuts them.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Names of routes, or their host:port; all TCP routes if none is given
    #[arg(value_name = "ROUTE")]
    routes: Vec<String>,
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
        let access = self.shared.access(gateway, &tracker)?;
        let routes = tokio::select! {
            routes = access.routes() => routes?,
            stopped = stop_signal() => return stopped,
        };
        remember(access.gateway());
        let (mut forwards, mut rows) = (Vec::new(), Vec::new());
        for (name, target) in chosen(&routes, &self.routes, access.gateway())? {
            let forward = bind_near(&target, forwards.len()).await?;
            if let Some(note) = moved(&name, &target, forward.local()?) {
                tell(&note);
            }
            let destination = target.destination.to_string();
            rows.push(Row { name, local: forward.local()?, destination, streams: 0 });
            forwards.push(Opened::Tcp(forward));
        }
        serve(access, forwards, Arc::new(Board::new(rows)), tracker).await
    }
}

/// The routes to open: those named, or all TCP routes. Each name must be one.
fn chosen(routes: &[Route], names: &[String], gateway: &Gateway) -> Result<Vec<(String, Target)>, Failure> {
    let tcp: Vec<(String, Target)> = routes
        .iter()
        .filter(|route| route.kind == "tcp")
        .filter_map(|route| {
            // The gateway that listed the route carries it, over the connection that is open already.
            let target = route.from.parse::<Target>().ok()?.through(Some(gateway.clone()));
            let name =
                if route.name.is_empty() { target.destination.to_string() } else { route.name.clone() };
            Some((name, target))
        })
        .collect();
    if tcp.is_empty() {
        return Err(Failure::NoRoutes { gateway: gateway.clone() });
    }
    if names.is_empty() {
        return Ok(tcp);
    }
    names
        .iter()
        .map(|wanted| {
            let found =
                tcp.iter().find(|(name, target)| name == wanted || target.destination.to_string() == *wanted);
            found.cloned().ok_or_else(|| Failure::NoSuchRoute {
                name: wanted.clone(),
                known: tcp.iter().map(|(name, _)| shown(name)).collect::<Vec<_>>().join(", "),
            })
        })
        .collect()
}

/// The route's own port on the loopback address if it is free, else any.
async fn bind_near(target: &Target, row: usize) -> Result<Forward, Failure> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let own = at(target.destination.port());
    match Forward::bind(own, target.destination.clone(), row).await {
        Err(Failure::Listen { .. }) => Forward::bind(at(0), target.destination.clone(), row).await,
        bound => bound,
    }
}

/// What the person must know when a forward is not on the port where they would look for it: there, something else answers.
fn moved(name: &str, target: &Target, local: SocketAddr) -> Option<String> {
    let wanted = target.destination.port();
    (local.port() != wanted).then(|| {
        let name = shown(name);
        format!(
            "note: {name} is on {local}, not on its own port {wanted}, which is taken or not free to use: what answers \
             there is not {name}. To choose a port: pomerium-cli tcp {} --listen 127.0.0.1:PORT",
            target.destination
        )
    })
}

#[expect(clippy::print_stderr, reason = "the person must see it whatever the log level is")]
fn tell(note: &str) {
    eprintln!("{note}");
}

/// A local port that leads to an app.
pub(super) enum Opened {
    /// For connections.
    Tcp(Forward),
    /// For datagrams.
    Udp(UdpForward),
}

/// Runs forwards until Ctrl-C, then drains them.
pub(super) async fn serve(
    access: Arc<Access>,
    forwards: Vec<Opened>,
    board: Arc<Board>,
    connections: TaskTracker,
) -> Result<(), Failure> {
    let (stop, streams, listeners) = (Stop::default(), TaskTracker::new(), TaskTracker::new());
    board.show();
    for forward in forwards {
        let (access, board) = (Arc::clone(&access), Arc::clone(&board));
        let (streams, stop) = (streams.clone(), stop.clone());
        match forward {
            Opened::Tcp(forward) => listeners.spawn(forward.run(access, board, streams, stop)),
            Opened::Udp(forward) => listeners.spawn(forward.run(access, board, streams, stop)),
        };
    }
    tokio::select! {
        stopped = stop_signal() => stopped?,
        () = keep_up(access.link(), &board) => {}
        () = access.keep_reporting() => {}
        () = access.keep_warning(|told| board.tell(told)) => {}
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
    access.link().close().await;
    connections.close();
    Ok(())
}

/// Keeps the link up and the board informed; never returns.
async fn keep_up(link: &Link, board: &Board) {
    let mut backoff = Backoff::default();
    loop {
        match link.hold().await {
            Ok(Held::Connection(tunnel)) => {
                board.link("connected");
                backoff = Backoff::default();
                let why = tunnel.closed().await;
                tracing::debug!(error = %why, "the connection to the gateway ended");
                board.link("reconnecting");
            }
            Ok(Held::EachByItself) => {
                board.link("ready (TCP)");
                sleep(Duration::from_secs(30)).await;
                continue;
            }
            Err(error) => {
                tracing::debug!(error = %crate::exit::chain(&error), "the gateway is not reached");
                board.link(if error.may_pass() { "unreachable" } else { "not trusted" });
            }
        }
        sleep(backoff.after_failure(random())).await;
    }
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
    fn all_tcp_routes_go_through_the_gateway_that_listed_them() {
        let routes = [
            route("web", "http", "https://web.example"),
            route("db", "tcp", "tcp+https://db.example:5432"),
            route("", "tcp", "tcp+https://gate.example/ssh:22"),
            route("broken", "tcp", "nonsense"),
        ];
        let all = chosen(&routes, &[], &gateway()).unwrap();
        let names: Vec<_> =
            all.iter().map(|(name, target)| (name.as_str(), target.destination.to_string())).collect();
        assert_eq!(names, [("db", "db.example:5432".to_owned()), ("ssh:22", "ssh:22".to_owned())]);
        assert!(all.iter().all(|(_, target)| target.gateway == gateway()));
    }

    #[test]
    fn a_forward_on_another_port_than_its_own_is_told() {
        let target: Target = "db.example:5432".parse().unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(moved("db", &target, at(5432)), None);
        let note = moved("db", &target, at(40_000)).unwrap();
        for said in ["db is on 127.0.0.1:40000", "5432", "pomerium-cli tcp db.example:5432 --listen"] {
            assert!(note.contains(said), "{note}");
        }
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
