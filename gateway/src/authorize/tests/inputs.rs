//! What the log keeps of a decision: enough to decide again, and no more.

use pomerium_shared::posture::PostureReport;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{CheckRequest, Inputs, Policy, PresentedCertificate, RequestFacts, Situation, Verdict},
    alice, asked_by, get,
    model::{World, blueprint, text},
    now,
};
use crate::{
    device::{Device, DeviceKind, Thumbprint},
    session::{Claims, Session},
};

fn kept(policy: &str, request: &CheckRequest<'_>) -> Value {
    serde_json::from_str(&Inputs::of(&Policy::from_yaml(policy), request).to_json()).unwrap()
}

fn read_again(policy: &str, request: &CheckRequest<'_>) -> (Inputs, Situation) {
    let inputs = Inputs::from_json(&kept(policy, request).to_string()).unwrap();
    let situation = inputs.situation(now()).unwrap();
    (inputs, situation)
}

#[test]
fn only_the_claims_that_the_policy_names_are_kept() {
    let policy = "allow: {or: [claim/department: ops, claim/address/country: CH, claim/office: zrh]}";
    let session = kept(policy, &asked_by(Some(&alice())))["session"].take();
    assert_eq!(
        session["claims"],
        // In `address/country` the path was not there as written, but nested; `office` is nowhere.
        json!({"department": ["ops"], "address/country": null, "address.country": ["CH"], "office": null})
    );
    assert_eq!(kept("allow: {or: [accept: 1]}", &asked_by(Some(&alice())))["session"].get("claims"), None);
}

#[test]
fn no_query_no_session_that_is_over_and_no_name_of_a_device_is_kept() {
    let request = CheckRequest { request: get("/x?token=secret#y"), ..asked_by(None) };
    assert_eq!(kept("[]", &request)["path"], "/x");
    let over = Session { expires_at: now().wall, ..alice() };
    assert_eq!(kept("[]", &asked_by(Some(&over))).get("session"), None);
    let device = Device {
        id: "thumbprint".to_owned(),
        user_id: alice().user_id,
        name: "alice's laptop".to_owned(),
        kind: DeviceKind::ClientKey,
        is_approved: true,
        enrolled_at: now().wall,
        posture: Some((
            PostureReport { hostname: "host-77".to_owned(), ..PostureReport::default() },
            now().wall,
        )),
    };
    let alice = alice();
    let text = kept("[]", &CheckRequest { device: Some(&device), ..asked_by(Some(&alice)) }).to_string();
    assert!(text.contains("thumbprint") && !text.contains("laptop") && !text.contains("host-77"), "{text}");
}

#[test]
fn a_certificate_is_kept_only_where_the_policy_asks_for_it() {
    let shown = PresentedCertificate { leaf: vec![0x30, 0, 1], is_valid: true };
    let request = RequestFacts { certificate: Some(&shown), ..get("/") };
    let request = CheckRequest { request, ..asked_by(None) };
    assert_eq!(
        kept("deny: {or: [invalid_client_certificate: 1]}", &request)["certificate"],
        json!({"valid": true})
    );
    let asks = "allow: {or: [client_certificate: {san_dns: a.example}]}";
    let (inputs, situation) = read_again(asks, &request);
    assert_eq!(situation.certificate, Some(shown.clone()));
    assert!(Policy::from_yaml(asks).criteria().all(|criterion| inputs.knows(criterion)));
    let (inputs, _) = read_again("[]", &request);
    assert!(!Policy::from_yaml(asks).criteria().any(|criterion| inputs.knows(criterion)));
}

#[test]
fn how_somebody_signed_in_is_kept_where_the_policy_asks_for_it() {
    let claims = [("amr".to_owned(), vec!["otp".into()]), ("phone".to_owned(), vec!["1".into()])].into();
    let session = Session { claims, ..alice() };
    let kept = kept("allow: {or: [auth/method: otp]}", &asked_by(Some(&session)));
    assert_eq!(kept["session"]["claims"], json!({"amr": ["otp"], "acr": null}));
}

#[test]
fn what_a_decision_was_made_from_is_read_back() {
    let bound = Session { bound_to: Some(Thumbprint::from_text("abc")), ..alice() };
    let device = Device {
        id: "abc".to_owned(),
        user_id: bound.user_id.clone(),
        name: String::new(),
        kind: DeviceKind::WebauthnEnclave,
        is_approved: true,
        enrolled_at: now().wall,
        posture: Some((PostureReport { firewall: Some(true), ..PostureReport::default() }, now().wall)),
    };
    let request = CheckRequest { device: Some(&device), ..asked_by(Some(&bound)) };
    let (_, situation) = read_again("allow: {or: [claim/level: 5]}", &request);
    let session = situation.session.unwrap();
    assert_eq!(session.claims, Claims::from([("level".to_owned(), vec![5.into()])]));
    assert_eq!((session.issued_at, session.expires_at), (bound.issued_at, bound.expires_at));
    assert_eq!((session.bound_to, session.groups), (bound.bound_to, bound.groups));
    assert_eq!(situation.device, Some(device));
    assert_eq!(situation.now.wall, now().wall);
}

#[test]
fn a_claim_is_known_only_if_it_was_looked_for() {
    let alice = alice();
    let (inputs, _) =
        read_again("allow: {or: [claim/department: ops, claim/a/b: 1]}", &asked_by(Some(&alice)));
    let knows = |criterion: &str| {
        let policy = Policy::from_yaml(&format!("allow: {{or: [{criterion}]}}"));
        policy.criteria().all(|criterion| inputs.knows(criterion))
    };
    assert!(
        knows("claim/department: hr") && knows("claim/a/b: 2") && knows("groups: x") && knows("accept: 1")
    );
    // `a.b` was looked for, since nothing was found at `a/b`.
    assert!(knows("claim/a.b: 2"));
    assert!(!knows("claim/level: 5"));
    // Nobody has any claim where nobody is signed in.
    let (nobody, _) = read_again("[]", &asked_by(None));
    assert!(
        Policy::from_yaml("allow: {or: [claim/level: 5]}")
            .criteria()
            .all(|criterion| nobody.knows(criterion))
    );
}

#[test]
fn what_makes_the_inputs_too_long_is_left_out_and_named() {
    let huge = Session {
        groups: (0..2_000).map(|n| format!("group-{n}")).collect(),
        claims: [
            ("department".to_owned(), vec!["d".repeat(9_000).into()]),
            ("level".to_owned(), vec![5.into()]),
        ]
        .into(),
        ..alice()
    };
    let path = format!("/{}", "p".repeat(20_000));
    let request = CheckRequest { request: get(&path), ..asked_by(Some(&huge)) };
    let policy = Policy::from_yaml("allow: {or: [claim/department: ops, claim/level: 5]}");
    let text = Inputs::of(&policy, &request).to_json();
    assert!(text.len() <= super::super::INPUTS_LEN_MAX);
    let inputs = Inputs::from_json(&text).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["left_out"], json!(["claim/department", "groups", "path"]));
    assert_eq!(value["session"]["claims"], json!({"level": [5]}));
    let known: Vec<_> = Policy::from_yaml(
        "allow: {or: [groups: x, http_path: /, claim/department: a, claim/level: 5, user: u, email: e]}",
    )
    .criteria()
    .map(|criterion| inputs.knows(criterion))
    .collect();
    assert_eq!(known, [false, false, false, true, true, true]);
}

#[test]
fn inputs_that_nobody_wrote_are_refused() {
    for text in ["", "{}", "[]", "{\"time\":1}", "null"] {
        assert!(Inputs::from_json(text).is_err(), "{text}");
    }
    let mut value = kept("[]", &asked_by(Some(&alice())));
    value["time"] = json!("yesterday");
    assert!(Inputs::from_json(&value.to_string()).unwrap().situation(now()).is_err());
}

proptest! {
    #[test]
    fn a_decision_taken_again_from_its_inputs_is_the_same(blueprint in blueprint(), number in 0..4_usize) {
        let world = World::of(number);
        let policy = Policy::from_yaml(&text(&blueprint));
        let inputs = Inputs::from_json(&Inputs::of(&policy, &world.check()).to_json()).unwrap();
        prop_assert!(policy.criteria().all(|criterion| inputs.knows(criterion)));
        let situation = inputs.situation(now()).unwrap();
        prop_assert_eq!(policy.evaluate(&situation.check(Some(&world.records))), policy.evaluate(&world.check()));
    }

    /// What was logged under one policy, and is decided again by another, is as it would have been, or not decided.
    #[test]
    fn another_policy_never_decides_otherwise_than_it_would_have(
        old in blueprint(), new in blueprint(), number in 0..4_usize, room in 0..3_usize,
    ) {
        let mut world = World::of(number);
        if let Some(session) = &mut world.session {
            // More than fits: groups and claims are left out.
            session.groups.extend((0..room * 900).map(|n| format!("group-{n}")));
            session.claims.insert("department".to_owned(), vec!["x".repeat(room * 4_000).into()]);
        }
        let (old, new) = (Policy::from_yaml(&text(&old)), Policy::from_yaml(&text(&new)));
        let inputs = Inputs::from_json(&Inputs::of(&old, &world.check()).to_json()).unwrap();
        let situation = inputs.situation(now()).unwrap();
        let check = situation.check(Some(&world.records));
        if let Some(decision) = new.decide_from_known(&check, |criterion| inputs.knows(criterion)) {
            let would_have = new.evaluate(&world.check()).verdict() == Verdict::Allow;
            prop_assert_eq!(decision.verdict() == Verdict::Allow, would_have);
        }
    }

    #[test]
    fn inputs_are_never_longer_than_their_bound(
        path in 0_usize..20_000, email in 0_usize..20_000, groups in 0_usize..3_000, claim in 0_usize..20_000,
    ) {
        let session = Session {
            // A line break is two characters of JSON: what counts is the length as written.
            email: "\n".repeat(email),
            groups: vec!["\n".to_owned(); groups],
            claims: [("department".to_owned(), vec!["\n".repeat(claim).into()])].into(),
            ..alice()
        };
        let path = format!("/{}", "p".repeat(path));
        let request = CheckRequest { request: get(&path), ..asked_by(Some(&session)) };
        let policy = Policy::from_yaml("allow: {or: [claim/department: ops]}");
        let text = Inputs::of(&policy, &request).to_json();
        prop_assert!(text.len() <= super::super::INPUTS_LEN_MAX);
        prop_assert!(Inputs::from_json(&text).is_ok());
    }
}
