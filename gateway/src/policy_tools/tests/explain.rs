//! `policy explain` as a command: what counts of the store and of the flags, and how it ends.

use std::path::{Path, PathBuf};

use super::{make_store, monday, people, person};
use crate::{
    policy_tools::run::{self, EXIT_NOT_ALLOWED, EXIT_USAGE, EXIT_YES, ExplainOptions},
    session::Session,
};

const ROUTES: &str = r#"
routes:
- {name: ops, from: "https://ops.example", to: "http://a:1", policy: [{allow: {or: [{claim/department: ops}]}}]}
- {name: sre, from: "https://sre.example", to: "http://a:1", policy: [{allow: {or: [{groups: sre}]}}]}
- {name: ids, from: "https://ids.example", to: "http://a:1", policy: [{allow: {or: [{user: u-bob}]}}]}
- {name: fit, from: "https://fit.example", to: "http://a:1", policy: [{allow: {and: [{posture/firewall: 1}, {device: {approved: true}}, {session/bound: 1}]}}]}
- {name: fresh, from: "https://fresh.example", to: "http://a:1", policy: [{allow: {or: [{session/age: {at_most: 30m}}]}}]}
- {name: mtls, from: "https://mtls.example", to: "http://a:1", policy: [{allow: {or: [{client_certificate: {fingerprint: '0000000000000000000000000000000000000000000000000000000000000000'}}]}}]}
"#;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn new(people: &[Session]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.yaml"), ROUTES).unwrap();
        make_store(&folder.path().join("store"), people).await;
        Self { folder }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    fn asked(&self, user: Option<&str>, route: &str) -> ExplainOptions {
        ExplainOptions {
            config: self.folder.path().join("policy.yaml"),
            store: Some(self.folder.path().join("store")),
            user: user.map(str::to_owned),
            route: route.to_owned(),
            method: None,
            path: None,
            ip: "192.0.2.7".parse().unwrap(),
            country: None,
            asn: None,
            time: Some(monday()),
            groups: None,
            claims: [].into(),
            posture: None,
            certificate: None,
            is_approved: false,
            is_bound: false,
        }
    }
}

/// The text and whether it ends with "allowed".
async fn explained(options: ExplainOptions) -> (String, bool) {
    let outcome = run::explain(options).await.unwrap();
    assert!([EXIT_YES, EXIT_NOT_ALLOWED].contains(&outcome.code));
    (outcome.text, outcome.code == EXIT_YES)
}

#[tokio::test]
async fn what_the_store_knows_counts_and_flags_go_before_it() {
    let fixture = Fixture::new(&people()).await;
    assert!(explained(fixture.asked(Some("alice@corp.example"), "ops")).await.1);
    assert!(explained(fixture.asked(Some("u-alice"), "sre")).await.1);
    assert!(explained(fixture.asked(Some("bob@corp.example"), "ids")).await.1, "the store knows the id");
    assert!(!explained(fixture.asked(Some("bob@corp.example"), "ops")).await.1);
    let promoted = ExplainOptions {
        claims: [("department".to_owned(), vec!["ops".into()])].into(),
        groups: Some(vec!["sre".to_owned()]),
        ..fixture.asked(Some("bob@corp.example"), "ops")
    };
    assert!(explained(promoted).await.1);
    let demoted = ExplainOptions { groups: Some(Vec::new()), ..fixture.asked(Some("u-alice"), "sre") };
    assert!(!explained(demoted).await.1);
    let (text, is_allowed) = explained(fixture.asked(None, "ops")).await;
    assert!(!is_allowed && text.contains("nobody is signed in") && text.contains("302"), "{text}");
}

#[tokio::test]
async fn a_session_that_is_over_is_taken_as_begun_again() {
    let old = Session { expires_at: monday(), ..person("alice", &["sre"], Some("ops")) };
    let fixture = Fixture::new(&[old]).await;
    let (text, is_allowed) = explained(fixture.asked(Some("u-alice"), "sre")).await;
    assert!(is_allowed && text.contains("taken as begun again"), "{text}");
    assert!(
        explained(fixture.asked(Some("u-alice"), "fresh")).await.1,
        "it begins at the moment of the question"
    );
}

#[tokio::test]
async fn somebody_unknown_is_what_the_flags_say() {
    let fixture = Fixture::new(&people()).await;
    let (text, is_allowed) = explained(fixture.asked(Some("erin@corp.example"), "sre")).await;
    assert!(!is_allowed && text.contains("not in the store"), "{text}");
    let known = ExplainOptions {
        groups: Some(vec!["sre".to_owned()]),
        ..fixture.asked(Some("erin@corp.example"), "sre")
    };
    assert!(explained(known).await.1);
}

#[tokio::test]
async fn a_device_is_as_good_as_it_is_said_to_be() {
    let fixture = Fixture::new(&people()).await;
    let with = |posture: &str| ExplainOptions {
        posture: Some(fixture.file("posture.json", posture)),
        is_approved: true,
        is_bound: true,
        ..fixture.asked(Some("u-alice"), "fit")
    };
    assert!(explained(with(r#"{"os":"linux","firewall":true}"#)).await.1);
    let (text, is_allowed) = explained(with(r#"{"os":"linux","firewall":false}"#)).await;
    assert!(!is_allowed && text.contains("to do:"), "{text}");
    let (text, _) = explained(fixture.asked(Some("u-alice"), "fit")).await;
    assert!(text.contains("posture/firewall: skipped (posture-unknown)"), "{text}");
    let trouble = run::explain(with(r#"{"os":"linux","fire":true}"#)).await.unwrap_err();
    assert_eq!(trouble.code(), EXIT_USAGE);
}

#[tokio::test]
async fn a_client_certificate_is_read_from_its_file() {
    let fixture = Fixture::new(&[]).await;
    let with = |text: &str| ExplainOptions {
        certificate: Some(fixture.file("certificate.pem", text)),
        ..fixture.asked(None, "mtls")
    };
    let of = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.pem();
    let (text, is_allowed) = explained(with(&of("other.example"))).await;
    assert!(!is_allowed && text.contains("(client-certificate-unauthorized)"), "{text}");
    let (text, _) = explained(fixture.asked(None, "mtls")).await;
    assert!(text.contains("skipped (client-certificate-required)"), "{text}");
    assert_eq!(run::explain(with("no certificate")).await.unwrap_err().code(), EXIT_USAGE);
}

#[tokio::test]
async fn what_cannot_be_read_has_a_code_of_its_own() {
    let fixture = Fixture::new(&people()).await;
    let asked = |route: &str| fixture.asked(Some("u-alice"), route);
    let code = async |options| run::explain(options).await.unwrap_err().code();
    assert_eq!(code(asked("nowhere")).await, EXIT_USAGE);
    assert_eq!(code(ExplainOptions { store: Some("/nowhere".into()), ..asked("ops") }).await, EXIT_USAGE);
    assert_eq!(code(ExplainOptions { config: "/nowhere".into(), ..asked("ops") }).await, 78);
    let broken = fixture.file("broken.yaml", "routes: [{from: 1}]");
    assert_eq!(code(ExplainOptions { config: broken, ..asked("ops") }).await, 78);
    assert_eq!(
        code(ExplainOptions { posture: Some("/nowhere".into()), ..asked("ops") }).await,
        run::EXIT_TROUBLE
    );
    std::fs::write(fixture.folder.path().join("store/pomerium.sqlite"), "this is no database at all")
        .unwrap();
    assert_eq!(code(asked("ops")).await, run::EXIT_TROUBLE);
}

#[test]
fn the_example_configuration_needs_no_certificate_and_no_secret() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/policy.yaml");
    let access = crate::config::access(&file, &|_| None, Path::new("."));
    assert_eq!(access.unwrap().routes.len(), 3);
    assert!(crate::config::load(Some(&file), &|_| None, Path::new(".")).is_err(), "the gateway needs both");
}
