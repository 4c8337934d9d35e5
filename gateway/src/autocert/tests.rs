use std::{collections::BTreeMap, time::UNIX_EPOCH};

use super::*;
use crate::config;

const DAY: i64 = 24 * 3600;

fn at(days: i64) -> Now {
    let seconds = u64::try_from(days * DAY).unwrap();
    let now = Now::read();
    Now { wall: UNIX_EPOCH + Duration::from_secs(seconds), ..now }
}

fn life(from: i64, to: i64) -> Option<Validity> {
    Some(Validity { not_before: from * DAY, not_after: to * DAY })
}

#[test]
fn a_host_without_a_certificate_goes_first_and_then_the_one_that_ends_first() {
    let mut schedule = Schedule::default();
    let hosts = BTreeMap::from([("a", life(0, 90)), ("b", life(0, 89)), ("c", None), ("d", life(50, 140))]);
    assert_eq!(schedule.due(&hosts, at(80)), Some("c"));
    let held = BTreeMap::from([("a", life(0, 90)), ("b", life(0, 89)), ("d", life(50, 140))]);
    assert_eq!(schedule.due(&held, at(80)), Some("b"));
    assert_eq!(schedule.due(&held, at(59)), None, "the first two thirds of its life");
    assert_eq!(schedule.due(&held, at(60)), Some("b"));
}

#[test]
fn a_failure_is_waited_for_ever_longer_and_holds_up_nobody_else() {
    let mut schedule = Schedule::default();
    let hosts = BTreeMap::from([("a", None), ("b", None)]);
    let now = at(1);
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(schedule.failed("a", now).as_secs() / 60);
    }
    assert_eq!(waits[..4], [5, 10, 20, 40]);
    assert_eq!(waits[11], 12 * 60);
    assert_eq!(schedule.due(&hosts, now), Some("b"));
    let later = Now { monotonic: now.monotonic + Duration::from_secs(12 * 3600), ..now };
    assert_eq!(schedule.due(&hosts, later), Some("a"));
    schedule.succeeded("a");
    assert_eq!(schedule.failures("a"), 0);
}

fn settings(routes: &[&str]) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["*.covered.example".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut text = "autocert: true\nautocert_ca: https://ca.example/directory\ndatabroker_storage_type: memory\n\
                    authenticate_service_url: https://auth.corp.example\n\
                    certificates: [{cert: cert.pem, key: key.pem}]\n\
                    idp_provider: oidc\nidp_provider_url: https://id.corp.example\nidp_client_id: c\nroutes:\n"
        .to_owned();
    for from in routes {
        let to = from.split_once('+').map_or("http", |(scheme, _)| scheme);
        text += &format!("- from: {from}\n  to: {to}://10.0.0.1:1\n  allow_any_authenticated_user: true\n");
    }
    let loaded = config::parse(&text, "test.yaml", &|_| None, folder.path());
    loaded.unwrap_or_else(|errors| panic!("{errors}")).settings
}

#[test]
fn every_host_that_a_client_names_has_one_and_no_other() {
    let settings = settings(&[
        "https://App.corp.example:8443",
        "https://*.corp.example",
        "https://one.covered.example",
        "https://localhost",
        "https://10.0.0.7",
        "tcp+https://ssh.corp.example:22",
        "tcp+https://gate.corp.example/db.internal:5432",
        "udp+https://dns.corp.example:53",
    ]);
    let hosts: Vec<_> = hosts::of(&settings).into_iter().collect();
    let expected = [
        "app.corp.example",
        "auth.corp.example",
        "dns.corp.example",
        "gate.corp.example",
        "ssh.corp.example",
    ];
    assert_eq!(hosts, expected);
}

#[tokio::test]
async fn what_was_obtained_is_there_after_a_restart_and_goes_with_its_route() {
    let store = Store::in_memory().await.unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["app.corp.example".to_owned()]).unwrap();
    let kept = Kept { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() };
    store.keep_secret(&name_of("app.corp.example"), &serde_json::to_vec(&kept).unwrap()).await.unwrap();
    store.keep_secret(&name_of("auth.corp.example"), b"damaged").await.unwrap();
    let mut keeper =
        Keeper { store, challenges: Arc::default(), held: BTreeMap::new(), schedule: Schedule::default() };
    let now = Now::read();
    // Nobody is asked: everything that is due has just failed.
    keeper.schedule.failed("auth.corp.example", now);
    assert!(keeper.look(&settings(&["https://app.corp.example"]), now).await);
    assert_eq!(keeper.held["app.corp.example"].certificate.chain, [made.cert.der().clone()]);
    assert!(!keeper.look(&settings(&["https://app.corp.example"]), now).await, "nothing new");
    assert!(keeper.look(&settings(&[]), now).await);
    assert!(keeper.held.is_empty());
}

#[test]
fn a_proof_is_shown_for_its_own_host_and_token_only_and_taken_back() {
    let challenges = Challenges::default();
    let shown = challenges.show_http("tok", "tok.thumbprint");
    assert_eq!(challenges.http("/.well-known/acme-challenge/tok").as_deref(), Some("tok.thumbprint"));
    for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/tok"] {
        assert_eq!(challenges.http(path), None);
    }
    drop(shown);
    assert_eq!(challenges.http("/.well-known/acme-challenge/tok"), None);
    assert!(challenges.tls("app.corp.example").is_none());
}
