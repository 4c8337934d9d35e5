//! Devices, what they report, and how somebody signed in.

use pomerium_shared::posture::{OperatingSystem, PostureReport};

use super::{super::CheckRequest, alice, allow, asked_by, is, laptop};
use crate::{
    device::{Device, DeviceKind, Thumbprint},
    session::{Session, UserId},
};

const POSTURE: [&str; 6] = [
    "posture/os: macos",
    "posture/os_version: {at_least: '14'}",
    "posture/disk_encryption: true",
    "posture/firewall: true",
    "posture/screen_lock: true",
    "posture/age: {at_most: 1h}",
];

fn on<'a>(device: &'a Device, session: &'a Session) -> CheckRequest<'a> {
    CheckRequest { device: Some(device), ..asked_by(Some(session)) }
}

fn reporting(change: impl FnOnce(&mut PostureReport)) -> Device {
    let mut device = laptop();
    change(&mut device.posture.as_mut().unwrap().0);
    device
}

#[test]
fn a_device_is_known_by_id_approval_and_type() {
    let key = laptop();
    let passkey = Device { kind: DeviceKind::WebauthnAny, is_approved: false, ..laptop() };
    let enclave = Device { kind: DeviceKind::WebauthnEnclave, id: "enclave".to_owned(), ..laptop() };
    let (ok, unknown, no) =
        ((true, "device-ok"), (false, "device-unauthenticated"), (false, "device-unauthorized"));
    for (criterion, of_key, of_passkey, of_enclave) in [
        ("device: {type: any}", ok, ok, ok),
        ("device: {type: enclave_only}", unknown, unknown, ok),
        ("device: {approved: true}", ok, no, ok),
        ("device: {approved: false}", no, ok, no),
        ("device: {is: laptop}", ok, ok, no),
        ("device: {is: laptop, approved: true}", ok, no, no),
        ("device: {is: enclave, type: enclave_only}", unknown, unknown, ok),
    ] {
        for (device, (value, reason)) in [(&key, of_key), (&passkey, of_passkey), (&enclave, of_enclave)] {
            assert_eq!(allow(criterion, &on(device, &alice())), is(value, reason), "{criterion}: {device:?}");
        }
        assert_eq!(allow(criterion, &asked_by(Some(&alice()))), is(false, unknown.1), "{criterion}");
        let stranger = CheckRequest { device: Some(&key), ..asked_by(None) };
        assert_eq!(allow(criterion, &stranger), is(false, "user-unauthenticated"), "{criterion}");
    }
}

#[test]
fn a_device_vouches_for_nobody_but_its_owner() {
    let bobs = Device { user_id: UserId::new("u-bob"), ..laptop() };
    assert_eq!(allow("device: {type: any}", &on(&bobs, &alice())), is(false, "device-unauthenticated"));
    for criterion in POSTURE {
        assert_eq!(allow(criterion, &on(&bobs, &alice())), is(false, "posture-unknown"), "{criterion}");
    }
}

#[test]
fn each_posture_criterion_is_about_its_own_part_of_the_report() {
    let bad = reporting(|report| {
        *report = PostureReport {
            os: OperatingSystem::Linux,
            os_version: "6.1".to_owned(),
            disk_encryption: Some(false),
            firewall: Some(false),
            screen_lock: Some(false),
            ..PostureReport::default()
        };
    });
    for (criterion, code) in [
        ("posture/os: macos", "posture-os"),
        ("posture/os: {in: [macos, windows]}", "posture-os"),
        ("posture/os: {not: linux}", "posture-os"),
        ("posture/os_version: {at_least: '14'}", "posture-os-version"),
        ("posture/disk_encryption: true", "posture-disk-encryption"),
        ("posture/firewall: true", "posture-firewall"),
        ("posture/screen_lock: true", "posture-screen-lock"),
    ] {
        assert_eq!(
            allow(criterion, &on(&laptop(), &alice())),
            is(true, &format!("{code}-ok")),
            "{criterion}"
        );
        assert_eq!(
            allow(criterion, &on(&bad, &alice())),
            is(false, &format!("{code}-unauthorized")),
            "{criterion}"
        );
    }
    assert_eq!(allow("posture/age: {at_most: 2m}", &on(&laptop(), &alice())), is(true, "posture-age-ok"));
    assert_eq!(
        allow("posture/age: {at_most: 59s}", &on(&laptop(), &alice())),
        is(false, "posture-age-unauthorized")
    );
}

#[test]
fn what_a_device_does_not_report_satisfies_nothing() {
    let silent = Device { posture: None, ..laptop() };
    let empty = reporting(|report| *report = PostureReport::default());
    for criterion in POSTURE {
        assert_eq!(allow(criterion, &on(&silent, &alice())), is(false, "posture-unknown"), "{criterion}");
        assert_eq!(allow(criterion, &asked_by(Some(&alice()))), is(false, "posture-unknown"), "{criterion}");
        assert_eq!(allow(criterion, &asked_by(None)), is(false, "user-unauthenticated"), "{criterion}");
        if !criterion.starts_with("posture/age") {
            assert_eq!(allow(criterion, &on(&empty, &alice())), is(false, "posture-unknown"), "{criterion}");
        }
    }
    let other = allow("posture/os: {not: windows}", &on(&empty, &alice()));
    assert_eq!(other, is(false, "posture-unknown"), "an unknown system is not one that is not Windows");
}

#[test]
fn versions_are_compared_number_by_number() {
    for (reported, at_least, expected) in [
        ("12.5", "12.5", Some(true)),
        ("12.5.0", "12.5", Some(true)),
        ("12.5", "12.5.0", Some(true)),
        ("12.10", "12.5", Some(true)),
        ("12.5", "12.10", Some(false)),
        ("9.9.9", "10", Some(false)),
        ("10.0.22631", "10.0.19045", Some(true)),
        ("12.4.99", "12.5", Some(false)),
        ("12", "12.0.1", Some(false)),
        ("", "1", None),
        ("12.x", "12", None),
        ("12.+5", "12", None),
        ("13-beta", "12", None),
        ("99999999999999999999999", "12", None),
        ("14.5.", "12", None),
    ] {
        let device = reporting(|report| report.os_version = reported.to_owned());
        let expected = match expected {
            Some(true) => is(true, "posture-os-version-ok"),
            Some(false) => is(false, "posture-os-version-unauthorized"),
            None => is(false, "posture-unknown"),
        };
        let criterion = format!("posture/os_version: {{at_least: '{at_least}'}}");
        assert_eq!(allow(&criterion, &on(&device, &alice())), expected, "{reported} {at_least}");
    }
}

#[test]
fn a_session_may_have_to_be_bound_to_a_device() {
    let bound = Session { bound_to: Some(Thumbprint::of(b"a certificate")), ..alice() };
    assert_eq!(allow("session/bound: true", &asked_by(Some(&bound))), is(true, "session-bound-ok"));
    assert_eq!(
        allow("session/bound: true", &asked_by(Some(&alice()))),
        is(false, "session-bound-unauthorized")
    );
    assert_eq!(allow("session/bound: true", &asked_by(None)), is(false, "user-unauthenticated"));
}

#[test]
fn the_way_of_signing_in_is_what_the_provider_says() {
    let mut session = alice();
    session.claims.insert("amr".to_owned(), vec!["pwd".into(), "otp".into()]);
    session.claims.insert("acr".to_owned(), vec!["urn:strong".into()]);
    for (criterion, expected) in [
        ("auth/method: otp", true),
        ("auth/method: 'urn:strong'", true),
        ("auth/method: {has: pwd, exclude: sms}", true),
        ("auth/method: {exclude: pwd}", false),
        ("auth/method: hwk", false),
        ("auth/method: {is: otp}", false),
    ] {
        let reason = if expected { "auth-method-ok" } else { "auth-method-unauthorized" };
        assert_eq!(allow(criterion, &asked_by(Some(&session))), is(expected, reason), "{criterion}");
        assert_eq!(allow(criterion, &asked_by(None)), is(false, "user-unauthenticated"), "{criterion}");
    }
    let silent = allow("auth/method: {exclude: pwd}", &asked_by(Some(&alice())));
    assert_eq!(silent, is(false, "auth-method-unauthorized"), "nobody said that it was no password");
}
