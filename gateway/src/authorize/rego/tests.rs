//! Modules as text: what they decide, and what is refused when they load.

use std::net::{IpAddr, Ipv4Addr};

use pomerium_shared::clock::Now;
use proptest::prelude::*;

use super::*;
use crate::authorize::PresentedCertificate;
use crate::authorize::{Place, Policy, RequestFacts, ShortForms, Verdict};

fn asks<'a>(method: &'a str, path: &'a str) -> CheckRequest<'a> {
    CheckRequest {
        session: None,
        request: RequestFacts {
            method,
            host: "app.corp.example",
            path,
            source_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            is_cors_preflight: false,
            certificate: None,
            place: Place::default(),
        },
        device: None,
        records: None,
        now: Now::read(),
    }
}

fn module(rules: &str) -> String {
    format!("package pomerium.policy\n{rules}\n")
}

fn decide(rules: &str) -> Decision {
    Rego::compile(&module(rules)).unwrap().evaluate(&asks("GET", "/docs"), false)
}

#[test]
fn each_documented_form_of_an_answer_is_read() {
    for form in ["true", "[true]", "[true, [\"because\"]]", "[true, {\"because\"}, {\"a\": 1}]"] {
        let decision = decide(&format!("allow := {form}"));
        assert_eq!(decision.verdict(), Verdict::Allow, "{form}");
    }
    for form in ["\"yes\"", "[]", "[1]", "[true, 5]", "[true, [], {}, 4]", "{\"allow\": true}"] {
        let decision = decide(&format!("allow := {form}"));
        assert!(decision.deny.value, "{form}");
        assert_eq!(decision.deny.reasons, Reasons::only(Reason::RegoError), "{form}");
    }
}

#[test]
fn deny_beats_allow_of_rego_and_of_ppl() {
    assert_eq!(decide("allow := true\ndeny := true").verdict(), Verdict::Deny { status: 403 });
    let short = ShortForms { allow_public_unauthenticated_access: true, ..ShortForms::default() };
    let mut policy = Policy::build(None, &short).unwrap();
    assert_eq!(policy.evaluate(&asks("GET", "/")).verdict(), Verdict::Allow);
    policy.add_rego(&module("deny if input.http.method == \"GET\"")).unwrap();
    assert_eq!(policy.evaluate(&asks("GET", "/")).verdict(), Verdict::Deny { status: 403 });
    assert_eq!(policy.evaluate(&asks("PUT", "/")).verdict(), Verdict::Allow);
}

#[test]
fn a_broken_module_is_refused_when_it_loads() {
    for (rules, expected) in [
        ("allow if {", "rego:"),
        ("allow if no_such_builtin(1)", "no_such_builtin"),
        ("allow if deny\ndeny if allow", "recursion"),
        ("allow if http.send({}).status == 200", "http.send"),
        ("allow if opa.runtime().env.HOME", "opa.runtime"),
        ("deny if input.http.headers.Cookie", "headers"),
        ("other := true", "neither"),
    ] {
        let error = Rego::compile(&module(rules)).unwrap_err().to_string();
        assert!(error.contains(expected), "{rules}: {error}");
    }
}

#[test]
fn an_error_in_an_evaluation_denies() {
    let rego = Rego::compile(&module("allow := true\ndeny if to_number(input.http.path) > 3")).unwrap();
    let decision = rego.evaluate(&asks("GET", "/docs"), false);
    assert_eq!(decision.deny.reasons.to_string(), "rego-error");
    assert_eq!(decision.verdict(), Verdict::Deny { status: 403 });
}

#[test]
fn a_module_that_runs_too_long_denies() {
    let endless = "xs := numbers.range(1, 2000)\n\
        allow if input.http.method == \"GET\"\n\
        allow if { input.http.method == \"PUT\"; some a in xs; some b in xs; some c in xs; a + b + c == 0 }";
    let rego = Rego::compile(&module(endless)).unwrap();
    assert_eq!(rego.evaluate(&asks("PUT", "/"), false).deny.reasons.to_string(), "rego-error");
}

#[test]
fn a_reason_in_the_words_of_ppl_asks_for_the_sign_in() {
    let decision = decide("allow := [false, [\"user-unauthenticated\"]]");
    assert_eq!(decision.verdict(), Verdict::SignIn);
}

#[test]
fn free_words_are_bounded_and_stay_in_the_trace() {
    let rules = format!("deny := [true, [\"{}\\n\", \"b\"]]\nallow := false", "a".repeat(2 * REASON_LEN_MAX));
    let rego = Rego::compile(&module(&rules)).unwrap();
    let check = asks("GET", "/");
    assert_eq!(rego.evaluate(&check, false).deny.reasons.to_string(), "rego-ok");
    let expected = format!("deny: true ({}, b)", "a".repeat(REASON_LEN_MAX));
    assert_eq!(rego.trace(&check, false), ["allow: false ()".to_owned(), expected]);
}

proptest! {
    /// The same rules in both languages come to the same verdict.
    #[test]
    fn a_translation_of_ppl_decides_the_same(
        rules in prop::collection::vec((any::<bool>(), 0..3_usize, 0..3_usize), 1..6),
        asked in (0..3_usize, 0..3_usize),
    ) {
        const METHODS: [&str; 3] = ["GET", "PUT", "DELETE"];
        const PATHS: [&str; 3] = ["/", "/docs", "/admin"];
        let (mut ppl, mut rego) = (String::new(), "default allow := false\n".to_owned());
        for (allows, method, path) in rules {
            let (action, method, path) =
                (if allows { "allow" } else { "deny" }, METHODS[method], PATHS[path]);
            ppl += &format!(
                "- {action}:\n    and:\n    - http_method: {{is: {method}}}\n    - http_path: {{is: {path}}}\n"
            );
            rego += &format!(
                "{action} if {{ input.http.method == \"{method}\"; input.http.path == \"{path}\" }}\n"
            );
        }
        let check = asks(METHODS[asked.0], PATHS[asked.1]);
        let by_ppl = Policy::from_yaml(&ppl).evaluate(&check).verdict();
        let by_rego = Rego::compile(&module(&rego)).unwrap().evaluate(&check, false).verdict();
        prop_assert_eq!(by_ppl, by_rego);
    }
}

#[test]
fn who_shows_no_certificate_has_a_valid_one_only_where_none_is_needed() {
    let module = module("deny if not input.is_valid_client_certificate");
    let refused = |policy: &Policy| {
        let check = asks("GET", "/");
        let shown = |is_valid| Some(PresentedCertificate { leaf: vec![0x30, 0], is_valid });
        [None, shown(true), shown(false)].map(|certificate| {
            let request = RequestFacts { certificate: certificate.as_ref(), ..check.request };
            policy.evaluate(&CheckRequest { request, ..check }).deny.value
        })
    };
    let mut policy = Policy::default();
    policy.add_rego(&module).unwrap();
    assert_eq!(refused(&policy), [false, false, true]);
    policy.hold_to_client_authority(false);
    assert_eq!(refused(&policy), [true, false, true]);
}
