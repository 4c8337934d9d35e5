//! The commands as a whole: on the examples of the documentation, and on what people get wrong.

mod cases;
mod diff;
mod documentation;
mod explain;
mod replay;
mod routes;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use pomerium_shared::clock::Now;
use serde_json::Value as Json;

use super::routes::Routes;
use crate::{
    config,
    secret::Secret,
    session::{Session, SessionId, UserId},
    store::{ProviderTokens, Store},
};

/// Monday, 2026-11-23T09:00:00Z.
fn monday() -> SystemTime {
    at("2026-11-23T09:00:00Z")
}

fn at(text: &str) -> SystemTime {
    SystemTime::try_from(text.parse::<jiff::Timestamp>().unwrap()).unwrap()
}

fn now() -> Now {
    Now { wall: monday(), ..Now::read() }
}

/// The routes of a text below `routes:`.
fn routes(text: &str) -> Routes {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, format!("routes:\n{text}")).unwrap();
    let access = config::access(&file, &|_| None, folder.path());
    let access = access.unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    Routes::new(access.routes, access.records)
}

fn person(name: &str, groups: &[&str], department: Option<&str>) -> Session {
    let department = department.map(|text| ("department".to_owned(), vec![Json::from(text)]));
    Session {
        id: SessionId::new(format!("session-of-{name}")),
        user_id: UserId::new(format!("u-{name}")),
        idp_id: "idp".to_owned(),
        email: format!("{name}@corp.example"),
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        claims: department.into_iter().collect::<BTreeMap<_, _>>(),
        issued_at: monday() - Duration::from_secs(3600),
        expires_at: monday() + Duration::from_secs(13 * 3600),
        bound_to: None,
        vouched_until: None,
        proof: None,
    }
}

/// Everybody of the examples.
fn people() -> [Session; 4] {
    [
        person("alice", &["sre"], Some("ops")),
        person("bob", &[], Some("sales")),
        person("carol", &["contractors"], None),
        person("dora", &[], Some("data")),
    ]
}

async fn make_store(folder: &Path, people: &[Session]) {
    let store = Store::open(folder).await.unwrap();
    let secret = |text: &str| Secret::new(text.to_owned());
    for session in people {
        let tokens = ProviderTokens {
            access: secret("access-token"),
            refresh: None,
            id_token: secret("id-token"),
            access_expires_at: None,
        };
        store.put_session(session, &tokens).await.unwrap();
    }
    store.close().await;
}
