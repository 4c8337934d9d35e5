//! Measures decisions: PPL as the gateway evaluates it beside the same rules in Rego, on the same questions in one run.
//!
//! `cargo run --release -p pomerium-gateway --example decisions`
#![forbid(unsafe_code)]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use pomerium_gateway::{
    authorize::{CheckRequest, Place, Policy, RequestFacts, ShortForms},
    session::{Session, SessionId, UserId},
    yaml,
};
use pomerium_shared::clock::Now;
use regorus::{Engine, Value};

/// Rules of the policies that are measured; the last rule is the one that lets in.
const RULES: [usize; 3] = [1, 10, 100];

/// Decisions that are timed one by one.
const PPL_DECISIONS: usize = 200_000;
const REGO_DECISIONS: usize = 2_000;

fn ppl(rules: usize) -> Policy {
    let rule = |number: usize| {
        format!(
            "- allow: {{and: [{{email: {{is: user{number}@corp.example}}}}, {{groups: staff}}, {{http_method: GET}}]}}\n"
        )
    };
    let text: String = (0..rules).map(rule).collect();
    let node = yaml::parse(&text).expect("the policy is YAML");
    Policy::build(Some(&node), &ShortForms::default()).expect("the policy is PPL")
}

fn rego(rules: usize) -> Engine {
    let rule = |number: usize| {
        format!(
            "allow if {{ input.email == \"user{number}@corp.example\"; \"staff\" in input.groups; input.method == \"GET\" }}\n"
        )
    };
    let rules: String = (0..rules).map(rule).collect();
    let mut engine = Engine::new();
    engine
        .add_policy(
            "policy.rego".to_owned(),
            format!("package pomerium\nimport rego.v1\ndefault allow := false\n{rules}"),
        )
        .expect("the policy is Rego");
    engine
}

fn session(rules: usize, now: Now) -> Session {
    Session {
        id: SessionId::new("s"),
        user_id: UserId::new("u"),
        idp_id: "idp".to_owned(),
        email: format!("user{}@corp.example", rules - 1),
        name: String::new(),
        groups: vec!["engineering".to_owned(), "staff".to_owned()],
        claims: std::collections::BTreeMap::default(),
        issued_at: now.wall,
        expires_at: now.wall + Duration::from_secs(3600),
        bound_to: None,
    }
}

/// Times each call; sorted.
fn time_each(count: usize, mut decide: impl FnMut() -> bool) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begin = Now::read().monotonic;
            assert!(black_box(decide()), "the last rule lets in");
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn main() {
    println!("one core; microseconds a decision, the timer's own cost included\n");
    println!(
        "{:>6} {:>12} {:>9} {:>9} {:>12} {:>9} {:>8}",
        "rules", "PPL a second", "median", "p99", "Rego a sec.", "median", "times"
    );
    for rules in RULES {
        let now = Now::read();
        let session = session(rules, now);
        let check = CheckRequest {
            session: Some(&session),
            request: RequestFacts {
                method: "GET",
                host: "app.corp.example",
                path: "/",
                source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                is_cors_preflight: false,
                certificate: None,
                place: Place::default(),
            },
            device: None,
            records: None,
            now,
        };
        let policy = ppl(rules);
        let ours = time_each(PPL_DECISIONS, || policy.evaluate(black_box(&check)).allow.value);
        let input = Value::from(serde_json::json!({
            "email": session.email, "groups": session.groups, "method": "GET",
        }));
        let mut engine = rego(rules);
        let theirs = time_each(REGO_DECISIONS, || {
            engine.set_input(black_box(input.clone()));
            engine.eval_rule("data.pomerium.allow".to_owned()).is_ok_and(|value| value == Value::Bool(true))
        });
        let rate = |times: &[Duration]| times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64();
        let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
        println!(
            "{rules:>6} {:>12.0} {:>9.2} {:>9.2} {:>12.0} {:>9.1} {:>8.0}",
            rate(&ours),
            at(&ours, 50),
            at(&ours, 99),
            rate(&theirs),
            at(&theirs, 50),
            rate(&ours) / rate(&theirs),
        );
    }
}
