use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    super::{CheckLog, CheckRequest, Denial, Permit, Policy, ShortForms, Verdict, check},
    alice, asked_by, get,
};
use crate::session::Session;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FACTS: CheckLog<'_> = CheckLog { request_id: "r-1", route_id: "abc", route_name: "docs" };

fn checked(policy: &str, request: &CheckRequest<'_>) -> Result<Permit, Denial> {
    check(&Policy::from_yaml(policy), request, FACTS)
}

/// The fields of what one check logged, a line each.
fn logged(policy: &str, request: &CheckRequest<'_>) -> Vec<Value> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _outcome = tracing::subscriber::with_default(subscriber, || checked(policy, request));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].take()).collect()
}

#[test]
fn a_permit_comes_only_from_an_allow() {
    let alice = alice();
    let permit = checked("allow: {or: [email: alice@corp.example]}", &asked_by(Some(&alice))).unwrap();
    assert_eq!(permit.decision().verdict(), Verdict::Allow);
    for policy in ["[]", "allow: {or: [reject: 1]}", "{allow: {or: [accept: 1]}, deny: {or: [accept: 1]}}"] {
        let denial = checked(policy, &asked_by(Some(&alice))).unwrap_err();
        assert_eq!(denial.verdict, Verdict::Deny { status: 403 }, "{policy}");
    }
}

#[test]
fn a_refusal_carries_a_trace_of_each_criterion() {
    let bob = Session { email: "bob@corp.example".to_owned(), ..alice() };
    let policy = "\
- allow:
    or:
      - email: alice@corp.example
      - claim/department: {has: ops, exclude: hr}
- deny:
    not:
      - source_ip: [10.0.0.0/8]
";
    let denial = checked(policy, &asked_by(Some(&bob))).unwrap_err();
    assert_eq!(
        denial.traces,
        [
            "rule[0].allow.or[0] email is \"alice@corp.example\": false (email-unauthorized)",
            "rule[0].allow.or[1] claim/department has \"ops\" and exclude \"hr\": true (claim-ok)",
            "rule[1].deny.not[0] source_ip [10.0.0.0/8]: false (source-ip-unauthorized)",
        ]
    );
    let single = checked("allow: {or: [email: alice@corp.example]}", &asked_by(Some(&bob))).unwrap_err();
    assert_eq!(single.traces, ["allow.or[0] email is \"alice@corp.example\": false (email-unauthorized)"]);
}

#[test]
fn a_stranger_learns_nothing_of_the_rules() {
    let denial = checked("allow: {or: [email: alice@corp.example]}", &asked_by(None)).unwrap_err();
    assert_eq!(denial.verdict, Verdict::SignIn);
    assert!(denial.traces.is_empty());
}

#[test]
fn a_trace_is_no_longer_than_people_read() {
    let policy = format!("allow:\n  and:\n{}", "  - reject: 1\n".repeat(250));
    let traces = checked(&policy, &asked_by(None)).unwrap_err().traces;
    assert_eq!(traces.len(), 101);
    assert_eq!(traces.last().unwrap(), "... and 150 more");
    let short = ShortForms {
        allowed_domains: (0..9).map(|n| format!("d{n}.example")).collect(),
        ..ShortForms::default()
    };
    let (policy, alice) = (Policy::build(None, &short).unwrap(), alice());
    let traces = policy.explain(&asked_by(Some(&alice))).lines();
    let expected = "short_forms.or[0] domain in [\"d0.example\", \"d1.example\", \"d2.example\", \"d3.example\", \
                    \"d4.example\", and 4 more]: false (domain-unauthorized)";
    assert_eq!(traces, [expected]);
}

#[test]
fn a_check_is_logged_once_with_both_answers_and_their_reasons() {
    let alice = alice();
    let policy = "{allow: {or: [email: alice@corp.example]}, deny: {or: [user: u-bob]}}";
    assert_eq!(
        logged(policy, &asked_by(Some(&alice))),
        [json!({
            "message": "authorize check",
            "request-id": "r-1", "method": "GET", "path": "/docs", "host": "app.corp.example", "ip": "192.0.2.7",
            "session-id": "session-1", "user": "u-alice", "email": "alice@corp.example",
            "route-id": "abc", "route-name": "docs",
            "allow": true, "allow-why-true": "email-ok", "allow-why-false": "",
            "deny": false, "deny-why-true": "", "deny-why-false": "user-unauthorized",
            "inputs": concat!(
                r#"{"time":"2027-01-15T08:00:00Z","method":"GET","host":"app.corp.example","path":"/docs","#,
                r#""ip":"192.0.2.7","session":{"id":"session-1","user":"u-alice","email":"alice@corp.example","#,
                r#""groups":["staff","sre"],"issued":"2027-01-15T07:59:00Z","#,
                r#""expires":"2027-01-15T08:01:00Z"}}"#,
            ),
        })]
    );
}

#[test]
fn a_refusal_is_logged_too_and_never_with_a_query() {
    let request = CheckRequest { request: get("/x?token=secret#y"), ..asked_by(None) };
    let lines = logged("allow: {or: [authenticated_user: 1]}", &request);
    let [line] = lines.as_slice() else { panic!("{lines:#?}") };
    assert_eq!(line["path"], "/x");
    assert_eq!(line["allow"], false);
    assert_eq!(line["allow-why-false"], "user-unauthenticated");
    assert_eq!(line.get("user"), None);
}

#[test]
fn a_line_break_in_a_request_makes_no_second_log_line() {
    let request = CheckRequest { request: get("/x\n{\"message\":\"authorize check\"}"), ..asked_by(None) };
    assert_eq!(logged("[]", &request).len(), 1);
}
