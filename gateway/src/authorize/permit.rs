//! The check itself: evaluates, writes the one log line, and hands out the proof.

use super::{CheckRequest, Decision, Inputs, Policy, Verdict, reason::Reasons};

/// Proof that a policy allowed one request or stream: nothing dials an app without one.
#[derive(Debug)]
#[must_use = "a permit that nobody uses was logged for nothing"]
pub struct Permit {
    decision: Decision,
}

impl Permit {
    /// What the policy came to.
    #[must_use]
    pub const fn decision(&self) -> &Decision {
        &self.decision
    }
}

/// A refusal, with what the answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What to answer; never [`Verdict::Allow`].
    pub verdict: Verdict,
    /// What the policy came to.
    pub decision: Decision,
    /// How each criterion came out, for `show_error_details`; empty when somebody should sign in first.
    pub traces: Vec<String>,
    /// What would help the person, in sentences; empty where nothing that they can do would.
    pub remedies: Box<[String]>,
}

/// What the log line says beside the request.
#[derive(Debug, Clone, Copy)]
pub struct CheckLog<'a> {
    /// Names the request.
    pub request_id: &'a str,
    /// The route's id.
    pub route_id: &'a str,
    /// The route's name.
    pub route_name: &'a str,
}

/// Decides on one request or stream, and logs the decision with its reasons.
///
/// # Errors
/// A [`Denial`] unless the policy allows it.
pub fn check(policy: &Policy, request: &CheckRequest<'_>, facts: CheckLog<'_>) -> Result<Permit, Denial> {
    let decision = policy.evaluate(request);
    log(policy, request, facts, &decision);
    let words = || {
        let remedies = policy.remedies(request).iter().map(ToString::to_string).collect();
        (policy.explain(request).lines(), remedies)
    };
    follow(decision, words)
}

/// Takes a decision that another process of ours has made and logged, with its traces and remedies.
///
/// # Errors
/// As [`check`].
pub(crate) fn accept(
    decision: Decision,
    traces: Vec<String>,
    remedies: Box<[String]>,
) -> Result<Permit, Denial> {
    follow(decision, || (traces, remedies))
}

/// What follows from a decision; `words` has traces and remedies.
fn follow(
    decision: Decision,
    words: impl FnOnce() -> (Vec<String>, Box<[String]>),
) -> Result<Permit, Denial> {
    match decision.verdict() {
        Verdict::Allow => Ok(Permit { decision }),
        verdict @ Verdict::SignIn => {
            Err(Denial { verdict, decision, traces: Vec::new(), remedies: Box::default() })
        }
        verdict @ Verdict::Deny { .. } => {
            let (traces, remedies) = words();
            Err(Denial { verdict, decision, traces, remedies })
        }
    }
}

/// Decides again on what was allowed and is still open. Logged when the answer has turned: what stays allowed is asked
/// about too often for a line each time.
pub fn check_again(policy: &Policy, request: &CheckRequest<'_>, facts: CheckLog<'_>) -> Decision {
    let decision = policy.evaluate(request);
    if decision.verdict() != Verdict::Allow {
        log(policy, request, facts, &decision);
    }
    decision
}

fn log(policy: &Policy, check: &CheckRequest<'_>, facts: CheckLog<'_>, decision: &Decision) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let session = check.live_session();
    let Decision { allow, deny } = decision;
    let when = |applies: bool, reasons: Reasons| if applies { reasons } else { Reasons::NONE };
    // Router and app see no query in the path; if one ever gets here, it stays out of the log.
    let path = check.request.path.split(['?', '#']).next().unwrap_or_default();
    tracing::info!(
        "request-id" = facts.request_id,
        "method" = check.request.method,
        "path" = path,
        "host" = check.request.host,
        "ip" = %check.request.source_ip,
        "session-id" = session.map(|session| session.id.as_str()),
        "user" = session.map(|session| session.user_id.as_str()),
        "email" = session.map(|session| session.email.as_str()),
        "route-id" = facts.route_id,
        "route-name" = facts.route_name,
        "allow" = allow.value,
        "allow-why-true" = %when(allow.value, allow.reasons),
        "allow-why-false" = %when(!allow.value, allow.reasons),
        "deny" = deny.value,
        "deny-why-true" = %when(deny.value, deny.reasons),
        "deny-why-false" = %when(!deny.value, deny.reasons),
        "inputs" = Inputs::of(policy, check).to_json(),
        "authorize check"
    );
}
