//! What leads to a gateway now, and when to dial again. Pure: clock and random number are arguments, and of a connection only
//! what [`Carries`] says is known.

use std::{
    mem,
    time::{Duration, Instant},
};

use pomerium_shared::clock::Now;

use super::{
    backoff::Backoff,
    path::{Sources, slept},
};

/// Who waits for an answer is worth an attempt so often, however long the gateway has been away.
pub(crate) const WAITING_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Behind a captive portal whoever it is for is looked for again so often: people sign in there in a moment.
const PORTAL_PAUSE: Duration = Duration::from_secs(3);
/// A way that is lost sooner than this counts as an attempt that failed: a gateway that takes connections and drops them is
/// not dialled as fast as it can drop them.
const STEADY: Duration = Duration::from_secs(10);
/// How long TCP serves before UDP is tried again.
pub(crate) const UDP_AGAIN_AFTER: Duration = Duration::from_secs(120);

/// A connection, as far as deciding needs it.
pub(crate) trait Carries {
    /// Whether it takes new streams.
    fn is_open(&self) -> bool;
    /// Whether the gateway has been silent for too long.
    fn is_doubtful(&self) -> bool;
}

/// For whom a way is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Somebody waits for an answer.
    ByWaiting,
    /// Nobody does: it is to be there when somebody comes.
    ForLater,
}

/// How the gateway is spoken to: over QUIC, by a connection `Q`, or over TCP for as long as `T` is kept.
#[derive(Debug)]
pub(crate) enum Carrier<Q, T> {
    None,
    Quic(Q),
    Tcp(T),
}

/// What new streams find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing<'a, Q> {
    /// A connection that takes them.
    Quic(&'a Q),
    /// A connection that may come back; who waits races it against a new one.
    InDoubt(&'a Q),
    /// TCP, a connection for each.
    Tcp,
    /// Nothing: dial, after [`Line::pause`].
    Gone,
}

/// The way to one gateway, and what is known of the attempts to find it.
#[derive(Debug)]
pub(crate) struct Line<Q, T> {
    carrier: Carrier<Q, T>,
    /// When the carrier was reached.
    since: Option<Instant>,
    backoff: Backoff,
    pause: Option<Pause>,
    /// The page of the captive portal that the last attempt met.
    portal: Option<String>,
}

/// For how long nobody dials.
#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Instant,
    for_waiting: Duration,
    for_later: Duration,
}

impl<Q, T> Default for Line<Q, T> {
    fn default() -> Self {
        Self { carrier: Carrier::None, since: None, backoff: Backoff::default(), pause: None, portal: None }
    }
}

impl<Q: Carries, T> Line<Q, T> {
    /// An attempt got through: its way is used from now on. Gives what there was, whose streams are to end in peace.
    pub(crate) fn reached(&mut self, carrier: Carrier<Q, T>, now: Now) -> Carrier<Q, T> {
        (self.since, self.pause, self.portal) = (Some(now.monotonic), None, None);
        mem::replace(&mut self.carrier, carrier)
    }

    /// An attempt begins, by somebody who may leave before it ends: what it costs is counted at once.
    pub(crate) fn begun(&mut self, random: u16, now: Now) {
        self.pause(random, true, now);
    }

    /// The attempt failed: its pause begins now. What there is stays, for what is in doubt may come back.
    pub(crate) fn failed(&mut self, now: Now) {
        self.portal = None;
        if let Some(pause) = &mut self.pause {
            pause.since = now.monotonic;
        }
    }

    /// The attempt met a captive portal. It says nothing of the gateway: nobody is kept waiting longer and longer.
    pub(crate) fn held_by_portal(&mut self, page: String, now: Now) {
        (self.portal, self.backoff) = (Some(page), Backoff::default());
        let (for_waiting, for_later) = (WAITING_PAUSE_MAX, PORTAL_PAUSE);
        self.pause = Some(Pause { since: now.monotonic, for_waiting, for_later });
    }

    /// TCP serves no more either.
    pub(crate) fn tcp_failed(&mut self, random: u16, now: Now) {
        if matches!(self.carrier, Carrier::Tcp(_)) {
            self.carrier = Carrier::None;
            self.lost(random, now);
        }
    }

    /// Takes out a connection that takes no new streams, if there is one; its old ones are to end in peace.
    pub(crate) fn ended(&mut self, random: u16, now: Now) -> Option<Q> {
        if !matches!(&self.carrier, Carrier::Quic(quic) if !quic.is_open()) {
            return None;
        }
        self.lost(random, now);
        match mem::replace(&mut self.carrier, Carrier::None) {
            Carrier::Quic(quic) => Some(quic),
            Carrier::Tcp(_) | Carrier::None => None,
        }
    }

    /// Forgets what there is, and gives it to be closed.
    pub(crate) fn close(&mut self) -> Carrier<Q, T> {
        mem::take(self).carrier
    }

    /// What new streams find.
    pub(crate) fn standing(&self) -> Standing<'_, Q> {
        match &self.carrier {
            Carrier::Quic(quic) if !quic.is_open() => Standing::Gone,
            Carrier::Quic(quic) if quic.is_doubtful() => Standing::InDoubt(quic),
            Carrier::Quic(quic) => Standing::Quic(quic),
            Carrier::Tcp(_) => Standing::Tcp,
            Carrier::None => Standing::Gone,
        }
    }

    /// Whether anything was found, and nobody closed it since.
    pub(crate) const fn is_used(&self) -> bool {
        !matches!(self.carrier, Carrier::None)
    }

    /// The page of the captive portal that the last attempt met.
    pub(crate) fn portal(&self) -> Option<&str> {
        self.portal.as_deref()
    }

    /// How long to wait before the next attempt; zero if it may begin now.
    pub(crate) fn pause_of(&self, wanted: Wanted, now: Now) -> Duration {
        let Some(pause) = self.pause else { return Duration::ZERO };
        let whole = match wanted {
            Wanted::ByWaiting => pause.for_waiting,
            Wanted::ForLater => pause.for_later,
        };
        whole.saturating_sub(now.monotonic.saturating_duration_since(pause.since))
    }

    /// A way was lost. After a steady one, who waits need not wait longer; all others come back a little apart, for it may be
    /// the gateway that went.
    fn lost(&mut self, random: u16, now: Now) {
        let was_steady =
            self.since.is_some_and(|since| now.monotonic.saturating_duration_since(since) >= STEADY);
        if was_steady {
            self.backoff = Backoff::default();
        }
        self.pause(random, !was_steady, now);
    }

    fn pause(&mut self, random: u16, is_for_all: bool, now: Now) {
        let for_later = self.backoff.after_failure(random);
        let for_waiting = if is_for_all { for_later.min(WAITING_PAUSE_MAX) } else { Duration::ZERO };
        self.pause = Some(Pause { since: now.monotonic, for_waiting, for_later });
    }
}

/// When to try UDP again while TCP serves: now and then, and wherever this machine comes to.
#[derive(Debug)]
pub(crate) struct WayBack {
    tried: Now,
    looked: Now,
    here: Sources,
}

impl WayBack {
    /// UDP was tried just now, from the addresses `here`.
    pub(crate) const fn after(here: Sources, now: Now) -> Self {
        Self { tried: now, looked: now, here }
    }

    /// Whether to try again, now that packets would leave from `here`; without an address there is nowhere to try from.
    pub(crate) fn is_due(&mut self, here: &Sources, now: Now) -> bool {
        let has_slept = slept(self.looked, now);
        self.looked = now;
        let has_moved = here.have_more_than(&self.here);
        let is_long_ago = now.monotonic.saturating_duration_since(self.tried.monotonic) >= UDP_AGAIN_AFTER;
        has_moved || has_slept || is_long_ago
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Fake {
        is_open: bool,
        is_doubtful: bool,
    }

    const WELL: Fake = Fake { is_open: true, is_doubtful: false };

    impl Carries for Fake {
        fn is_open(&self) -> bool {
            self.is_open
        }

        fn is_doubtful(&self) -> bool {
            self.is_doubtful
        }
    }

    fn after(now: Now, passed: Duration) -> Now {
        Now { monotonic: now.monotonic + passed, wall: now.wall + passed }
    }

    #[test]
    fn who_waits_is_never_kept_for_long_and_all_others_ever_longer() {
        let (mut line, mut now) = (Line::<Fake, ()>::default(), Now::read());
        assert_eq!(line.pause_of(Wanted::ByWaiting, now), Duration::ZERO, "the first one dials at once");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            line.begun(u16::MAX, now);
            now = after(now, Duration::from_secs(20));
            line.failed(now);
            let of = |wanted| line.pause_of(wanted, now);
            assert_eq!(of(Wanted::ByWaiting), of(Wanted::ForLater).min(WAITING_PAUSE_MAX));
            pauses.push(of(Wanted::ForLater).as_millis());
            now = after(now, of(Wanted::ForLater));
            assert_eq!(line.pause_of(Wanted::ForLater, now), Duration::ZERO);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
    }

    #[test]
    fn behind_a_portal_nobody_waits_longer_and_longer_and_nothing_is_left_of_it_afterwards() {
        let (mut line, mut now) = (Line::<Fake, ()>::default(), Now::read());
        for _ in 0..8 {
            line.begun(u16::MAX, now);
            line.failed(now);
        }
        for _ in 0..100 {
            line.begun(u16::MAX, now);
            now = after(now, Duration::from_secs(5));
            line.held_by_portal("http://wifi.example/".to_owned(), now);
            assert_eq!(line.pause_of(Wanted::ForLater, now), PORTAL_PAUSE);
            assert_eq!(line.pause_of(Wanted::ByWaiting, now), WAITING_PAUSE_MAX);
            now = after(now, PORTAL_PAUSE);
        }
        assert_eq!(line.portal(), Some("http://wifi.example/"));
        line.begun(u16::MAX, now);
        line.failed(now);
        assert_eq!((line.portal(), line.pause_of(Wanted::ForLater, now)), (None, Duration::from_millis(250)));
        line.held_by_portal("http://wifi.example/".to_owned(), now);
        line.reached(Carrier::Quic(WELL), now);
        assert_eq!((line.portal(), line.pause_of(Wanted::ForLater, now)), (None, Duration::ZERO));
    }

    #[test]
    fn a_gateway_that_drops_what_it_takes_is_not_dialled_ever_faster() {
        let (mut line, mut now) = (Line::<Fake, ()>::default(), Now::read());
        let mut dials = 0;
        let end = after(now, Duration::from_secs(3600));
        while now.monotonic < end.monotonic {
            dials += 1;
            line.reached(Carrier::Quic(Fake { is_open: false, ..WELL }), now);
            assert!(line.ended(0, now).is_some());
            now = after(now, line.pause_of(Wanted::ForLater, now));
        }
        assert!(dials < 600, "{dials} in an hour");
    }

    #[test]
    fn after_a_steady_connection_who_waits_dials_at_once_and_others_a_little_later() {
        let (mut line, now) = (Line::<Fake, ()>::default(), Now::read());
        for _ in 0..9 {
            line.begun(0, now);
        }
        line.reached(Carrier::Quic(Fake { is_open: false, ..WELL }), now);
        let later = after(now, STEADY);
        line.ended(0, later);
        assert_eq!(line.pause_of(Wanted::ByWaiting, later), Duration::ZERO);
        assert_eq!(line.pause_of(Wanted::ForLater, later), Duration::from_millis(125));
    }

    #[test]
    fn a_connection_in_doubt_is_kept_and_one_that_ended_is_handed_over() {
        let (mut line, now) = (Line::<Fake, ()>::default(), Now::read());
        let in_doubt = Fake { is_doubtful: true, ..WELL };
        line.reached(Carrier::Quic(in_doubt), now);
        line.begun(0, now);
        line.failed(now);
        assert_eq!(line.standing(), Standing::InDoubt(&in_doubt), "it may come back");
        assert!(line.ended(0, now).is_none());
        assert!(matches!(line.reached(Carrier::Quic(WELL), now), Carrier::Quic(old) if old == in_doubt));
        assert_eq!(line.standing(), Standing::Quic(&WELL));
        line.tcp_failed(0, now);
        assert!(line.is_used(), "that was about TCP");
    }

    #[test]
    fn udp_is_tried_again_in_time_elsewhere_and_after_sleep() {
        let now = Now::read();
        let [home, cafe] = [Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST]
            .map(|address| Sources::of([None, Some(IpAddr::V4(address))]));
        let nowhere = Sources::default();
        let back = || WayBack::after(home.clone(), now);
        let soon = after(now, Duration::from_secs(2));
        assert!(!back().is_due(&home, soon) && !back().is_due(&nowhere, soon));
        assert!(back().is_due(&cafe, soon));
        assert!(WayBack::after(nowhere, now).is_due(&home, soon), "there is a network again");
        assert!(back().is_due(&home, after(now, UDP_AGAIN_AFTER)));
        assert!(back().is_due(&home, Now { wall: now.wall + Duration::from_secs(60), ..soon }));
    }
}
