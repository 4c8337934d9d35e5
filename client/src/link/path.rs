//! Watches the path of one connection. Where nothing comes back, or this machine has another address by now, a new socket is
//! bound: from it QUIC tells the gateway where its client is (RFC 9000, 9), and the streams go on.
//!
//! When to do so is decided in [`Watch`], which is pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use pomerium_shared::{clock::Now, quic};
use tokio::{sync::watch, time::sleep};

/// Between two looks while packets move.
const BUSY_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks while nothing does.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);
/// Without an answer for so long, the path is in doubt: longer than any round trip and a lost packet or two.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two attempts to be heard again.
const REBIND_INTERVAL: Duration = Duration::from_secs(2);
/// The wall clock ahead of the other by so much: the machine slept.
const SLEPT: Duration = Duration::from_secs(5);

/// What a look shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Frames sent that the other end must answer.
    pub(crate) asked: u64,
    /// Datagrams that came.
    pub(crate) heard: u64,
    /// The address that packets to the gateway leave from; `None` while there is no way at all.
    pub(crate) source: Option<IpAddr>,
}

/// Why a new socket is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Address,
    Silence,
    Sleep,
}

/// What has been seen of a path.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Seen,
    looked: Now,
    /// Since when an answer is due.
    waiting: Option<Instant>,
    rebound: Option<Instant>,
    is_busy: bool,
    is_doubtful: bool,
}

impl Watch {
    pub(crate) const fn new(seen: Seen, now: Now) -> Self {
        Self { seen, looked: now, waiting: None, rebound: None, is_busy: true, is_doubtful: false }
    }

    /// Takes a look in; says whether a new socket is called for.
    pub(crate) fn look(&mut self, seen: Seen, now: Now) -> Option<Why> {
        let has_heard = seen.heard != self.seen.heard;
        self.is_busy = has_heard || seen.asked != self.seen.asked;
        if has_heard {
            (self.waiting, self.rebound, self.is_doubtful) = (None, None, false);
        } else if seen.asked != self.seen.asked && self.waiting.is_none() {
            self.waiting = Some(now.monotonic);
        }
        let has_moved = seen.source.is_some() && seen.source != self.seen.source;
        let has_slept = slept(self.looked, now);
        // An address that went away is compared with the next one there is.
        self.seen = Seen { source: seen.source.or(self.seen.source), ..seen };
        self.looked = now;
        let is_silent = self.waiting.is_some_and(|since| now.monotonic.duration_since(since) >= SILENCE);
        // Who slept does not know whether the connection still lives.
        self.is_doubtful |= is_silent || has_slept;
        let may_again = self.rebound.is_none_or(|last| now.monotonic.duration_since(last) >= REBIND_INTERVAL);
        let why = match (has_moved, has_slept, is_silent && may_again) {
            (true, _, _) => Some(Why::Address),
            (_, true, _) => Some(Why::Sleep),
            (_, _, true) => Some(Why::Silence),
            _ => None,
        };
        if why.is_some() {
            self.rebound = Some(now.monotonic);
        }
        why
    }

    /// Whether the connection is to be doubted.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// When to look again.
    pub(crate) const fn interval(&self) -> Duration {
        if self.is_busy || self.is_doubtful { BUSY_INTERVAL } else { QUIET_INTERVAL }
    }
}

/// Whether the machine slept between two moments.
pub(super) fn slept(before: Now, now: Now) -> bool {
    let on_the_wall = now.wall.duration_since(before.wall).unwrap_or_default();
    on_the_wall.saturating_sub(now.monotonic.duration_since(before.monotonic)) >= SLEPT
}

/// Watches until the connection is gone, and tells whether the gateway's silence puts it in doubt.
pub(super) async fn keep(endpoint: quinn::Endpoint, quic: quinn::Connection, doubt: watch::Sender<bool>) {
    let mut watch = Watch::new(see(&quic), Now::read());
    let mut interval = watch.interval();
    loop {
        tokio::select! {
            _gone = quic.closed() => return,
            () = sleep(interval) => {}
        }
        let why = watch.look(see(&quic), Now::read());
        doubt.send_if_modified(|told| std::mem::replace(told, watch.is_doubtful()) != watch.is_doubtful());
        if let Some(why) = why {
            rebind(&endpoint, &quic, why);
        }
        interval = watch.interval();
    }
}

fn see(connection: &quinn::Connection) -> Seen {
    let stats = connection.stats();
    let sent = &stats.frame_tx;
    let asked = sent.stream + sent.ping + sent.datagram + sent.max_data + sent.max_stream_data;
    Seen { asked, heard: stats.udp_rx.datagrams, source: source(connection.remote_address()) }
}

fn rebind(endpoint: &quinn::Endpoint, connection: &quinn::Connection, why: Why) {
    quic::nudge(connection);
    let bound = quic::bind(any_for(connection.remote_address())).and_then(|socket| endpoint.rebind(socket));
    match bound {
        Ok(()) => tracing::debug!(?why, "a new socket to be heard from"),
        Err(error) => tracing::debug!(?why, %error, "no new socket"),
    }
}

/// Any address of the same family.
pub(super) fn any_for(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv6() { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() }
}

/// The address that packets to `remote` leave from now. Nothing is sent to find out.
pub(super) fn source(remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(any_for(remote)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The addresses that this machine has on the way to each of a gateway's, which may be of both families; `None` where there
/// is no way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sources(Vec<Option<IpAddr>>);

impl Sources {
    /// As of now.
    pub(super) fn towards(gateway: &[SocketAddr]) -> Self {
        Self(gateway.iter().copied().map(source).collect())
    }

    /// Whether one of them is another than it was. One that goes or comes is no other.
    pub(super) fn have_changed_from(&self, before: &Self) -> bool {
        self.0.iter().zip(&before.0).any(|pair| matches!(pair, (Some(now), Some(before)) if now != before))
    }

    /// Whether there is a way that was not there, or not from this address.
    pub(super) fn have_more_than(&self, before: &Self) -> bool {
        let before = before.0.iter().copied().chain(std::iter::repeat(None));
        self.0.iter().zip(before).any(|(now, before)| now.is_some() && *now != before)
    }

    /// These, and in place of those that are missing what was there before.
    pub(super) fn or(self, before: &Self) -> Self {
        let before = before.0.iter().copied().chain(std::iter::repeat(None));
        let all = self.0.into_iter().zip(before).map(|(now, before)| now.or(before));
        Self(all.collect())
    }
}

#[cfg(test)]
impl Sources {
    /// These.
    pub(crate) fn of(all: impl IntoIterator<Item = Option<IpAddr>>) -> Self {
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    const CAFE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)));

    struct Path {
        watch: Watch,
        seen: Seen,
        now: Now,
    }

    impl Path {
        fn new() -> Self {
            let (seen, now) = (Seen { asked: 1, heard: 1, source: HOME }, Now::read());
            Self { watch: Watch::new(seen, now), seen, now }
        }

        fn after(&mut self, awake: Duration, asleep: Duration) -> Option<Why> {
            self.now = Now { monotonic: self.now.monotonic + awake, wall: self.now.wall + awake + asleep };
            self.watch.look(self.seen, self.now)
        }

        fn second(&mut self) -> Option<Why> {
            self.after(Duration::from_secs(1), Duration::ZERO)
        }
    }

    #[test]
    fn a_quiet_path_is_left_alone() {
        let mut path = Path::new();
        for _ in 0..100 {
            assert_eq!(path.second(), None);
        }
        assert!(!path.watch.is_doubtful);
    }

    #[test]
    fn a_path_that_answers_is_left_alone() {
        let mut path = Path::new();
        for _ in 0..100 {
            path.seen.asked += 10;
            path.seen.heard += 1;
            assert_eq!(path.second(), None);
        }
        assert!(!path.watch.is_doubtful);
    }

    #[test]
    fn silence_calls_for_a_socket_every_two_seconds_until_an_answer() {
        let mut path = Path::new();
        path.seen.asked += 1;
        let attempts: Vec<_> = (0..10).map(|_| path.second().is_some()).collect();
        assert_eq!(
            attempts,
            [false, false, false, true, false, true, false, true, false, true],
            "after three seconds, then every second one"
        );
        assert!(path.watch.is_doubtful);
        path.seen.heard += 1;
        assert_eq!(path.second(), None);
        assert!(!path.watch.is_doubtful);
    }

    #[test]
    fn another_address_calls_for_a_socket_at_once() {
        let mut path = Path::new();
        path.seen.source = None;
        assert_eq!(path.second(), None, "no address is no reason");
        path.seen.source = HOME;
        assert_eq!(path.second(), None, "the same as before");
        path.seen.source = CAFE;
        assert_eq!(path.second(), Some(Why::Address));
        assert_eq!(path.second(), None);
    }

    #[test]
    fn who_slept_doubts_until_an_answer() {
        let mut path = Path::new();
        assert_eq!(path.after(Duration::from_secs(1), Duration::from_secs(3600)), Some(Why::Sleep));
        assert!(path.watch.is_doubtful);
        path.seen.heard += 1;
        assert_eq!(path.second(), None);
        assert!(!path.watch.is_doubtful);
    }

    #[test]
    fn every_address_of_the_gateway_shows_that_this_machine_has_moved() {
        let home = Sources::of([None, HOME]);
        let cafe = Sources::of([None, CAFE]);
        assert!(cafe.have_changed_from(&home), "the first one has no way, the second one tells");
        for (now, before) in
            [([None, None], [None, HOME]), ([CAFE, HOME], [None, HOME]), ([None, HOME], [None, HOME])]
        {
            assert!(!Sources::of(now).have_changed_from(&Sources::of(before)), "{now:?} {before:?}");
        }
        assert!(Sources::of([CAFE, HOME]).have_more_than(&home) && cafe.have_more_than(&home));
        assert!(!home.have_more_than(&home) && !Sources::of([None, None]).have_more_than(&home));
        assert!(home.have_more_than(&Sources::default()), "there was no network");
        // On the way from one network to another there is none.
        assert!(cafe.have_changed_from(&Sources::of([None, None]).or(&home)));
    }

    #[test]
    fn the_source_is_an_address_of_ours() {
        assert_eq!(source(([127, 0, 0, 1], 9).into()), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
