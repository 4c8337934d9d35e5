use std::io::Cursor;

use proptest::prelude::*;
use serde_json::Value;

use super::{
    super::{replay::Replay, routes::Routes},
    documentation::{ask, logged},
    now, people, person, routes,
};

const OFFICE: &str = "192.0.2.7";
const OLD: &str = r#"
- {name: app, from: "https://app.corp.example", to: "http://a:1", policy: [{allow: {or: [{claim/department: ops}]}}]}
- {name: db, from: "tcp+https://db.corp.example:5432", to: "tcp://a:1", policy: [{allow: {or: [{groups: sre}]}}]}
"#;

fn replayed(candidate: &Routes, log: &str) -> Value {
    let mut replay = Replay::new(candidate, now());
    replay.read(&mut Cursor::new(log)).unwrap();
    serde_json::from_str(&replay.report().json()).unwrap()
}

/// What one question, logged under [`OLD`], comes to under `new`: the change, what was, and what is.
fn change(new: &str, url: &str, name: Option<&str>) -> Option<String> {
    let session = name.map(|name| people().into_iter().find(|session| session.name == name).unwrap());
    let old = routes(OLD);
    let log = logged(|| ask(&old, "r-1", url, session.as_ref(), OFFICE, 0));
    let report = replayed(&routes(new), &log);
    assert_eq!(report["decisions"], 1, "{report:#}");
    let change = report["changes"].get(0)?;
    Some(format!("{} {} -> {}", change["change"], change["before"], change["after"]).replace('"', ""))
}

const APP: &str = "https://app.corp.example/x";

#[test]
fn the_same_configuration_decides_the_same() {
    for name in [Some("alice"), Some("bob"), None] {
        assert_eq!(change(OLD, APP, name), None, "{name:?}");
    }
}

#[test]
fn a_candidate_that_decides_otherwise_is_told() {
    let sales = OLD.replace("department: ops", "department: sales");
    assert_eq!(
        change(&sales, APP, Some("alice")).as_deref(),
        Some("loses allow (claim-ok) -> deny (claim-unauthorized)")
    );
    assert_eq!(
        change(&sales, APP, Some("bob")).as_deref(),
        Some("gains deny (claim-unauthorized) -> allow (claim-ok)")
    );
    let everybody = OLD.replace("claim/department: ops", "accept: 1");
    assert_eq!(
        change(&everybody, APP, None).as_deref(),
        Some("gains sign-in (user-unauthenticated) -> allow (accept)")
    );
    let elsewhere = OLD.replace("app.corp", "new.corp");
    assert_eq!(change(&elsewhere, APP, Some("alice")).as_deref(), Some("loses allow (claim-ok) -> no route"));
}

#[test]
fn what_the_log_does_not_hold_is_not_guessed() {
    let office = OLD.replace("claim/department: ops", "claim/office: zrh");
    assert_eq!(
        change(&office, APP, Some("alice")).as_deref(),
        Some("undecided allow (claim-ok) -> not in the log: claim/office has \\zrh\\")
    );
    // It does not matter where the rest decides.
    let office = OLD.replace("{claim/department: ops}", "{claim/office: zrh}, {claim/department: ops}");
    assert_eq!(change(&office, APP, Some("alice")), None);
}

/// A log of a `CONNECT` by alice, and then `events`.
fn stream_log(events: impl FnOnce()) -> String {
    let old = routes(OLD);
    logged(|| {
        ask(&old, "s-1", "tcp+https://db.corp.example:5432", Some(&people()[0]), OFFICE, 0);
        events();
    })
}

fn opened() {
    tracing::info!("request-id" = "s-1", route = "db", "stream opened");
}

#[test]
fn a_stream_that_is_still_open_and_would_not_be_allowed_would_close() {
    let without_sre = OLD.replace("groups: sre", "groups: dba");
    let closed = |log: &str, new: &str| {
        let report = replayed(&routes(new), log);
        (report["open_streams"].clone(), report["streams_closed"].as_array().unwrap().len())
    };
    assert_eq!(closed(&stream_log(opened), &without_sre), (1.into(), 1));
    assert_eq!(closed(&stream_log(opened), OLD), (1.into(), 0));
    assert_eq!(closed(&stream_log(|| {}), &without_sre), (0.into(), 0), "allowed, and never opened");
    let ended = stream_log(|| {
        opened();
        tracing::info!("request-id" = "s-1", reason = "client", "stream ended");
    });
    assert_eq!(closed(&ended, &without_sre), (0.into(), 0));
    let restarted = stream_log(|| {
        opened();
        tracing::info!("gateway is up");
    });
    assert_eq!(closed(&restarted, &without_sre), (0.into(), 0));
    // Its decision was before the log began.
    let report = replayed(&routes(OLD), &logged(opened));
    assert_eq!(report["streams_not_followed"], 1);
}

#[test]
fn a_stream_is_decided_as_of_the_end_of_the_log() {
    let old = routes(OLD);
    let log = stream_log(|| {
        opened();
        // Fourteen hours later somebody else asks: alice's session has been renewed since, or her stream would be cut.
        ask(&old, "r-2", APP, None, OFFICE, 14 * 60);
    });
    let report = replayed(&routes(OLD), &log);
    assert_eq!(
        (report["open_streams"].clone(), report["streams_closed"].as_array().unwrap().len()),
        (1.into(), 0)
    );
}

#[test]
fn lines_that_cannot_be_read_are_counted() {
    let old = routes(OLD);
    let good = logged(|| ask(&old, "r-1", APP, Some(&people()[0]), OFFICE, 0));
    let without = good.replace("\"inputs\"", "\"outputs\"");
    let damaged = good.replace("\\\"time\\\"", "\\\"when\\\"");
    let long = format!("{{\"message\":\"{}\"}}\n", "x".repeat(300_000));
    let log =
        format!("not json\n{without}{damaged}\n[]\n{long}{{\"message\":7}}\n{good}{{\"message\":\"cut o");
    let mut replay = Replay::new(&old, now());
    replay.read(&mut Cursor::new(&log)).unwrap();
    assert!(replay.report().is_change(), "whether they would be decided the same cannot be told");
    let report = replayed(&old, &log);
    assert_eq!(
        [&report["decisions"], &report["without_inputs"], &report["unreadable"]],
        [&Value::from(1), &2.into(), &4.into()],
        "{report:#}"
    );
}

#[test]
fn fields_may_stand_in_a_mapping_of_their_own() {
    let old = routes(OLD);
    let line: Value =
        serde_json::from_str(&logged(|| ask(&old, "r-1", APP, Some(&people()[0]), OFFICE, 0))).unwrap();
    let mut fields = line.clone();
    fields["inputs"] = serde_json::from_str(line["inputs"].as_str().unwrap()).unwrap();
    let log = serde_json::json!({ "timestamp": "x", "fields": fields }).to_string();
    assert_eq!(replayed(&old, &log)["same"], 1);
}

#[test]
fn what_is_kept_of_a_log_is_bounded() {
    let old = routes(OLD);
    let line = logged(|| ask(&old, "r-1", APP, Some(&person("NAME", &[], Some("ops"))), OFFICE, 0));
    let candidate = routes(&OLD.replace("department: ops", "department: hr"));
    let mut replay = Replay::new(&candidate, now());
    for n in 0..10_010 {
        replay.line(line.replace("NAME", &n.to_string()).as_bytes());
    }
    let report: Value = serde_json::from_str(&replay.report().json()).unwrap();
    assert_eq!(report["lost"], 10_010);
    assert_eq!(
        (report["changes"].as_array().unwrap().len(), report["not_shown"].clone()),
        (10_000, 10.into())
    );
    let stream = stream_log(opened);
    for n in 0..10_010 {
        for part in stream.lines() {
            replay.line(part.replace("s-1", &format!("s-{n}")).as_bytes());
        }
    }
    let report: Value = serde_json::from_str(&replay.report().json()).unwrap();
    assert_eq!(
        [&report["open_streams"], &report["streams_not_followed"]],
        [&Value::from(10_000), &10.into()]
    );
}

proptest! {
    #[test]
    fn no_log_makes_a_replay_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..2_000) {
        let old = routes(OLD);
        let mut log = logged(|| ask(&old, "r-1", APP, Some(&people()[0]), OFFICE, 0)).into_bytes();
        log.truncate(cut);
        log.extend(bytes);
        let mut replay = Replay::new(&old, now());
        replay.read(&mut Cursor::new(log)).unwrap();
        prop_assert!(serde_json::from_str::<Value>(&replay.report().json()).is_ok());
    }
}
