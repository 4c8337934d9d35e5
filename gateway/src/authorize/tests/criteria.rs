use std::net::IpAddr;

use super::{
    super::{CheckRequest, Policy, RequestFacts, ShortForms},
    alice, allow, asked_by, get, is, now, shown,
};
use crate::session::{Session, UserId};

#[test]
fn each_criterion_about_a_person_needs_one() {
    let table = [
        ("authenticated_user: true", true, "user-ok"),
        ("email: alice@corp.example", true, "email-ok"),
        ("email: ALICE@corp.example", false, "email-unauthorized"),
        ("email: {starts_with: alice@, ends_with: .example, not: bob@corp.example}", true, "email-ok"),
        ("email: {starts_with: alice@, ends_with: .test}", false, "email-unauthorized"),
        ("email: {in: [zoe@corp.example, alice@corp.example, bob@corp.example]}", true, "email-ok"),
        ("email: {not_in: [zoe@corp.example, alice@corp.example]}", false, "email-unauthorized"),
        ("email: {contains: '@corp.'}", true, "email-ok"),
        ("domain: corp.example", true, "domain-ok"),
        ("domain: example", false, "domain-unauthorized"),
        ("domain: {ends_with: .example}", true, "domain-ok"),
        ("user: u-alice", true, "user-ok"),
        ("user: {is: u-bob}", false, "user-unauthorized"),
        ("groups: sre", true, "groups-ok"),
        ("groups: {has: sales}", false, "groups-unauthorized"),
        ("groups: {is: sre}", false, "groups-unauthorized"),
        ("groups: {exclude: sales}", true, "groups-ok"),
        ("groups: {exclude: sre}", false, "groups-unauthorized"),
        ("groups: {has: sre, exclude: staff}", false, "groups-unauthorized"),
        ("claim/department: ops", true, "claim-ok"),
        ("claim/department: {is: ops}", true, "claim-ok"),
        ("claim/address/country: CH", true, "claim-ok"),
        ("claim/address.country: CH", true, "claim-ok"),
        ("claim/https://corp.example/role: oncall", true, "claim-ok"),
        ("claim/https://corp.example/role: {is: lead}", false, "claim-unauthorized"),
        ("claim/level: 5", true, "claim-ok"),
        ("claim/level: '5'", false, "claim-unauthorized"),
        ("claim/admin: true", true, "claim-ok"),
        ("claim/admin: 'true'", false, "claim-unauthorized"),
        ("claim/missing: ops", false, "claim-unauthorized"),
        ("claim/missing: {exclude: ops}", true, "claim-ok"),
    ];
    let alice = alice();
    for (criterion, value, reason) in table {
        assert_eq!(allow(criterion, &asked_by(Some(&alice))), is(value, reason), "{criterion}");
        assert_eq!(allow(criterion, &asked_by(None)), is(false, "user-unauthenticated"), "{criterion}");
    }
}

#[test]
fn each_criterion_about_a_request_is_the_same_for_everybody() {
    let table = [
        ("accept: true", true, "accept"),
        ("reject: true", false, "reject"),
        ("http_method: GET", true, "http-method-ok"),
        ("http_method: {in: [POST, PUT]}", false, "http-method-unauthorized"),
        ("http_path: {starts_with: /docs}", true, "http-path-ok"),
        ("http_path: /", false, "http-path-unauthorized"),
        ("source_ip: 192.0.2.7", true, "source-ip-ok"),
        ("source_ip: 192.0.2.8", false, "source-ip-unauthorized"),
        ("source_ip: [10.0.0.0/8, 192.0.2.99/24]", true, "source-ip-ok"),
        ("source_ip: [10.0.0.0/8, '2001:db8::/32']", false, "source-ip-unauthorized"),
        ("source_ip: '::ffff:192.0.2.0/120'", true, "source-ip-ok"),
        ("cors_preflight: true", false, "non-cors-request"),
    ];
    let alice = alice();
    for (criterion, value, reason) in table {
        for session in [None, Some(&alice)] {
            assert_eq!(allow(criterion, &asked_by(session)), is(value, reason), "{criterion}");
        }
    }
}

#[test]
fn a_preflight_is_recognised() {
    let check =
        CheckRequest { request: RequestFacts { is_cors_preflight: true, ..get("/") }, ..asked_by(None) };
    assert_eq!(allow("cors_preflight: true", &check), is(true, "cors-request"));
}

#[test]
fn an_ipv4_address_mapped_into_ipv6_does_not_slip_past_an_ipv4_rule() {
    let source_ip: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    let check = CheckRequest { request: RequestFacts { source_ip, ..get("/") }, ..asked_by(None) };
    assert_eq!(allow("source_ip: 192.0.2.0/24", &check), is(true, "source-ip-ok"));
}

#[test]
fn an_expired_session_is_nobody() {
    let session = Session { expires_at: now().wall, ..alice() };
    let result = allow("authenticated_user: true", &asked_by(Some(&session)));
    assert_eq!(result, is(false, "user-unauthenticated"));
}

#[test]
fn a_session_without_email_matches_no_email_and_no_domain() {
    let session = Session { email: String::new(), ..alice() };
    for (criterion, reason) in [
        ("email: ''", "email-unauthorized"),
        ("email: {not: bob@corp.example}", "email-unauthorized"),
        ("domain: ''", "domain-unauthorized"),
        ("domain: {not_in: [evil.example]}", "domain-unauthorized"),
    ] {
        assert_eq!(allow(criterion, &asked_by(Some(&session))), is(false, reason), "{criterion}");
    }
}

#[test]
fn an_address_that_two_readers_take_for_two_domains_has_none() {
    for (email, domain, value) in [
        ("mallory@evil.example@corp.example", "corp.example", false),
        ("mallory@corp.example@evil.example", "corp.example", false),
        ("\"mallory@corp.example\"@evil.example", "corp.example", false),
        ("\"a@b\"@corp.example", "corp.example", true),
        ("@corp.example", "corp.example", false),
        ("corp.example", "corp.example", false),
        ("mallory@", "''", false),
    ] {
        let session = Session { email: email.to_owned(), ..alice() };
        let result = allow(&format!("domain: {domain}"), &asked_by(Some(&session)));
        assert_eq!(result.0, value, "{email}");
    }
}

#[test]
fn a_claim_is_sought_as_written_before_its_segments() {
    let mut session = alice();
    session.claims.insert("a/b".to_owned(), vec!["literal".into()]);
    session.claims.insert("a.b".to_owned(), vec!["nested".into()]);
    assert!(allow("claim/a/b: literal", &asked_by(Some(&session))).0);
    assert!(!allow("claim/a/b: nested", &asked_by(Some(&session))).0);
}

#[test]
fn a_claim_deeper_than_five_segments_is_sought_as_written_only() {
    let mut session = alice();
    session.claims.insert("a.b.c.d.e".to_owned(), vec!["five".into()]);
    session.claims.insert("a.b.c.d.e.f".to_owned(), vec!["six".into()]);
    assert!(allow("claim/a/b/c/d/e: five", &asked_by(Some(&session))).0);
    assert!(!allow("claim/a/b/c/d/e/f: six", &asked_by(Some(&session))).0);
}

#[test]
fn short_forms_are_one_more_allow_rule_joined_by_or() {
    let short = ShortForms {
        allowed_domains: vec!["partner.example".to_owned()],
        allowed_users: vec!["u-alice".to_owned(), "bob@corp.example".to_owned()],
        allowed_idp_claims: vec![("department".to_owned(), vec!["legal".to_owned(), "hr".to_owned()])],
        ..ShortForms::default()
    };
    let ppl = crate::yaml::parse("allow: {or: [email: zoe@corp.example]}").unwrap();
    let policy = Policy::build(Some(&ppl), &short).unwrap();
    let person = |id: &str, email: &str, department: &str| {
        let claims = [("department".to_owned(), vec![department.into()])].into();
        Session { user_id: UserId::new(id), email: email.to_owned(), claims, ..alice() }
    };
    for (session, allowed) in [
        (person("u-alice", "alice@corp.example", "ops"), true),
        (person("u-bob", "bob@corp.example", "ops"), true),
        (person("u-zoe", "zoe@corp.example", "ops"), true),
        (person("u-pat", "pat@partner.example", "ops"), true),
        (person("u-lea", "lea@corp.example", "hr"), true),
        (person("u-eve", "eve@corp.example", "ops"), false),
        (person("bob@corp.example", "eve@corp.example", "ops"), true),
    ] {
        assert_eq!(policy.evaluate(&asked_by(Some(&session))).allow.value, allowed, "{}", session.email);
    }
}

#[test]
fn the_short_forms_without_lists_allow_whom_they_name() {
    let build = |short: ShortForms| Policy::build(None, &short).unwrap();
    let public = build(ShortForms { allow_public_unauthenticated_access: true, ..ShortForms::default() });
    let signed_in = build(ShortForms { allow_any_authenticated_user: true, ..ShortForms::default() });
    let preflight = build(ShortForms { cors_allow_preflight: true, ..ShortForms::default() });
    let nobody = build(ShortForms::default());
    let alice = alice();
    let allow = |policy: &Policy, session| shown(policy.evaluate(&asked_by(session)).allow);
    assert_eq!(allow(&public, None), is(true, "accept"));
    assert_eq!(allow(&signed_in, None), is(false, "user-unauthenticated"));
    assert_eq!(allow(&signed_in, Some(&alice)), is(true, "user-ok"));
    assert_eq!(allow(&preflight, Some(&alice)), is(false, "non-cors-request"));
    assert_eq!(allow(&nobody, Some(&alice)), is(false, ""));
}

#[test]
fn an_unset_variable_in_allowed_users_lets_nobody_in() {
    let short = ShortForms {
        allowed_users: vec![String::new()],
        allowed_domains: vec![String::new()],
        ..ShortForms::default()
    };
    let policy = Policy::build(None, &short).unwrap();
    let session = Session { email: String::new(), user_id: UserId::new(""), ..alice() };
    assert!(!policy.evaluate(&asked_by(Some(&session))).allow.value);
}

#[test]
fn a_criterion_is_shown_as_it_was_meant() {
    let hash = "ab".repeat(32);
    for (criterion, expected) in [
        ("accept: 1", "accept"),
        ("domain: {in: [a.example, b.example]}", "domain in [\"a.example\", \"b.example\"]"),
        (
            "date: {after: 2026-03-01, before: 2026-04-01}",
            "date after 2026-03-01T00:00:00Z and before 2026-04-01T00:00:00Z",
        ),
        (
            "day_of_week: {is: fri-mon, timezone: Europe/Zurich}",
            "day_of_week mon,fri,sat,sun in Europe/Zurich",
        ),
        (
            "time_of_day: {timezone: UTC, after: 10PM, before: 6AM}",
            "time_of_day after 22:00:00 and before 06:00:00 in UTC",
        ),
        ("session/age: {at_most: 8h}", "session/age at_most 28800s"),
        ("session/bound: 1", "session/bound"),
        ("auth/method: otp", "auth/method has \"otp\""),
        ("device: {approved: true, type: enclave_only}", "device type enclave_only and approved true"),
        ("device: {is: x}", "device type any and is \"x\""),
        ("posture/os: macos", "posture/os is \"macos\""),
        ("posture/os_version: {at_least: '12.5'}", "posture/os_version at_least 12.5"),
        ("posture/firewall: 1", "posture/firewall"),
        ("posture/age: {at_most: 90s}", "posture/age at_most 90s"),
        ("network/country: {not: CH}", "network/country not \"CH\""),
        ("network/asn: {not_in: [2, 1]}", "network/asn not_in [1, 2]"),
        (
            "record: {type: t, field: f.g, '>=': 3, in: [3, x]}",
            "record type \"t\" by user_id: \"f.g\" >= 3 and in [3, \"x\"]",
        ),
        ("client_certificate: {san_dns: x}", "client_certificate [san_dns is \"x\"]"),
        ("mcp_tool: {starts_with: read_}", "mcp_tool starts_with \"read_\""),
        ("ssh_username_matches_claim: login", "ssh_username_matches_claim login"),
    ] {
        let policy = Policy::from_yaml(&format!("allow:\n  or:\n    - {criterion}\n"));
        let shown: Vec<_> = policy.criteria().map(ToString::to_string).collect();
        assert_eq!(shown, [expected], "{criterion}");
    }
    let policy = Policy::from_yaml(&format!(
        "allow: {{or: [client_certificate: {{fingerprint: ['{hash}', '{hash}'], san_uri: x}}]}}"
    ));
    let shown: Vec<_> = policy.criteria().map(ToString::to_string).collect();
    assert_eq!(shown, ["client_certificate [fingerprint abababab... or 1 more and san_uri is \"x\"]"]);
}
