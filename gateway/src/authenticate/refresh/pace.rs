//! Whom to ask the provider about, how many at once, and how long its silence is borne: no I/O, the moment is an
//! argument.
//!
//! One silent answer means an outage: then a single session probes, ever less often, until the provider answers again.
//! So nobody is asked about twice in a hurry, and a provider that comes back is not run over.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use pomerium_shared::clock::Now;

use crate::session::SessionId;

/// Refreshes under way at once.
pub(super) const AT_ONCE_MAX: usize = 8;
/// The first wait after a failure; doubles with each further one.
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

/// What one question about one session came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The provider stands by the session.
    Yes,
    /// The provider does not: the session ends.
    No,
    /// It answered something that says neither.
    Unclear,
    /// It cannot be reached, or is in trouble.
    Silent,
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    /// The provider said no.
    Refused,
    /// The provider has not vouched for it for too long.
    GraceOver,
}

/// What to do in one round, by the places in the list that was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To ask about, in this order.
    pub(super) ask: Vec<usize>,
    /// To end without asking: nobody answers, and their grace is over.
    pub(super) end: Vec<usize>,
}

/// What the refresh loop knows of the provider.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long a session outlives what its provider vouched for, while the provider cannot be asked.
    grace: Duration,
    outage: Option<Wait>,
    /// Of sessions whose last answer was none; one batch at most.
    waits: HashMap<SessionId, Wait>,
}

/// Not to be tried before `until`, after this many failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    failures: u32,
    until: Instant,
}

impl Pace {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, outage: None, waits: HashMap::new() }
    }

    /// How many may be asked about at once: one, while the provider is silent.
    pub(super) fn at_once(&self) -> usize {
        if self.outage.is_some() { 1 } else { AT_ONCE_MAX }
    }

    /// Sorts what is due (each with the moment up to which the provider vouched for it, the most urgent first).
    pub(super) fn plan(&mut self, due: &[(&SessionId, SystemTime)], now: Now) -> Plan {
        // What is no longer due has no wait: the map is never larger than one batch.
        self.waits.retain(|id, _| due.iter().any(|(due, _)| *due == id));
        let mut plan = Plan::default();
        for (place, (id, vouched_until)) in due.iter().enumerate() {
            let wait = self.waits.get(*id);
            let has_failed = wait.is_some() || self.outage.is_some();
            if has_failed && self.is_grace_over(*vouched_until, now) {
                plan.end.push(place);
            } else if wait.is_none_or(|wait| wait.until <= now.monotonic) {
                plan.ask.push(place);
            }
        }
        if let Some(outage) = self.outage {
            // The probe is whoever failed least: one session that always fails must not hold up the others.
            plan.ask.sort_by_key(|place| self.failures(due[*place].0));
            plan.ask.truncate(usize::from(outage.until <= now.monotonic));
        }
        plan
    }

    /// Takes an answer in. `jitter` is random.
    pub(super) fn note(
        &mut self,
        id: &SessionId,
        vouched_until: SystemTime,
        answer: Answer,
        now: Now,
        jitter: u8,
    ) -> Fate {
        match answer {
            Answer::Yes | Answer::No => {
                self.waits.remove(id);
                self.outage = None;
                return if answer == Answer::Yes { Fate::Keep } else { Fate::Refused };
            }
            Answer::Unclear => {}
            Answer::Silent => self.outage = Some(next_wait(self.outage, now, jitter)),
        }
        if self.is_grace_over(vouched_until, now) {
            self.waits.remove(id);
            return Fate::GraceOver;
        }
        let wait = next_wait(self.waits.get(id).copied(), now, jitter);
        self.waits.insert(id.clone(), wait);
        Fate::Keep
    }

    fn failures(&self, id: &SessionId) -> u32 {
        self.waits.get(id).map_or(0, |wait| wait.failures)
    }

    fn is_grace_over(&self, vouched_until: SystemTime, now: Now) -> bool {
        // A sum that no clock can reach is no end at all; the session's own end remains.
        vouched_until.checked_add(self.grace).is_some_and(|end| end <= now.wall)
    }
}

fn next_wait(last: Option<Wait>, now: Now, jitter: u8) -> Wait {
    let failures = last.map_or(0, |wait| wait.failures).saturating_add(1);
    Wait { failures, until: now.monotonic + back_off(failures, jitter) }
}

/// Doubles with each failure up to a cap; `jitter` takes up to a half off, so that sessions and gateways spread.
fn back_off(failures: u32, jitter: u8) -> Duration {
    let doubled = BACK_OFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACK_OFF_MAX);
    doubled - doubled * u32::from(jitter) / 512
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(900);

    #[test]
    fn the_wait_grows_to_its_cap_and_never_below_half() {
        assert_eq!(back_off(1, 0), BACK_OFF_MIN);
        assert_eq!(back_off(2, 0), 2 * BACK_OFF_MIN);
        assert_eq!(back_off(u32::MAX, 0), BACK_OFF_MAX);
        for failures in [1, 5, 40] {
            assert!(back_off(failures, 255) >= back_off(failures, 0) / 2);
        }
    }

    #[test]
    fn without_grace_nothing_outlives_what_the_provider_vouched_for() {
        let (now, id) = (Now::read(), SessionId::new("s"));
        let mut pace = Pace::new(Duration::ZERO);
        let later = now.wall + Duration::from_secs(1);
        assert_eq!(pace.note(&id, later, Answer::Silent, now, 0), Fate::Keep, "its token still counts");
        assert_eq!(pace.note(&id, now.wall, Answer::Silent, now, 0), Fate::GraceOver);
    }

    #[test]
    fn after_a_restart_an_overdue_session_is_asked_about_before_it_is_ended() {
        let (now, id) = (Now::read(), SessionId::new("s"));
        let mut pace = Pace::new(GRACE);
        let due = [(&id, now.wall - 2 * GRACE)];
        assert_eq!(pace.plan(&due, now), Plan { ask: vec![0], end: vec![] });
        assert_eq!(pace.note(&id, due[0].1, Answer::Silent, now, 0), Fate::GraceOver);
    }

    #[test]
    fn one_session_that_always_fails_does_not_keep_the_others_waiting() {
        let (mut now, bad, good) = (Now::read(), SessionId::new("bad"), SessionId::new("good"));
        let mut pace = Pace::new(GRACE);
        let due = [(&bad, now.wall), (&good, now.wall)];
        pace.note(&bad, now.wall, Answer::Silent, now, 0);
        now.monotonic += BACK_OFF_MIN;
        assert_eq!(pace.plan(&due, now).ask, [1], "the other one probes");
        pace.note(&good, now.wall, Answer::Yes, now, 0);
        assert_eq!(pace.at_once(), AT_ONCE_MAX);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Provider(Answer),
        Round,
    }

    fn step() -> impl Strategy<Value = Step> {
        let answer =
            prop_oneof![Just(Answer::Yes), Just(Answer::No), Just(Answer::Unclear), Just(Answer::Silent)];
        prop_oneof![
            (0_u64..400).prop_map(Step::Pass),
            answer.prop_map(Step::Provider),
            Just(Step::Round),
            Just(Step::Round),
        ]
    }

    proptest! {
        /// Against a model that knows only when each session was vouched for.
        #[test]
        fn sessions_end_by_a_no_or_by_silence_beyond_grace_and_by_nothing_else(
            steps in proptest::collection::vec(step(), 1..60), jitter: u8, grace in 0_u64..2_000,
        ) {
            let grace = Duration::from_secs(grace);
            let ids: Vec<SessionId> = (0..20).map(|n| SessionId::new(n.to_string())).collect();
            let mut now = Now::read();
            let mut vouched: BTreeMap<&SessionId, SystemTime> = ids.iter().map(|id| (id, now.wall)).collect();
            let mut pace = Pace::new(grace);
            let mut provider = Answer::Yes;
            let mut silent_before = false;
            for step in steps {
                match step {
                    Step::Pass(seconds) => {
                        now.wall += Duration::from_secs(seconds);
                        now.monotonic += Duration::from_secs(seconds);
                    }
                    Step::Provider(answer) => provider = answer,
                    Step::Round => {
                        let due: Vec<_> = vouched.iter().map(|(id, until)| (*id, *until)).collect();
                        let plan = pace.plan(&due, now);
                        if silent_before {
                            prop_assert!(plan.ask.len() <= 1, "a silent provider is probed, not run over");
                        }
                        for place in plan.end {
                            prop_assert!(due[place].1 + grace <= now.wall);
                            vouched.remove(due[place].0);
                        }
                        for place in plan.ask {
                            let (id, until) = due[place];
                            match pace.note(id, until, provider, now, jitter) {
                                Fate::Keep if provider == Answer::Yes => _ = vouched.insert(id, now.wall + Duration::from_secs(300)),
                                Fate::Keep => prop_assert!(provider != Answer::No && until + grace > now.wall),
                                Fate::Refused => {
                                    prop_assert_eq!(provider, Answer::No);
                                    vouched.remove(id);
                                }
                                Fate::GraceOver => {
                                    prop_assert!(matches!(provider, Answer::Silent | Answer::Unclear) && until + grace <= now.wall);
                                    vouched.remove(id);
                                }
                            }
                            silent_before = match provider {
                                Answer::Silent => true,
                                Answer::Unclear => silent_before,
                                Answer::Yes | Answer::No => false,
                            };
                            prop_assert_eq!(pace.at_once(), if silent_before { 1 } else { AT_ONCE_MAX });
                            // The caller starts nothing more in a round in which the provider fell silent.
                            if silent_before { break; }
                        }
                        if silent_before {
                            let overdue = vouched.values().filter(|until| **until + grace <= now.wall).count();
                            let due: Vec<_> = vouched.iter().map(|(id, until)| (*id, *until)).collect();
                            prop_assert_eq!(pace.plan(&due, now).end.len(), overdue, "none outlives its grace in an outage");
                        }
                    }
                }
            }
        }
    }
}
