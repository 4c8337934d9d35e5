use pomerium_shared::clock::Now;
use proptest::prelude::*;

use super::*;
use crate::config::Probe;

fn check(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
    HealthCheck {
        timeout: Duration::from_secs(1),
        interval: Duration::from_secs(10),
        unhealthy_threshold,
        healthy_threshold,
        probe: Probe::Tcp { send: Vec::new(), receive: Vec::new() },
    }
}

const DETECTION: OutlierDetection = OutlierDetection {
    consecutive_5xx: Some(3),
    consecutive_gateway_failure: Some(2),
    base_ejection_time: Duration::from_secs(30),
    max_ejection_time: Duration::from_secs(75),
    max_ejection_percent: 50,
};

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn an_upstream_goes_out_and_comes_in_at_the_thresholds() {
    let now = Now::read().monotonic;
    let mut health = Health::new(2, 1, None, 0);
    let by = check(3, 2);
    let mut found = |passed| (health.checked(0, 0, passed, &by), health.is_in(0, now));
    let results = [false, false, true, false, false, false, true, false, true, true];
    let states = results.map(&mut found);
    let changes: Vec<usize> = (0..10).filter(|n| states[*n].0).collect();
    assert_eq!(changes, [5, 9]);
    assert!(states.iter().enumerate().all(|(n, state)| state.1 != (5..9).contains(&n)), "{states:?}");
    assert!(health.is_in(1, now), "the other was not touched");
}

#[test]
fn an_upstream_is_in_only_when_all_its_checks_say_so() {
    let now = Now::read().monotonic;
    let mut health = Health::new(1, 2, None, 0);
    let by = check(1, 1);
    assert!(health.checked(0, 1, false, &by) && !health.is_in(0, now));
    assert!(!health.checked(0, 0, true, &by) && !health.is_in(0, now));
    assert!(health.checked(0, 1, true, &by) && health.is_in(0, now));
}

#[test]
fn failures_in_a_row_eject_for_ever_longer_and_the_past_is_forgotten() {
    let start = Now::read().monotonic;
    let mut health = Health::new(3, 0, Some(DETECTION), 0);
    let mut fail = |at| (0..2).filter_map(|_| health.answered(0, Outcome::GatewayError, at)).next();
    assert_eq!(fail(start), Some(Duration::from_secs(30)));
    assert_eq!(fail(after(start, 29)), None, "it is out already");
    assert_eq!(fail(after(start, 31)), Some(Duration::from_secs(60)));
    assert_eq!(fail(after(start, 92)), Some(Duration::from_secs(75)), "no longer than the longest");
    assert_eq!(fail(after(start, 92 + 75 + 75)), Some(Duration::from_secs(30)), "it stayed in for long");
}

#[test]
fn a_good_answer_between_failures_ejects_nobody() {
    let now = Now::read().monotonic;
    let mut health = Health::new(2, 0, Some(DETECTION), 0);
    for outcome in [Outcome::ServerError, Outcome::ServerError, Outcome::Fine, Outcome::GatewayError] {
        assert_eq!(health.answered(0, outcome, now), None);
    }
    assert_eq!(health.answered(0, Outcome::ServerError, now), None);
    assert_eq!(health.answered(0, Outcome::ServerError, now), Some(Duration::from_secs(30)));
}

#[test]
fn nothing_is_ejected_unless_asked_for() {
    let now = Now::read().monotonic;
    let mut health = Health::new(2, 0, None, 0);
    assert!((0..100).all(|_| health.answered(0, Outcome::GatewayError, now).is_none()));
}

#[test]
fn with_too_few_in_all_are_tried_only_if_the_operator_said_so() {
    let now = Now::read().monotonic;
    for (panic_threshold, expected) in
        [(0, [false, false, true]), (30, [false, false, true]), (50, [true; 3])]
    {
        let mut health = Health::new(3, 1, None, panic_threshold);
        health.checked(0, 0, false, &check(1, 1));
        health.checked(1, 0, false, &check(1, 1));
        let usable = health.usable(now);
        assert_eq!([0, 1, 2].map(usable), expected, "{panic_threshold} %");
    }
}

#[test]
fn what_is_known_of_an_upstream_outlives_a_reload() {
    let now = Now::read().monotonic;
    let mut old = Health::new(2, 1, None, 0);
    old.checked(1, 0, false, &check(1, 1));
    let mut new = Health::new(1, 1, None, 0);
    new.take_over(0, &old, 1);
    assert!(!new.is_in(0, now));
    let mut unlike = Health::new(1, 0, None, 0);
    unlike.take_over(0, &old, 1);
    assert!(unlike.is_in(0, now), "nobody checks it any more");
}

#[test]
fn checks_are_spread_around_their_interval() {
    let interval = Duration::from_secs(10);
    assert_eq!(jittered(interval, 0), Duration::from_secs(9));
    assert_eq!(jittered(interval, 200), Duration::from_secs(11));
    assert!(jittered(Duration::MAX, u64::MAX) > Duration::ZERO);
}

proptest! {
    #[test]
    fn ejection_never_takes_the_last_nor_more_than_it_may(
        members in 1_usize..6,
        events in prop::collection::vec((0_usize..6, 0_u8..3, 0_u64..40), 0..200),
    ) {
        let mut health = Health::new(members, 0, Some(DETECTION), 0);
        let mut now = Now::read().monotonic;
        for (place, outcome, seconds) in events {
            now = after(now, seconds);
            let outcome = [Outcome::Fine, Outcome::ServerError, Outcome::GatewayError][usize::from(outcome)];
            health.answered(place % members, outcome, now);
            let out = (0..members).filter(|place| !health.is_in(*place, now)).count();
            prop_assert!(out < members && out <= (members / 2).max(1));
        }
    }
}
