//! How much may be on the way: what a model of the path says, in place of a count of losses.
//!
//! Reno and CUBIC take each loss for a full queue: where the air loses one packet in a hundred and the path is 40 ms long, they
//! stay at 3 Mbit/s whatever the path carries. This is BBR (Cardwell, Swett, Beshay, draft-ietf-ccwg-bbr) reduced to what a window
//! can do, as quinn paces by the window and knows no rate. The window is what the path carries, by the best of the last rounds, in
//! its shortest round trip, and a little more, which finds out whether it carries more. Every few seconds it is less for a moment:
//! the queue empties, and shows how long the path is. Losses count where a round has many of them.

use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Octets that may be on the way before anything is known (RFC 9002, 7.2).
pub(super) const INITIAL_WINDOW: u64 = 14_720;
/// Packets that always may be on the way: fewer would not tell a loss from a pause.
const WINDOW_MIN_PACKETS: u64 = 4;
/// More than any path holds; a rate measured over nothing would let everything out.
const WINDOW_MAX: u64 = 1 << 30;

/// Rounds of which the best rate counts.
const ROUNDS: usize = 10;
/// A round takes a round trip, and this at least: on short paths the scheduler would be measured.
const ROUND_MIN: Duration = Duration::from_millis(2);
/// What hosts and radios wait beside the way itself.
const JITTER: Duration = Duration::from_millis(5);

/// The window to what the path holds, in percent: while its rate still has to be found, then, and while its length is looked at.
const GAIN_OF_START: u64 = 200;
const GAIN: u64 = 125;
const GAIN_OF_DRAIN: u64 = 75;

/// Rounds without a quarter more that end the start.
const STALLED_ROUNDS: u32 = 3;
/// Between two looks at the path's length.
const DRAIN_INTERVAL: Duration = Duration::from_millis(2_500);
/// One empties the queue, the other measures without it.
const DRAIN_ROUNDS: u32 = 2;

/// A round in which more than a twentieth is lost, and so many packets, overran a queue.
const LOST_PACKETS_TOLERATED: u64 = 8;
const LOST_PART_TOLERATED: u64 = 20;

/// The model of one path in one direction. It reads no clock and sends nothing.
#[derive(Debug, Clone)]
pub(super) struct PathModel {
    mtu: u64,
    round: Option<Round>,
    /// Octets a second of the last rounds, of which one that the app kept short counts only if it was the best.
    rates: [u64; ROUNDS],
    next_rate: usize,
    length: Length,
    start: Option<Start>,
    drain: Drain,
    /// What losses leave of the window, until it is found to be too little.
    ceiling: Option<u64>,
    /// The round before overran a queue: what this one loses is still of the same burst.
    is_cut: bool,
    floor: u64,
}

/// From one moment until something sent after it has arrived.
#[derive(Debug, Clone)]
struct Round {
    begun_at: Instant,
    arrived: u64,
    lost: u64,
    /// A router said that its queue is long (ECN).
    is_marked: bool,
    is_kept_short_by_app: bool,
    is_over: bool,
}

/// The shortest round trips between the last looks, and since.
#[derive(Debug, Clone, Default)]
struct Length {
    before: Option<Duration>,
    since: Option<Duration>,
}

/// As long as each round carries a quarter more than the best before.
#[derive(Debug, Clone, Default)]
struct Start {
    best: u64,
    stalled: u32,
}

#[derive(Debug, Clone)]
enum Drain {
    /// At this moment; `None`: a while after the first round.
    Next(Option<Instant>),
    /// For so many rounds more.
    Now(u32),
}

impl PathModel {
    /// Nothing is known of the path but the octets of a packet.
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            mtu: u64::from(mtu),
            round: None,
            rates: [0; ROUNDS],
            next_rate: 0,
            length: Length::default(),
            start: Some(Start::default()),
            drain: Drain::Next(None),
            ceiling: None,
            is_cut: false,
            floor: INITIAL_WINDOW,
        }
    }

    /// It may be another path from here on.
    pub(super) fn restart(&mut self) {
        *self = Self { mtu: self.mtu, ..Self::new(0) };
    }

    /// Nothing got through for a while (RFC 9002, 7.6).
    pub(super) fn collapse(&mut self) {
        self.restart();
        self.floor = self.window_min();
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    /// A packet of `len` octets, sent at `sent_at`, has arrived.
    pub(super) fn arrived(&mut self, now: Instant, sent_at: Instant, len: u64, is_kept_short_by_app: bool) {
        self.length.add(now.saturating_duration_since(sent_at));
        let round = self.round.get_or_insert_with(|| Round::new(now));
        round.arrived += len;
        round.is_kept_short_by_app |= is_kept_short_by_app;
        round.is_over |= sent_at >= round.begun_at && now >= round.begun_at + ROUND_MIN;
    }

    /// `len` octets are lost; none: a router says that its queue is long.
    pub(super) fn lost(&mut self, now: Instant, len: u64) {
        let round = self.round.get_or_insert_with(|| Round::new(now));
        round.lost += len;
        round.is_marked |= len == 0;
    }

    /// All that one acknowledgement says has been told.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        if let Some(round) = self.round.take_if(|round| round.is_over) {
            self.end_round(now, &round);
            self.round = Some(Round::new(now));
        }
    }

    /// Octets that may be on the way: four packets at least.
    pub(super) fn window(&self) -> u64 {
        let (gain, jitter) = match (&self.start, &self.drain) {
            (Some(_), _) => (GAIN_OF_START, JITTER),
            (None, Drain::Now(_)) => (GAIN_OF_DRAIN, Duration::ZERO),
            (None, Drain::Next(_)) => (GAIN, JITTER),
        };
        let held = self.held_in(self.length.shortest().unwrap_or_default() + jitter, gain);
        let floor = if self.start.is_some() { self.floor } else { 0 };
        held.max(floor).min(self.ceiling.unwrap_or(WINDOW_MAX)).clamp(self.window_min(), WINDOW_MAX)
    }

    /// What the path carries in `time`, times `percent`.
    fn held_in(&self, time: Duration, percent: u64) -> u64 {
        let held = u128::from(self.rate()) * time.as_micros() * u128::from(percent) / 100_000_000;
        u64::try_from(held).unwrap_or(u64::MAX)
    }

    fn rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    fn window_min(&self) -> u64 {
        WINDOW_MIN_PACKETS * self.mtu
    }

    fn end_round(&mut self, now: Instant, round: &Round) {
        let rate = round.rate(now);
        let is_telling = !round.is_kept_short_by_app;
        if is_telling || rate > self.rate() {
            self.rates[self.next_rate] = rate;
            self.next_rate = (self.next_rate + 1) % ROUNDS;
        }
        let overran = round.overran(self.mtu) && !self.is_cut;
        self.end_round_of_start(rate, is_telling, overran);
        self.end_round_of_ceiling(overran);
        if is_telling {
            self.end_round_of_drain(now);
        }
    }

    fn end_round_of_start(&mut self, rate: u64, is_telling: bool, overran: bool) {
        let Some(start) = &mut self.start else { return };
        if rate.saturating_mul(4) >= start.best.saturating_mul(5) {
            *start = Start { best: rate, stalled: 0 };
        } else if is_telling {
            start.stalled += 1;
        }
        if overran || start.stalled >= STALLED_ROUNDS {
            self.start = None;
        }
    }

    fn end_round_of_ceiling(&mut self, overran: bool) {
        self.is_cut = overran;
        if overran {
            self.ceiling = Some((self.window() * 7 / 10).max(self.window_min()));
        } else if let Some(ceiling) = self.ceiling.take() {
            let is_needed = ceiling < self.held_in(self.length.shortest().unwrap_or_default() + JITTER, GAIN);
            self.ceiling = is_needed.then(|| ceiling + (ceiling / 16).max(self.mtu));
        }
    }

    fn end_round_of_drain(&mut self, now: Instant) {
        let next = || Drain::Next(Some(now + DRAIN_INTERVAL));
        self.drain = match self.drain {
            Drain::Next(None) => next(),
            Drain::Next(Some(at)) if now < at => return,
            Drain::Next(Some(_)) => Drain::Now(DRAIN_ROUNDS),
            Drain::Now(rounds) if rounds > 1 => Drain::Now(rounds - 1),
            Drain::Now(_) => {
                self.length.look();
                next()
            }
        };
    }
}

impl Round {
    fn new(now: Instant) -> Self {
        Self {
            begun_at: now,
            arrived: 0,
            lost: 0,
            is_marked: false,
            is_kept_short_by_app: false,
            is_over: false,
        }
    }

    /// Octets a second.
    fn rate(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begun_at).as_micros().max(1);
        u64::try_from(u128::from(self.arrived) * 1_000_000 / elapsed).unwrap_or(u64::MAX)
    }

    fn overran(&self, mtu: u64) -> bool {
        let is_lossy = self.lost > LOST_PACKETS_TOLERATED * mtu
            && self.lost.saturating_mul(LOST_PART_TOLERATED) > self.arrived + self.lost;
        is_lossy || self.is_marked
    }
}

impl Length {
    fn add(&mut self, round_trip: Duration) {
        self.since = Some(self.since.map_or(round_trip, |since| since.min(round_trip)));
    }

    /// The queue was empty: what is older than the look before need not be true any more.
    fn look(&mut self) {
        self.before = self.since.take();
    }

    fn shortest(&self) -> Option<Duration> {
        self.before.into_iter().chain(self.since).min()
    }
}
