//! Tests of the whole engine: policies as text, and as generated trees.

mod check;
mod criteria;
mod decision;
mod model;
mod operators;
mod parse;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, UNIX_EPOCH},
};

use pomerium_shared::clock::Now;

use super::{CheckRequest, Evaluation, Place, RequestFacts};
use crate::session::{Session, SessionId, UserId};

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

/// An evaluation as tests write it: the value, and the reasons with commas between.
fn shown(evaluation: Evaluation) -> (bool, String) {
    (evaluation.value, evaluation.reasons.to_string())
}
