//! Dates, days, times and ages; what a clock that jumps does to them; and when to ask again.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::{
    super::{CheckRequest, Policy},
    alice, allow, asked_by, at, is, laptop, now,
};
use crate::session::Session;

fn value(criterion: &str, moment: &str) -> bool {
    allow(criterion, &at(moment, asked_by(None))).0
}

#[test]
fn a_date_holds_from_its_first_moment_until_just_before_its_last() {
    let march = "date: {after: 2026-03-01, before: 2026-04-01}";
    for (moment, expected) in [
        ("2026-02-28T23:59:59.999999999Z", false),
        ("2026-03-01T00:00:00Z", true),
        ("2026-03-31T23:59:59Z", true),
        ("2026-04-01T00:00:00Z", false),
    ] {
        assert_eq!(value(march, moment), expected, "{moment}");
        let in_zurich = "date: {after: 2026-03-01, before: 2026-04-01, timezone: Europe/Zurich}";
        let earlier = "2026-02-28T23:00:00Z";
        assert!(value(in_zurich, earlier) && !value(march, earlier));
    }
    assert!(value("date: {after: 2026-03-01T09:00:00+01:00}", "2026-03-01T08:00:00Z"));
    assert!(!value("date: {after: 2026-03-01T09:00:00+01:00}", "2026-03-01T07:59:59Z"));
    assert!(value("date: {before: 2026-03-01T09:00}", "2026-03-01T08:59:59Z"));
    let check = at("2026-03-01T00:00:00Z", asked_by(None));
    assert_eq!(allow(march, &check), is(true, "date-ok"));
    assert_eq!(allow("date: {before: 2026-03-01}", &check), is(false, "date-unauthorized"));
}

#[test]
fn days_of_the_week_are_a_list_a_range_or_all() {
    // 2026-03-01 is a Sunday.
    let week = ["02", "03", "04", "05", "06", "07", "01"];
    for (criterion, expected) in [
        ("day_of_week: '*'", "mon tue wed thu fri sat sun"),
        ("day_of_week: mon-fri", "mon tue wed thu fri"),
        ("day_of_week: mon,wed", "mon wed"),
        ("day_of_week: Fri-Mon", "mon fri sat sun"),
        ("day_of_week: mon-tue, sat", "mon tue sat"),
        ("day_of_week: sun-sun", "sun"),
    ] {
        let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let matched: Vec<_> = days
            .iter()
            .zip(week)
            .filter(|(_, day)| value(criterion, &format!("2026-03-{day}T12:00:00Z")))
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(matched.join(" "), expected, "{criterion}");
    }
    let check = at("2026-03-01T12:00:00Z", asked_by(None));
    assert_eq!(allow("day_of_week: sun", &check), is(true, "day-of-week-ok"));
    assert_eq!(allow("day_of_week: mon", &check), is(false, "day-of-week-unauthorized"));
}

#[test]
fn a_day_begins_where_the_policy_says() {
    let moment = "2026-03-01T23:30:00Z";
    assert!(value("day_of_week: sun", moment));
    assert!(value("day_of_week: {is: mon, timezone: Europe/Zurich}", moment));
    assert!(value("day_of_week: {is: sun, timezone: America/New_York}", moment));
}

#[test]
fn a_time_of_day_is_read_from_the_wall_of_its_zone() {
    let office = "time_of_day: {timezone: Europe/Zurich, after: 9AM, before: 5:30 PM}";
    for (moment, expected) in [
        ("2026-01-15T07:59:59Z", false),
        ("2026-01-15T08:00:00Z", true),
        ("2026-01-15T16:29:59.999Z", true),
        ("2026-01-15T16:30:00Z", false),
        ("2026-07-15T06:59:59Z", false),
        ("2026-07-15T07:00:00Z", true),
    ] {
        assert_eq!(value(office, moment), expected, "{moment}");
    }
    let check = at("2026-01-15T08:00:00Z", asked_by(None));
    assert_eq!(allow(office, &check), is(true, "time-of-day-ok"));
    let check = at("2026-01-15T18:00:00Z", asked_by(None));
    assert_eq!(allow(office, &check), is(false, "time-of-day-unauthorized"));
}

#[test]
fn a_time_of_day_may_go_over_midnight() {
    let night = "time_of_day: {timezone: UTC, after: 22:00, before: '06:00'}";
    for (time, expected) in
        [("21:59:59", false), ("22:00:00", true), ("00:00:00", true), ("05:59:59", true), ("06:00:00", false)]
    {
        assert_eq!(value(night, &format!("2026-03-01T{time}Z")), expected, "{time}");
    }
    assert!(value("time_of_day: {timezone: UTC, after: 22:00}", "2026-03-01T23:00:00Z"));
    assert!(!value("time_of_day: {timezone: UTC, after: 22:00}", "2026-03-02T00:00:00Z"));
    assert!(value("time_of_day: {timezone: UTC, before: '06:00'}", "2026-03-02T00:00:00Z"));
}

#[test]
fn each_way_to_write_a_time_means_what_it_says() {
    for (text, begins) in [
        ("12AM", "00:00:00"),
        ("12:30 am", "00:30:00"),
        ("3PM", "15:00:00"),
        ("3:04 PM", "15:04:00"),
        ("12 pm", "12:00:00"),
        ("15:04", "15:04:00"),
        ("15:04:05", "15:04:05"),
        ("15:04:05.250", "15:04:05.25"),
        ("9:30", "09:30:00"),
    ] {
        let criterion = format!("time_of_day: {{timezone: UTC, after: '{text}'}}");
        assert!(value(&criterion, &format!("2026-03-01T{begins}Z")), "{text}");
        let before: jiff::Timestamp = format!("2026-03-01T{begins}Z").parse().unwrap();
        let before = before - jiff::SignedDuration::from_nanos(1);
        assert_eq!(value(&criterion, &before.to_string()), text.starts_with("12AM"), "{text}");
    }
}

/// In Zurich, 02:00 to 03:00 did not exist on 2026-03-29 and came twice on 2026-10-25.
#[test]
fn an_hour_that_is_skipped_is_no_time_and_one_that_is_repeated_counts_twice() {
    let early = "time_of_day: {timezone: Europe/Zurich, after: '02:15', before: '02:45'}";
    for minute in 0..60 {
        assert!(!value(early, &format!("2026-03-29T00:{minute:02}:00Z")));
        assert!(!value(early, &format!("2026-03-29T01:{minute:02}:00Z")));
    }
    for hour in ["00", "01"] {
        assert!(!value(early, &format!("2026-10-25T{hour}:14:59Z")));
        assert!(value(early, &format!("2026-10-25T{hour}:15:00Z")));
        assert!(!value(early, &format!("2026-10-25T{hour}:45:00Z")));
    }
    // A range that begins in the gap begins when the clock has jumped over it.
    let from_gap = "time_of_day: {timezone: Europe/Zurich, after: '02:30'}";
    assert!(!value(from_gap, "2026-03-29T00:59:59Z") && value(from_gap, "2026-03-29T01:00:00Z"));
}

#[test]
fn an_age_counts_until_it_is_reached_and_the_future_is_not_fresh() {
    let check = |age: i64| {
        let wall = now().wall;
        let since = match u64::try_from(age) {
            Ok(age) => wall - Duration::from_secs(age),
            Err(_) => wall + Duration::from_secs(age.unsigned_abs()),
        };
        let session = Session { issued_at: since, ..alice() };
        let mut device = laptop();
        device.posture.as_mut().unwrap().1 = since;
        let check = CheckRequest { device: Some(&device), ..asked_by(Some(&session)) };
        (allow("session/age: {at_most: 8h}", &check), allow("posture/age: {at_most: 8h}", &check))
    };
    let fresh = (is(true, "session-age-ok"), is(true, "posture-age-ok"));
    let stale = (is(false, "session-age-unauthorized"), is(false, "posture-age-unauthorized"));
    for age in [0, 1, 8 * 3600 - 1] {
        assert_eq!(check(age), fresh, "{age}");
    }
    for age in [8 * 3600, 9 * 3600, i64::from(u32::MAX) / 4, -1, -3600] {
        assert_eq!(check(age), stale, "{age}");
    }
}

#[test]
fn a_clock_that_jumps_is_answered_anew_each_time() {
    let alice = Session { expires_at: now().wall + Duration::from_secs(86_400), ..alice() };
    let policy = Policy::from_yaml("allow: {and: [session/age: {at_most: 1h}]}");
    let allowed = |moment: SystemTime| {
        let check = asked_by(Some(&alice));
        policy
            .evaluate(&CheckRequest {
                now: pomerium_shared::clock::Now { wall: moment, ..check.now },
                ..check
            })
            .allow
            .value
    };
    let begin = alice.issued_at;
    let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
    assert!(allowed(begin));
    assert!(!allowed(begin + hour), "forwards over the end");
    assert!(allowed(begin + hour - second), "and back");
    assert!(!allowed(begin - second), "back before the sign-in");
    assert!(!allowed(begin + hour * 24 * 365 * 50), "and far ahead");
    assert!(!allowed(SystemTime::UNIX_EPOCH));
    assert!(!allowed(SystemTime::UNIX_EPOCH - hour));
}

#[test]
fn a_moment_beyond_the_calendar_is_answered_without_a_panic() {
    let far = [
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 50)),
        SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 50)),
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(253_402_207_200)),
    ];
    let policy = Policy::from_yaml(
        "allow: {or: [{date: {after: 2026-03-01}}, {day_of_week: mon}, {time_of_day: {timezone: UTC, after: 1PM}}]}",
    );
    for wall in far.into_iter().flatten() {
        let check = asked_by(None);
        let check = CheckRequest { now: pomerium_shared::clock::Now { wall, ..check.now }, ..check };
        let _ = policy.evaluate(&check);
        let _ = policy.next_edge(&check);
        let _ = policy.remedies(&check);
    }
}

fn edge(policy: &str, check: &CheckRequest<'_>) -> Option<String> {
    let edge = Policy::from_yaml(policy).next_edge(check)?;
    Some(jiff::Timestamp::try_from(edge).unwrap().to_string())
}

#[test]
fn the_next_edge_is_the_first_moment_at_which_the_clock_may_change_the_answer() {
    let check = at("2026-03-02T12:00:00Z", asked_by(None));
    for (criterion, expected) in [
        ("accept: 1", None),
        ("date: {before: 2026-03-01}", None),
        ("date: {after: 2026-03-01, before: 2026-04-01}", Some("2026-04-01T00:00:00Z")),
        ("date: {after: 2026-03-05, before: 2026-04-01}", Some("2026-03-05T00:00:00Z")),
        ("day_of_week: mon", Some("2026-03-03T00:00:00Z")),
        ("time_of_day: {timezone: UTC, after: 9AM, before: 5PM}", Some("2026-03-02T17:00:00Z")),
        ("time_of_day: {timezone: Asia/Tokyo, after: 9AM, before: 5PM}", Some("2026-03-03T00:00:00Z")),
        ("time_of_day: {timezone: UTC, before: 5AM}", Some("2026-03-03T00:00:00Z")),
    ] {
        let policy = format!("deny:\n  nor:\n    - {criterion}\n");
        assert_eq!(edge(&policy, &check).as_deref(), expected, "{criterion}");
    }
}

#[test]
fn the_next_edge_knows_ages_and_the_sessions_end() {
    let session = Session { expires_at: now().wall + Duration::from_secs(7200), ..alice() };
    let device = laptop();
    let check = CheckRequest { device: Some(&device), ..asked_by(Some(&session)) };
    // Now is 08:00:00; session and report are a minute old.
    for (policy, expected) in [
        ("allow: {or: [accept: 1]}", "2027-01-15T10:00:00Z"),
        ("allow: {or: [session/age: {at_most: 1h}]}", "2027-01-15T08:59:00Z"),
        ("allow: {or: [session/age: {at_most: 30s}]}", "2027-01-15T10:00:00Z"),
        ("allow: {or: [posture/age: {at_most: 10m}, session/age: {at_most: 1h}]}", "2027-01-15T08:09:00Z"),
    ] {
        assert_eq!(edge(policy, &check).as_deref(), Some(expected), "{policy}");
    }
    let ahead = Session { issued_at: now().wall + Duration::from_secs(60), ..session };
    let check = asked_by(Some(&ahead));
    assert_eq!(
        edge("allow: {or: [session/age: {at_most: 1h}]}", &check).as_deref(),
        Some("2027-01-15T08:01:00Z")
    );
}

const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Havana",
    "Pacific/Apia",
    "Africa/Casablanca",
];

/// A criterion of the clock with times on the quarter of an hour.
fn clock_criterion() -> impl Strategy<Value = String> {
    let quarter = || (0..24_u8, 0..4_u8).prop_map(|(hour, quarter)| format!("{hour:02}:{:02}", quarter * 15));
    let times = (prop::sample::select(&ZONES[..]), quarter(), quarter())
        .prop_filter("a range is not empty", |(_, after, before)| after != before)
        .prop_map(|(zone, after, before)| {
            format!("time_of_day: {{timezone: {zone}, after: '{after}', before: '{before}'}}")
        });
    let half = (prop::sample::select(&ZONES[..]), prop::sample::select(&["after", "before"][..]), quarter())
        .prop_map(|(zone, side, time)| format!("time_of_day: {{timezone: {zone}, {side}: '{time}'}}"));
    let days = (prop::sample::select(&ZONES[..]), prop::sample::select(&["mon", "sat-sun", "fri-mon"][..]))
        .prop_map(|(zone, days)| format!("day_of_week: {{is: {days}, timezone: {zone}}}"));
    prop_oneof![times, half, days]
}

/// Days around which clocks were put forwards and back, and one on which Samoa left out a whole day.
fn near_a_jump() -> impl Strategy<Value = i64> {
    const DAYS: [&str; 7] =
        ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2011-12-30", "2026-02-15"];
    (prop::sample::select(&DAYS[..]), -72..48_i64, 0..60_i64).prop_map(|(day, hours, minutes)| {
        let day: jiff::Timestamp = format!("{day}T00:00:00Z").parse().unwrap();
        day.as_second() + hours * 3600 + minutes * 60
    })
}

proptest! {
    /// Asking every five minutes finds no change that the edges do not announce.
    #[test]
    fn between_two_edges_no_answer_changes(criterion in clock_criterion(), begin in near_a_jump()) {
        let policy = Policy::from_yaml(&format!("allow:\n  or:\n    - {criterion}\n"));
        let check = |second: i64| {
            let moment = jiff::Timestamp::from_second(second).unwrap();
            at(&moment.to_string(), asked_by(None))
        };
        let seconds = |moment: SystemTime| jiff::Timestamp::try_from(moment).unwrap().as_second();
        let mut edge = seconds(policy.next_edge(&check(begin)).unwrap());
        prop_assert!(edge > begin);
        let mut value = policy.evaluate(&check(begin)).allow.value;
        for second in (begin..begin + 72 * 3600).step_by(300) {
            while edge <= second {
                let next = seconds(policy.next_edge(&check(edge)).unwrap());
                prop_assert!(next > edge, "an edge is always ahead");
                value = policy.evaluate(&check(edge)).allow.value;
                edge = next;
            }
            prop_assert_eq!(policy.evaluate(&check(second)).allow.value, value, "{}", second);
        }
    }
}
