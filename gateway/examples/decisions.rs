//! Measures decisions: PPL as the gateway evaluates it, beside the same rules with the same reasons in Rego, on the same
//! questions in one run; then a whole decision, route and policy, by the number of routes.
//!
//! `cargo run --release -p pomerium-gateway --example decisions`
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use pomerium_gateway::{
    authorize::{CheckRequest, Evaluation, Place, Policy, RequestFacts, ShortForms},
    config,
    proxy::{Authority, CanonicalPath, Router},
    session::{Session, SessionId, UserId},
    yaml,
};
use pomerium_shared::clock::Now;
use regorus::{Engine, Value};

/// Rules of the policies that are measured; the last rule is the one that lets in.
const RULES: [usize; 4] = [1, 10, 30, 100];

const ROUTES: [usize; 3] = [1, 100, 10_000];

const PPL_DECISIONS: usize = 200_000;
const REGO_DECISIONS: usize = 1_000;

/// What a run of decisions came to.
struct Figures {
    a_second: f64,
    median: Duration,
    p99: Duration,
}

fn ppl(rules: usize) -> Policy {
    let node = yaml::parse(&ppl_text(rules)).expect("the policy is YAML");
    Policy::build(Some(&node), &ShortForms::default()).expect("the policy is PPL")
}

fn ppl_text(rules: usize) -> String {
    let rule = |number: usize| {
        format!(
            "- allow: {{and: [{{email: {{is: user{number}@corp.example}}}}, {{groups: staff}}, {{http_method: GET}}]}}\n"
        )
    };
    (0..rules).map(rule).collect()
}

/// The same rules with a yes or no, and no reasons.
fn plain_rego(rules: usize) -> Engine {
    let rule = |number: usize| {
        format!(
            "allow if {{ input.email == \"user{number}@corp.example\"; \"staff\" in input.groups; input.method == \"GET\" }}\n"
        )
    };
    let rules: String = (0..rules).map(rule).collect();
    engine(&format!("package pomerium\nimport rego.v1\ndefault allow := false\n{rules}"))
}

fn engine(policy: &str) -> Engine {
    let mut engine = Engine::new();
    engine.add_policy("policy.rego".to_owned(), policy.to_owned()).expect("the policy is Rego");
    engine
}

/// The same, with what PPL says of it: a criterion is a value with a reason, `and` and `or` join them.
fn rego(rules: usize) -> Engine {
    let rule = |number: usize| {
        format!("both([email(\"user{number}@corp.example\"), groups(\"staff\"), method(\"GET\")])")
    };
    let rules: Vec<String> = (0..rules).map(rule).collect();
    let policy = format!(
        r#"package pomerium
import rego.v1

email(wanted) := [true, {{"email-ok"}}] if input.email == wanted
email(wanted) := [false, {{"email-unauthorized"}}] if input.email != wanted

groups(wanted) := [true, {{"groups-ok"}}] if wanted in input.groups
groups(wanted) := [false, {{"groups-unauthorized"}}] if not wanted in input.groups

method(wanted) := [true, {{"http-method-ok"}}] if input.method == wanted
method(wanted) := [false, {{"http-method-unauthorized"}}] if input.method != wanted

reasons(parts, value) := {{reason | some part in parts; part[0] == value; some reason in part[1]}}

both(parts) := [true, reasons(parts, true)] if every part in parts {{ part[0] }}
both(parts) := [false, reasons(parts, false)] if {{ some part in parts; not part[0] }}

either(parts) := [true, reasons(parts, true)] if {{ some part in parts; part[0] }}
either(parts) := [false, reasons(parts, false)] if every part in parts {{ not part[0] }}

allow := either([
{}
])
"#,
        rules.join(",\n")
    );
    engine(&policy)
}

/// Their answer in our words.
fn value_and_reasons(answer: &Value) -> Option<(bool, BTreeSet<String>)> {
    let value = *answer[0].as_bool().ok()?;
    let reasons = answer[1].as_set().ok()?;
    Some((value, reasons.iter().filter_map(|reason| Some(reason.as_string().ok()?.to_string())).collect()))
}

fn our_words(evaluation: &Evaluation) -> (bool, BTreeSet<String>) {
    (evaluation.value, evaluation.reasons.iter().map(|reason| reason.as_str().to_owned()).collect())
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
        vouched_until: None,
        proof: None,
    }
}

fn question<'a>(session: &'a Session, host: &'a str, now: Now) -> CheckRequest<'a> {
    CheckRequest {
        session: Some(session),
        request: RequestFacts {
            method: "GET",
            host,
            path: "/",
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            is_cors_preflight: false,
            certificate: None,
            place: Place::default(),
        },
        device: None,
        records: None,
        now,
    }
}

/// All at once for the rate; then each alone, the timer's own cost included.
fn measure(count: usize, mut decide: impl FnMut() -> bool) -> Figures {
    for _ in 0..count / 10 {
        assert!(black_box(decide()), "the last rule lets in");
    }
    let begin = Now::read().monotonic;
    for _ in 0..count {
        assert!(black_box(decide()), "the last rule lets in");
    }
    let a_second = count as f64 / begin.elapsed().as_secs_f64();
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begin = Now::read().monotonic;
            black_box(decide());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    Figures { a_second, median: times[count / 2], p99: times[count * 99 / 100] }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Allocations of one decision.
fn allocations(decide: impl FnOnce()) -> u64 {
    allocation_counter::measure(decide).count_total
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn by_rules() {
    println!(
        "policies, one core; microseconds a decision; Rego with the reasons that PPL gives, and with a bare yes\n"
    );
    println!(
        "{:>6} {:>12} {:>8} {:>8} {:>7} {:>12} {:>7} {:>12} {:>7}",
        "rules", "PPL a second", "median", "p99", "allocs", "Rego a sec.", "times", "bare a sec.", "times"
    );
    for rules in RULES {
        let now = Now::read();
        let session = session(rules, now);
        let check = question(&session, "app.corp.example", now);
        let policy = ppl(rules);
        let input = Value::from(serde_json::json!({
            "email": session.email, "groups": session.groups, "method": "GET",
        }));
        let ask = |engine: &mut Engine| {
            engine.set_input(black_box(input.clone()));
            engine.eval_rule("data.pomerium.allow".to_owned()).expect("the rule has a value")
        };
        let (mut rego, mut plain) = (rego(rules), plain_rego(rules));
        assert_eq!(
            value_and_reasons(&ask(&mut rego)),
            Some(our_words(&policy.evaluate(&check).allow)),
            "both come to the same"
        );
        let ours = measure(PPL_DECISIONS, || policy.evaluate(black_box(&check)).allow.value);
        let theirs = measure(REGO_DECISIONS, || ask(&mut rego)[0] == Value::Bool(true));
        let bare = measure(REGO_DECISIONS, || ask(&mut plain) == Value::Bool(true));
        let allocations = allocations(|| {
            black_box(policy.evaluate(black_box(&check)));
        });
        println!(
            "{rules:>6} {:>12.0} {:>8.2} {:>8.2} {allocations:>7} {:>12.0} {:>7.0} {:>12.0} {:>7.0}",
            ours.a_second,
            micros(ours.median),
            micros(ours.p99),
            theirs.a_second,
            ours.a_second / theirs.a_second,
            bare.a_second,
            ours.a_second / bare.a_second,
        );
    }
}

/// A configuration with so many hosts, and for each three people who may.
fn router(routes: usize) -> Router {
    let mut text = "routes:\n".to_owned();
    for number in 0..routes {
        text += &format!(
            "  - from: https://app{number}.corp.example\n    to: http://127.0.0.1:8080\n    \
             allowed_users: [user0@corp.example, user1@corp.example, user2@corp.example]\n"
        );
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("the file can be written");
    let access = config::access(file.path(), &|_| None, Path::new(".")).expect("the routes are valid");
    Router::new(access.routes)
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn by_routes() {
    println!("\nroute and policy of three people, one core; microseconds a decision\n");
    println!("{:>7} {:>12} {:>8} {:>8} {:>7}", "routes", "a second", "median", "p99", "allocs");
    for routes in ROUTES {
        let now = Now::read();
        let session = session(3, now);
        let host = format!("app{}.corp.example", routes - 1);
        let check = question(&session, &host, now);
        let router = router(routes);
        let authority = Authority::parse(&host).expect("a host");
        let path = CanonicalPath::parse("/").expect("a path");
        let decide = || {
            let route = router
                .http(black_box(&authority), black_box(&path), &http::Method::GET)
                .expect("the last route");
            route.policy.evaluate(black_box(&check)).allow.value
        };
        let figures = measure(PPL_DECISIONS, decide);
        let allocations = allocations(|| {
            black_box(decide());
        });
        println!(
            "{routes:>7} {:>12.0} {:>8.2} {:>8.2} {allocations:>7}",
            figures.a_second,
            micros(figures.median),
            micros(figures.p99)
        );
    }
}

fn main() {
    by_rules();
    by_routes();
}
