//! Tests of the whole engine: policies as text, and as generated trees.

mod bad_input;
mod certificate;
mod check;
mod clock;
mod criteria;
mod decision;
mod device;
mod docs;
mod explain;
mod inputs;
mod model;
mod operators;
mod parse;
mod record;
mod remedy;
mod request;
mod sharing;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, UNIX_EPOCH},
};

use pomerium_shared::{
    clock::Now,
    posture::{OperatingSystem, PostureReport},
};

use super::{CheckRequest, Evaluation, Place, Policy, RequestFacts};
use crate::{
    device::{Device, DeviceKind},
    session::{Session, SessionId, UserId},
};

fn now() -> Now {
    Now { wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000), ..Now::read() }
}

fn alice() -> Session {
    Session {
        id: SessionId::new("session-1"),
        user_id: UserId::new("u-alice"),
        idp_id: "idp".to_owned(),
        email: "alice@corp.example".to_owned(),
        name: "Alice".to_owned(),
        groups: vec!["staff".to_owned(), "sre".to_owned()],
        claims: [
            ("department".to_owned(), vec!["ops".into()]),
            ("address.country".to_owned(), vec!["CH".into()]),
            ("https://corp.example/role".to_owned(), vec!["lead".into(), "oncall".into()]),
            ("level".to_owned(), vec![5.into()]),
            ("admin".to_owned(), vec![true.into()]),
        ]
        .into(),
        issued_at: now().wall - Duration::from_secs(60),
        expires_at: now().wall + Duration::from_secs(60),
        bound_to: None,
        vouched_until: None,
        proof: None,
    }
}

fn get(path: &str) -> RequestFacts<'_> {
    RequestFacts {
        method: "GET",
        host: "app.corp.example",
        path,
        source_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        is_cors_preflight: false,
        certificate: None,
        place: Place::default(),
    }
}

fn asked_by(session: Option<&Session>) -> CheckRequest<'_> {
    CheckRequest { session, request: get("/docs"), device: None, records: None, now: now() }
}

/// Alice's laptop, in the best of states, reported just now.
fn laptop() -> Device {
    let report = PostureReport {
        os: OperatingSystem::Macos,
        os_version: "14.5".to_owned(),
        disk_encryption: Some(true),
        firewall: Some(true),
        screen_lock: Some(true),
        ..PostureReport::default()
    };
    Device {
        id: "laptop".to_owned(),
        user_id: UserId::new("u-alice"),
        name: "Alice's laptop".to_owned(),
        kind: DeviceKind::ClientKey,
        is_approved: true,
        enrolled_at: now().wall - Duration::from_secs(86_400),
        posture: Some((report, now().wall - Duration::from_secs(60))),
    }
}

/// The same question at another moment, RFC 3339.
fn at<'a>(moment: &str, check: CheckRequest<'a>) -> CheckRequest<'a> {
    let moment: jiff::Timestamp = moment.parse().unwrap();
    let wall = moment.try_into().unwrap();
    CheckRequest { now: Now { wall, ..check.now }, ..check }
}

/// What one criterion under `allow` and `or` comes to.
fn allow(criterion: &str, check: &CheckRequest<'_>) -> (bool, String) {
    let policy = Policy::from_yaml(&format!("allow:\n  or:\n    - {criterion}\n"));
    shown(policy.evaluate(check).allow)
}

fn is(value: bool, reason: &str) -> (bool, String) {
    (value, reason.to_owned())
}

/// An evaluation as tests write it: the value, and the reasons with commas between.
fn shown(evaluation: Evaluation) -> (bool, String) {
    (evaluation.value, evaluation.reasons.to_string())
}
