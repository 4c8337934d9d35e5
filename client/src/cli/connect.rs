//! `connect`: a local port for each chosen route, until Ctrl-C.

mod all;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::all::All;
use super::{Shared, forwards_file, named_or_last, print, remember, user_cache};
use crate::{
    cache::write_private,
    daemon,
    failure::Failure,
    forward::{
        Forward, Stop,
        board::{Board, BoardRow, Row},
        chosen::{Chosen, chosen},
        proxy::Proxy,
        saved::{self, Saved, UDP_SUFFIX},
        udp::UdpForward,
    },
    link::answer::shown,
    local_api::wire::{Reply, Request},
    reach::Reach,
};

/// How long streams may live on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);
/// Added to a port that only root may open: 22 becomes 10022.
const UNPRIVILEGED: u16 = 10_000;
/// How long cut streams may take to tell their peers.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Open a local port for each TCP and UDP route (or only for those named) and keep them open until Ctrl-C.
///
/// Each has a loopback address of its own, the same each time. Without names, ports come and go with the routes that the
/// gateway lists for you.
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
    /// Reach the routes by their names and own ports, through a network device: the daemon's if it has one, else as root or with CAP_NET_ADMIN
    #[cfg(target_os = "linux")]
    #[arg(long, conflicts_with = "save")]
    tun: bool,
    /// With --tun: leave alone whom this machine asks for names
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "tun")]
    no_dns: bool,
    /// With --tun: switch the daemon's network device off
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "tun")]
    off: bool,
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
        #[cfg(target_os = "linux")]
        if self.tun {
            match super::tun::holder(&reach).await? {
                line if self.off => return super::tun::off(line).await,
                Some(line) => return super::tun::on(line, &reach, self.routes, !self.no_dns).await,
                None => {}
            }
        }
        let routes = tokio::select! {
            routes = reach.routes() => routes?,
            stopped = stop_signal() => return stopped,
        };
        remember(reach.gateway());
        let (mut forwards, mut rows, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        let chosen = chosen(&routes, &self.routes, reach.gateway())?;
        if self.save {
            return save(&reach, chosen.into_iter().map(to_be_kept)).await;
        }
        #[cfg(target_os = "linux")]
        if self.tun {
            return Box::pin(super::tun::serve(reach, chosen, self.routes, !self.no_dns, tracker)).await;
        }
        for route in chosen {
            let forward = bind_near(&route).await?;
            let local = forward.local()?;
            if let Some(note) = moved(&route, local) {
                tell(&note);
            }
            let destination = route.target.destination.to_string();
            rows.push(Row { name: route.name.clone(), local, destination, streams: 0 });
            forwards.push(forward);
            opened.push(route);
        }
        let follows = self.routes.is_empty().then_some(opened);
        run(reach, forwards, follows, Arc::new(Board::new(rows)), tracker).await
    }
}

fn to_be_kept(route: Chosen) -> Saved {
    let leads = route.leads();
    let Chosen { mut name, is_udp, target } = route;
    // An app may have the same port for both, and names in the file are one forward's each.
    if is_udp && !name.ends_with(UDP_SUFFIX) {
        name.push_str(UDP_SUFFIX);
    }
    let listen = saved::address_of(&target.gateway, &target.destination);
    Saved { name, gateway: target.gateway, leads, listen }
}

/// Keeps forwards in the file, beside those that are there, and lets the daemon know.
pub(super) async fn save(reach: &Reach, new: impl IntoIterator<Item = Saved>) -> Result<(), Failure> {
    let path = forwards_file().ok_or(Failure::NoSettings)?;
    let mut all = daemon::forwards::read(&path)?;
    let mut told = String::new();
    for new in new {
        told.push_str(&format!("{}: {} leads to {}\n", shown(&new.name), new.listen, new.leads.account()));
        all.retain(|old| !old.is_in_the_way_of(&new));
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

/// The first place for a route that can be had.
async fn bind_near(route: &Chosen) -> Result<Opened, Failure> {
    for place in places(route) {
        match bind(route, place).await {
            Err(Failure::Listen { .. }) => {}
            bound => return bound,
        }
    }
    bind(route, SocketAddr::from(([127, 0, 0, 1], 0))).await
}

/// Where a route may listen, the best first: on its own loopback address at its own port, where a forward that is kept would be too;
/// there at a port that needs no privilege; and where systems have no such addresses, on the one that all have.
fn places(route: &Chosen) -> [SocketAddr; 3] {
    let own = saved::address_of(&route.target.gateway, &route.target.destination);
    let port = own.port();
    let free = SocketAddr::new(own.ip(), port.checked_add(UNPRIVILEGED).unwrap_or(port));
    [own, free, SocketAddr::from(([127, 0, 0, 1], port))]
}

async fn bind(route: &Chosen, at: SocketAddr) -> Result<Opened, Failure> {
    let to = route.target.destination.clone();
    Ok(match route.is_udp {
        true => Opened::Udp(UdpForward::bind(at, to).await?),
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

/// Listeners at work.
struct Running {
    reach: Arc<Reach>,
    board: Arc<Board>,
    streams: TaskTracker,
    listeners: TaskTracker,
    stop: Stop,
}

impl Running {
    /// Begins to accept for a row of the board, until what this returns is cancelled.
    fn start(&self, row: usize, forward: Opened) -> CancellationToken {
        let accepting = self.stop.accepting.child_token();
        let stop = Stop { accepting: accepting.clone(), streams: self.stop.streams.clone() };
        let (board, streams, reach) =
            (Arc::clone(&self.board), self.streams.clone(), Arc::clone(&self.reach));
        match forward {
            Opened::Tcp(forward) => {
                self.listeners.spawn(forward.run(reach, Arc::new(BoardRow { board, row }), streams, stop))
            }
            Opened::Proxy(proxy) => {
                self.listeners.spawn(proxy.run(reach, Arc::new(BoardRow { board, row }), streams, stop))
            }
            // Datagrams go by this process's own connection.
            Opened::Udp(forward) => {
                let seen = Arc::new(BoardRow { board, row });
                self.listeners.spawn(forward.run(Arc::clone(reach.own()), seen, stop.accepting))
            }
        };
        accepting
    }
}

/// Runs forwards until Ctrl-C, then drains them.
pub(super) async fn serve(
    reach: Arc<Reach>,
    forwards: Vec<Opened>,
    board: Arc<Board>,
    connections: TaskTracker,
) -> Result<(), Failure> {
    run(reach, forwards, None, board, connections).await
}

/// The same; with `follows`, which are the routes of these forwards, they come and go with the gateway's list.
async fn run(
    reach: Arc<Reach>,
    forwards: Vec<Opened>,
    follows: Option<Vec<Chosen>>,
    board: Arc<Board>,
    connections: TaskTracker,
) -> Result<(), Failure> {
    let (stop, streams, listeners) = (Stop::default(), TaskTracker::new(), TaskTracker::new());
    board.show();
    let running = Running { reach, board, streams, listeners, stop };
    let started = forwards.into_iter().enumerate().map(|(row, forward)| (row, running.start(row, forward)));
    let started: Vec<_> = started.collect();
    let follows = follows.map(|routes| {
        let mut all = All::of(running.reach.gateway().clone());
        routes.into_iter().zip(started).for_each(|(route, (row, accepting))| all.add(route, row, accepting));
        all
    });
    until_stopped(&running, follows).await?;
    let Running { reach, board, streams, listeners, stop } = running;
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

async fn until_stopped(running: &Running, follows: Option<All>) -> Result<(), Failure> {
    let (reach, board) = (&running.reach, &running.board);
    let (lists, listed) = watch::channel(None);
    let following = async {
        match follows {
            Some(mut all) => all.follow(listed, running).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        stopped = stop_signal() => stopped,
        () = reach.keep_up(board) => Ok(()),
        () = reach.own().keep_reporting() => Ok(()),
        () = reach.own().keep_warning(|told| board.tell(told)) => Ok(()),
        () = reach.keep_following(&lists, |told| board.tell(told)) => Ok(()),
        () = following => Ok(()),
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
    use crate::target::Target;

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
}
