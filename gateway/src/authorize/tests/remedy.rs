//! What a refused person can do about it.

use std::time::Duration;

use super::{
    super::{CheckRequest, Policy, Remedy, Verdict},
    alice, asked_by, at, laptop, now,
};
use crate::{
    device::{Device, DeviceKind},
    session::Session,
};

fn remedies(policy: &str, check: &CheckRequest<'_>) -> Vec<String> {
    let policy = Policy::from_yaml(policy);
    policy.remedies(check).iter().map(Remedy::to_string).collect()
}

/// Alice in March 2026, for a day.
fn long_session() -> Session {
    let wall = jiff::Timestamp::try_into("2026-03-02T00:00:00Z".parse::<jiff::Timestamp>().unwrap()).unwrap();
    Session { issued_at: wall, expires_at: wall + Duration::from_secs(30 * 86_400), ..alice() }
}

#[test]
fn each_criterion_that_somebody_can_mend_says_how() {
    let alice = alice();
    let mut bad = Device { kind: DeviceKind::ClientKey, is_approved: false, ..laptop() };
    let (report, received_at) = bad.posture.as_mut().unwrap();
    (report.disk_encryption, report.firewall, report.screen_lock) = (Some(false), Some(false), Some(false));
    *received_at = now().wall - Duration::from_secs(7200);
    for (criterion, device, remedy) in [
        ("session/age: {at_most: 30s}", None, "Sign in again."),
        ("auth/method: otp", None, "Sign in again in a stronger way, such as with a second factor."),
        ("session/bound: true", None, "Sign in with pomerium-cli, which binds your session to this device."),
        ("device: {type: any}", None, "Enrol this device."),
        ("device: {type: enclave_only}", Some(&bad), "Enrol this device."),
        ("device: {approved: true}", Some(&bad), "Ask your administrator to approve this device."),
        (
            "posture/firewall: true",
            None,
            "Connect with pomerium-cli, which reports the state of this device.",
        ),
        (
            "posture/age: {at_most: 1h}",
            Some(&bad),
            "Connect with pomerium-cli, which reports the state of this device.",
        ),
        ("posture/disk_encryption: true", Some(&bad), "Turn on the encryption of your disk."),
        ("posture/firewall: true", Some(&bad), "Turn on the firewall of this device."),
        ("posture/screen_lock: true", Some(&bad), "Let the screen of this device lock by itself."),
        ("posture/os_version: {at_least: '15'}", Some(&bad), "Update the operating system of this device."),
        ("client_certificate: {san_dns: x}", None, "Connect with a valid client certificate."),
    ] {
        let check = CheckRequest { device, ..asked_by(Some(&alice)) };
        assert_eq!(remedies(&format!("allow: {{or: [{criterion}]}}"), &check), [remedy], "{criterion}");
        let deny = format!("{{allow: {{or: [accept: 1]}}, deny: {{nor: [{criterion}]}}}}");
        assert_eq!(remedies(&deny, &check), [remedy], "{deny}");
    }
}

#[test]
fn a_certificate_that_deny_misses_is_to_be_shown() {
    let alice = alice();
    let policy = "{allow: {or: [accept: 1]}, deny: {or: [invalid_client_certificate: 1]}}";
    let decision = Policy::from_yaml(policy).evaluate(&asked_by(Some(&alice)));
    assert_eq!(decision.verdict(), Verdict::Deny { status: 495 });
    assert_eq!(remedies(policy, &asked_by(Some(&alice))), ["Connect with a valid client certificate."]);
}

#[test]
fn what_nobody_can_mend_has_no_remedy() {
    let alice = alice();
    let device = laptop();
    let check = CheckRequest { device: Some(&device), ..asked_by(Some(&alice)) };
    for policy in [
        "[]",
        "allow: {or: [reject: 1]}",
        "allow: {or: [email: bob@corp.example]}",
        "allow: {and: [{email: bob@corp.example}, {session/age: {at_most: 30s}}]}",
        "{allow: {or: [session/age: {at_most: 30s}]}, deny: {or: [accept: 1]}}",
        "allow: {or: [device: {is: another}]}",
        "allow: {or: [device: {approved: false}]}",
        "allow: {or: [date: {before: 2026-03-01}]}",
        "allow: {or: [posture/os: windows]}",
    ] {
        assert_eq!(remedies(policy, &check), [""; 0], "{policy}");
    }
}

#[test]
fn an_allowed_person_needs_no_remedy_and_a_stranger_hears_only_one() {
    let alice = alice();
    let policy = "allow: {and: [{email: alice@corp.example}, {session/age: {at_most: 1h}}]}";
    assert_eq!(remedies(policy, &asked_by(Some(&alice))), [""; 0]);
    assert_eq!(remedies(policy, &asked_by(None)), ["Sign in."]);
}

#[test]
fn several_remedies_are_named_where_several_are_needed() {
    let alice = alice();
    let policy = "allow: {and: [{email: alice@corp.example}, {session/age: {at_most: 30s}}, {device: {approved: true}}]}";
    assert_eq!(remedies(policy, &asked_by(Some(&alice))), ["Sign in again.", "Enrol this device."]);
}

#[test]
fn waiting_names_the_moment_at_which_the_door_opens() {
    let session = long_session();
    let office = "time_of_day: {timezone: Europe/Zurich, after: 9AM, before: 5PM}";
    let weekday = "day_of_week: {is: mon-fri, timezone: Europe/Zurich}";
    let both = format!("allow:\n  and:\n    - email: alice@corp.example\n    - {office}\n    - {weekday}\n");
    for (moment, expected) in [
        // Wednesday morning, Wednesday evening, Friday evening.
        ("2026-03-04T05:00:00Z", "Wait until 2026-03-04 09:00 (Europe/Zurich)."),
        ("2026-03-04T18:00:00Z", "Wait until 2026-03-05 09:00 (Europe/Zurich)."),
        ("2026-03-06T18:00:00Z", "Wait until 2026-03-09 09:00 (Europe/Zurich)."),
    ] {
        assert_eq!(remedies(&both, &at(moment, asked_by(Some(&session)))), [expected], "{moment}");
    }
    let freeze = "{allow: {or: [accept: 1]}, deny: {or: [date: {after: 2026-03-04, before: 2026-03-06}]}}";
    let check = at("2026-03-04T18:00:00Z", asked_by(Some(&session)));
    assert_eq!(remedies(freeze, &check), ["Wait until 2026-03-06 00:00 (UTC)."]);
}

#[test]
fn waiting_and_mending_are_both_named_where_both_are_needed() {
    let session =
        Session { issued_at: long_session().issued_at - Duration::from_secs(86_400), ..long_session() };
    let policy = "allow: {and: [{time_of_day: {timezone: UTC, after: 9AM, before: 5PM}}, {session/age: {at_most: 1h}}]}";
    let check = at("2026-03-04T05:00:00Z", asked_by(Some(&session)));
    assert_eq!(remedies(policy, &check), ["Sign in again.", "Wait until 2026-03-04 09:00 (UTC)."]);
}

#[test]
fn whose_session_ends_while_they_wait_signs_in_again_then() {
    let session =
        Session { expires_at: long_session().issued_at + Duration::from_secs(60 * 3600), ..long_session() };
    let check = at("2026-03-04T11:00:00Z", asked_by(Some(&session)));
    let hers = "allow: {and: [{email: alice@corp.example}, {time_of_day: {timezone: UTC, after: 9AM, before: 10AM}}]}";
    assert_eq!(remedies(hers, &check), ["Sign in.", "Wait until 2026-03-05 09:00 (UTC)."]);
    let bobs =
        "allow: {and: [{email: bob@corp.example}, {time_of_day: {timezone: UTC, after: 9AM, before: 10AM}}]}";
    assert_eq!(remedies(bobs, &check), [""; 0]);
}

/// The promise of `wait`: at that moment the answer is yes.
#[test]
fn at_the_moment_that_is_named_the_door_is_open() {
    let session = long_session();
    let policy = Policy::from_yaml(
        "allow: {and: [{email: alice@corp.example}, {time_of_day: {timezone: America/New_York, after: 10PM, before: 4AM}}]}",
    );
    let check = at("2026-03-08T12:00:00Z", asked_by(Some(&session)));
    let remedies = policy.remedies(&check);
    let [Remedy::Wait(until)] = remedies.as_slice() else { panic!("{remedies:?}") };
    let then = at(&until.timestamp().to_string(), check);
    assert_eq!(policy.evaluate(&then).verdict(), Verdict::Allow);
    assert_eq!(until.datetime().to_string(), "2026-03-08T22:00:00");
}
