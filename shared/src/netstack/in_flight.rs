//! How much a connection may have on its way.
//!
//! smoltcp's congestion control fills a path until something is lost, and without selective acknowledgements a burst of losses costs
//! whole seconds. So the sender is held before that: it may have on its way what the path holds, and a bounded [queue](QUEUE)
//! where the path is narrowest, told by how much longer than at best an answer takes (the window of FAST TCP: Wei, Jin, Low and
//! Hegde, IEEE/ACM Transactions on Networking 14(6), 2006). Congestion control goes on below it.

use std::time::{Duration, Instant};

/// Octets that may wait where the path is narrowest. Less than a UDP socket holds by default, as that of the peer's tunnel does.
const QUEUE: usize = 48 * 1024;
/// Octets on their way while the path itself is looked at.
const LOOK: usize = 16 * 1024;
/// Between two looks at the path itself: it may have become another.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What one connection has on its way, and may have.
#[derive(Debug)]
pub(super) struct InFlight {
    limit: usize,
    max: usize,
    /// Octets that were ever taken to be sent.
    written: u64,
    probe: Option<Probe>,
    /// How long an answer takes when nothing waits.
    best: Option<Duration>,
    looked_at: Option<Instant>,
    /// The path itself is being looked at.
    is_looking: bool,
}

/// A write whose answer is waited for.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// The answer covers so many octets.
    until: u64,
    at: Instant,
    in_flight: usize,
}

impl InFlight {
    /// Nothing on its way, and at most `max` octets ever.
    pub(super) fn new(max: usize) -> Self {
        let limit = max.min(QUEUE);
        Self { limit, max, written: 0, probe: None, best: None, looked_at: None, is_looking: false }
    }

    /// How many octets may be added where `queued` are not acknowledged yet.
    pub(super) fn room(&self, queued: usize) -> usize {
        let limit = if self.is_looking { self.limit.min(LOOK) } else { self.limit };
        limit.saturating_sub(queued)
    }

    /// So many octets were added; `queued` are not acknowledged, these among them.
    pub(super) fn wrote(&mut self, octets: usize, queued: usize, now: Instant) {
        self.written += u64::try_from(octets).unwrap_or(0);
        if self.probe.is_none() {
            self.probe = Some(Probe { until: self.written, at: now, in_flight: queued });
        }
    }

    /// Something came from the peer, and `queued` octets are not acknowledged yet.
    pub(super) fn heard(&mut self, queued: usize, now: Instant) {
        let acknowledged = self.written.saturating_sub(u64::try_from(queued).unwrap_or(u64::MAX));
        if let Some(probe) = self.probe.take_if(|probe| probe.until <= acknowledged) {
            self.answered(probe, now);
        }
    }

    fn answered(&mut self, probe: Probe, now: Instant) {
        // No path is that fast, and zero divides nothing.
        let took = now.saturating_duration_since(probe.at).max(Duration::from_micros(10));
        if self.is_looking {
            // What was on its way when the look began says nothing.
            if probe.in_flight <= LOOK {
                (self.is_looking, self.best, self.looked_at) = (false, Some(took), Some(now));
            }
            return;
        }
        let best = self.best.map_or(took, |best| best.min(took));
        self.best = Some(best);
        // Who writes little learns nothing of what there is room for.
        if probe.in_flight < self.limit / 2 {
            return;
        }
        let share = best.as_secs_f64() / took.as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most a window, times at most 1"
        )]
        let without_queue = (probe.in_flight as f64 * share) as usize;
        self.limit = usize::midpoint(self.limit, without_queue + QUEUE).min(self.max);
        let looked_at = *self.looked_at.get_or_insert(now);
        self.is_looking = now.saturating_duration_since(looked_at) >= LOOK_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::clock::Now;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A path that somebody uses who always has more to say.
    struct Path {
        now: Instant,
        /// Octets that its narrowest place lets through a millisecond, and what waits there.
        rate: usize,
        queue: usize,
        longest_queue: usize,
        /// How long it takes there and back, and what arrives when.
        delay: Duration,
        on_way: VecDeque<(Instant, usize)>,
        not_acknowledged: usize,
    }

    impl Path {
        fn new(rate: usize, delay: u32) -> Self {
            let now = Now::read().monotonic;
            let (queue, longest_queue, not_acknowledged) = (0, 0, 0);
            let on_way = VecDeque::new();
            Self { now, rate, queue, longest_queue, delay: delay * MILLISECOND, on_way, not_acknowledged }
        }

        /// Uses it for so many milliseconds; the octets that were acknowledged.
        fn carry(&mut self, of: &mut InFlight, milliseconds: usize) -> usize {
            let mut acknowledged = 0;
            for _ in 0..milliseconds {
                let octets = of.room(self.not_acknowledged);
                if octets > 0 {
                    self.not_acknowledged += octets;
                    self.queue += octets;
                    of.wrote(octets, self.not_acknowledged, self.now);
                }
                let passes = self.queue.min(self.rate);
                self.queue -= passes;
                self.longest_queue = self.longest_queue.max(self.queue);
                self.on_way.push_back((self.now + self.delay, passes));
                self.now += MILLISECOND;
                while let Some((_, octets)) = self.on_way.pop_front_if(|(at, _)| *at <= self.now) {
                    self.not_acknowledged -= octets;
                    acknowledged += octets;
                }
                of.heard(self.not_acknowledged, self.now);
            }
            acknowledged
        }
    }

    #[test]
    fn a_path_is_filled_and_its_narrowest_place_is_not_flooded() {
        for (rate, delay) in [(30_000, 2), (10_000, 40), (1_000, 20)] {
            let (mut path, mut in_flight) = (Path::new(rate, delay), InFlight::new(512 * 1024));
            path.carry(&mut in_flight, 2_000);
            let octets = path.carry(&mut in_flight, 5_000);
            assert!(octets >= 5_000 * rate * 9 / 10, "{rate}: {octets}");
            assert!(path.longest_queue <= 2 * QUEUE, "{rate}: {}", path.longest_queue);
        }
    }

    #[test]
    fn a_path_that_has_become_another_is_filled_again() {
        let (mut path, mut in_flight) = (Path::new(4_000, 2), InFlight::new(512 * 1024));
        for delay in [2, 80, 2] {
            path.delay = delay * MILLISECOND;
            path.carry(&mut in_flight, 60_000);
            let octets = path.carry(&mut in_flight, 60_000);
            assert!(octets >= 60_000 * path.rate * 9 / 10, "{delay}: {octets}");
        }
    }

    #[test]
    fn who_writes_little_is_held_back_by_nothing() {
        let mut in_flight = InFlight::new(512 * 1024);
        let mut now = Now::read().monotonic;
        for _ in 0..10_000 {
            in_flight.wrote(100, 100, now);
            now += MILLISECOND;
            in_flight.heard(0, now);
            assert!(in_flight.room(0) >= QUEUE);
        }
    }
}
