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
