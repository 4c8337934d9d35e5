//! For how long something stays open while nobody says whether it may. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Asked again all the while: a process that decides may be started anew within it. No longer, or whoever keeps the two
/// processes apart keeps somebody in.
const UNANSWERED_MAX: Duration = Duration::from_secs(5);

/// Between two questions while there is no answer.
pub(super) const UNANSWERED_INTERVAL: Duration = Duration::from_millis(250);

/// Counts from the first question that got no answer.
#[derive(Debug, Default)]
pub(super) struct Patience {
    unanswered_since: Option<Instant>,
}

impl Patience {
    /// For how long an answer to a question of `asked` may be waited for.
    pub(super) fn left(&self, asked: Instant) -> Duration {
        let since = self.unanswered_since.unwrap_or(asked);
        (since + UNANSWERED_MAX).saturating_duration_since(asked)
    }

    /// Somebody said yes.
    pub(super) const fn answered(&mut self) {
        self.unanswered_since = None;
    }

    /// There was no answer to a question of `asked`; tells whether another may be put.
    pub(super) fn unanswered(&mut self, asked: Instant) -> bool {
        let goes_on = !self.left(asked).is_zero();
        self.unanswered_since.get_or_insert(asked);
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use pomerium_shared::clock::Now;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_outlives_the_last_answer_by_more_than_the_limit(
            answers in prop::collection::vec((1_u64..2_000, any::<bool>()), 1..60),
        ) {
            let (mut patience, mut now) = (Patience::default(), Now::read().monotonic);
            let mut first_unanswered = None;
            for (ms, is_answered) in answers {
                now += Duration::from_millis(ms);
                let waits = now.duration_since(*first_unanswered.get_or_insert(now));
                prop_assert_eq!(patience.left(now), UNANSWERED_MAX.saturating_sub(waits));
                if is_answered {
                    first_unanswered = None;
                    patience.answered();
                } else if !patience.unanswered(now) {
                    prop_assert!(waits >= UNANSWERED_MAX);
                    return Ok(());
                } else {
                    prop_assert!(waits < UNANSWERED_MAX);
                }
            }
        }
    }
}
