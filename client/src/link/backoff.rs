//! When to dial again: exponential, capped, with jitter. Pure; the random number is an argument.

use std::time::Duration;

/// The first pause at most.
const FIRST: Duration = Duration::from_millis(250);
/// No pause is longer.
const CAP: Duration = Duration::from_secs(15);

/// Failures in a row, and the pause that they call for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: the pause before the next attempt, between half and all of 250 ms · 2ⁿ, at most 15 s.
    ///
    /// `random` is any evenly spread number; it keeps many clients from coming back in step.
    pub(crate) fn after_failure(&mut self, random: u16) -> Duration {
        let full = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        half + half * u32::from(random) / u32::from(u16::MAX)
    }
}

/// How long somebody goes on trying: what the attempts take counts as well as the pauses between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    left: Duration,
    backoff: Backoff,
}

impl Patience {
    /// Patience for so long.
    pub(crate) fn of(left: Duration) -> Self {
        Self { left, backoff: Backoff::default() }
    }

    /// An attempt failed that `took` so long: the pause before the next one, or that it was the last.
    pub(crate) fn after_failure(&mut self, took: Duration, random: u16) -> Option<Duration> {
        let pause = self.backoff.after_failure(random);
        self.left = self.left.checked_sub(took + pause)?;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..9).map(|_| backoff.after_failure(u16::MAX).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
    }

    #[test]
    fn patience_ends_also_where_each_attempt_takes_long() {
        let mut patience = Patience::of(Duration::from_secs(30));
        let tries =
            (0..99).take_while(|_| patience.after_failure(Duration::from_secs(9), 0).is_some()).count();
        assert_eq!(tries, 3);
        assert_eq!(Patience::of(Duration::ZERO).after_failure(Duration::ZERO, 0), None);
    }

    proptest! {
        #[test]
        fn a_pause_is_never_zero_and_never_above_the_cap(randoms in prop::collection::vec(any::<u16>(), 1..80)) {
            let mut backoff = Backoff::default();
            for random in randoms {
                let pause = backoff.after_failure(random);
                prop_assert!(pause >= FIRST / 2 && pause <= CAP);
            }
        }
    }
}
