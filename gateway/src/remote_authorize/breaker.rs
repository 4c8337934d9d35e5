//! A circuit breaker: whether an address that has failed again and again is asked at all. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// Failures in a row after which an address is left alone.
const FAILURES_MAX: u32 = 5;

/// For how long it is first left alone, twice as long after each try in vain. Short: until then everything is refused, and
/// a process that starts again is up within a second.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// For how long at most.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Decides for one address.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Counts changes of state: what was begun before one says nothing of the time after it.
    era: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everything passes.
    Closed { failures: u32 },
    /// Nothing passes until then.
    Open { until: Instant, pause: Duration },
    /// One question passes, to see whether somebody is there again.
    HalfOpen { pause: Duration },
}

/// May ask once, and has to tell how it went.
#[derive(Debug)]
#[must_use = "a breaker that is not told stays as it is"]
pub(super) struct Pass {
    era: u64,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The other side answered.
    Answered,
    /// It did not.
    Failed,
    /// Nobody waited for it.
    Abandoned,
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// From now on the address is left alone for a while.
    Opened,
    /// It is asked again as before.
    Closed,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, era: 0 }
    }

    /// Lets a question pass, or not.
    pub(super) fn enter(&mut self, now: Instant) -> Option<Pass> {
        match self.state {
            State::Closed { .. } => Some(Pass { era: self.era }),
            State::Open { until, pause } if until <= now => {
                self.turn(State::HalfOpen { pause });
                Some(Pass { era: self.era })
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Takes note of how a question went.
    pub(super) fn leave(&mut self, pass: &Pass, outcome: Outcome, now: Instant) -> Option<Change> {
        if pass.era != self.era {
            return None;
        }
        match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Answered) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failed) if failures + 1 < FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
            }
            (State::Closed { .. }, Outcome::Failed) => {
                self.turn(State::Open { until: now + PAUSE_MIN, pause: PAUSE_MIN });
                return Some(Change::Opened);
            }
            (State::HalfOpen { .. }, Outcome::Answered) => {
                self.turn(State::Closed { failures: 0 });
                return Some(Change::Closed);
            }
            (State::HalfOpen { pause }, Outcome::Failed) => {
                let pause = (pause * 2).min(PAUSE_MAX);
                self.turn(State::Open { until: now + pause, pause });
            }
            // Nothing was learnt: the next may try at once.
            (State::HalfOpen { pause }, Outcome::Abandoned) => self.turn(State::Open { until: now, pause }),
            (State::Closed { .. }, Outcome::Abandoned) | (State::Open { .. }, _) => {}
        }
        None
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

#[cfg(test)]
mod tests {
    use pomerium_shared::clock::Now;
    use proptest::prelude::*;

    use super::*;

    fn fail(breaker: &mut Breaker, now: Instant, times: u32) -> Option<Change> {
        let mut last = None;
        for _ in 0..times {
            let pass = breaker.enter(now).expect("closed");
            last = breaker.leave(&pass, Outcome::Failed, now);
        }
        last
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_try_that_is_answered_closes_it() {
        let (mut breaker, now) = (Breaker::new(), Now::read().monotonic);
        assert_eq!(fail(&mut breaker, now, FAILURES_MAX - 1), None);
        let pass = breaker.enter(now).unwrap();
        assert_eq!(breaker.leave(&pass, Outcome::Answered, now), None);
        assert_eq!(fail(&mut breaker, now, FAILURES_MAX - 1), None, "they were not in a row");
        assert_eq!(fail(&mut breaker, now, 1), Some(Change::Opened));
        assert!(breaker.enter(now + PAUSE_MIN - Duration::from_millis(1)).is_none());
        let later = now + PAUSE_MIN;
        let probe = breaker.enter(later).expect("one may try");
        assert!(breaker.enter(later).is_none(), "and nobody else");
        assert_eq!(breaker.leave(&probe, Outcome::Answered, later), Some(Change::Closed));
        assert!(breaker.enter(later).is_some() && breaker.enter(later).is_some());
    }

    #[test]
    fn tries_in_vain_come_further_and_further_apart_up_to_a_limit() {
        let (mut breaker, mut now) = (Breaker::new(), Now::read().monotonic);
        fail(&mut breaker, now, FAILURES_MAX);
        let mut pause = PAUSE_MIN;
        for _ in 0..10 {
            assert!(breaker.enter(now + pause - Duration::from_millis(1)).is_none(), "{pause:?}");
            now += pause;
            let probe = breaker.enter(now).expect("one may try");
            assert_eq!(breaker.leave(&probe, Outcome::Failed, now), None);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(pause, PAUSE_MAX);
    }

    #[test]
    fn what_began_before_it_opened_neither_closes_it_nor_counts_again() {
        let (mut breaker, now) = (Breaker::new(), Now::read().monotonic);
        let old = [breaker.enter(now).unwrap(), breaker.enter(now).unwrap()];
        fail(&mut breaker, now, FAILURES_MAX);
        assert_eq!(breaker.leave(&old[0], Outcome::Answered, now), None);
        assert!(breaker.enter(now).is_none());
        let probe = breaker.enter(now + PAUSE_MIN).unwrap();
        assert_eq!(breaker.leave(&old[1], Outcome::Failed, now + PAUSE_MIN), None);
        assert_eq!(breaker.leave(&probe, Outcome::Answered, now + PAUSE_MIN), Some(Change::Closed));
    }

    #[test]
    fn a_try_that_nobody_waited_for_makes_room_for_another() {
        let (mut breaker, now) = (Breaker::new(), Now::read().monotonic);
        fail(&mut breaker, now, FAILURES_MAX);
        let later = now + PAUSE_MIN;
        let probe = breaker.enter(later).unwrap();
        assert_eq!(breaker.leave(&probe, Outcome::Abandoned, later), None);
        assert!(breaker.enter(later).is_some());
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Enter,
        Leave { which: usize, outcome: Outcome },
        Pass { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![Just(Outcome::Answered), Just(Outcome::Failed), Just(Outcome::Abandoned)];
        prop_oneof![
            3 => Just(Step::Enter),
            3 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Leave { which, outcome }),
            1 => (0_u64..6_000).prop_map(|ms| Step::Pass { ms }),
        ]
    }

    proptest! {
        #[test]
        fn it_opens_only_after_failures_lets_one_try_and_never_stays_shut(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let (mut breaker, mut now) = (Breaker::new(), Now::read().monotonic);
            let mut out: Vec<Pass> = Vec::new();
            let mut failures = 0_u32;
            for step in steps {
                match step {
                    Step::Pass { ms } => now += Duration::from_millis(ms),
                    Step::Enter => {
                        let was_closed = matches!(breaker.state, State::Closed { .. });
                        let pass = breaker.enter(now);
                        prop_assert!(pass.is_some() || !was_closed, "a closed one lets everything pass");
                        out.extend(pass);
                    }
                    Step::Leave { which, outcome } if !out.is_empty() => {
                        let pass = out.swap_remove(which % out.len());
                        failures += u32::from(outcome == Outcome::Failed);
                        let change = breaker.leave(&pass, outcome, now);
                        if change == Some(Change::Opened) {
                            prop_assert!(failures >= FAILURES_MAX);
                        }
                        prop_assert!(change != Some(Change::Closed) || outcome == Outcome::Answered);
                        if change.is_some() {
                            failures = 0;
                        }
                    }
                    Step::Leave { .. } => {}
                }
                let trying = out.iter().filter(|pass| pass.era == breaker.era).count();
                match breaker.state {
                    State::HalfOpen { .. } => prop_assert_eq!(trying, 1),
                    State::Open { until, pause } => {
                        prop_assert!(trying == 0 && pause >= PAUSE_MIN && pause <= PAUSE_MAX);
                        prop_assert!(until <= now + PAUSE_MAX);
                    }
                    State::Closed { failures } => prop_assert!(failures < FAILURES_MAX),
                }
            }
            // Whatever happened: once everybody has told, and the longest pause is over, somebody may ask.
            for pass in out {
                breaker.leave(&pass, Outcome::Failed, now);
            }
            prop_assert!(breaker.enter(now + PAUSE_MAX).is_some());
        }
    }
}
