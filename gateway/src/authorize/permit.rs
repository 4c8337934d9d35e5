//! The one way to a yes: decide, log, and hand out the proof.

use super::{CheckRequest, Decision, Policy, Verdict};

/// Proof that a request or stream was allowed and that the decision is in the log. Nothing dials an app without one.
#[must_use = "a permit that nobody uses was logged for nothing"]
#[derive(Debug)]
pub struct Permit(());

/// A "no", or "sign in first".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What to do; never [`Verdict::Allow`].
    pub verdict: Verdict,
    /// What it follows from.
    pub decision: Decision,
    /// Each rule with what it came to.
    pub traces: Vec<String>,
}

/// What the log says of a decision beside the request itself.
#[derive(Debug, Clone, Copy)]
pub struct CheckLog<'a> {
    /// The id of the request.
    pub request_id: &'a str,
    /// The route's id.
    pub route_id: &'a str,
    /// The route's name.
    pub route_name: &'a str,
}

/// Decides, and writes the decision with its reasons to the log.
///
/// # Errors
/// [`Denial`] unless a rule allows and none denies.
pub fn check(policy: &Policy, request: &CheckRequest<'_>, log: CheckLog<'_>) -> Result<Permit, Denial> {
    let decision = policy.evaluate(request);
    let why = |part: super::Evaluation, value: bool| {
        if part.value == value { part.reasons.to_text() } else { String::new() }
    };
    let verdict = decision.verdict();
    let traces = if verdict == Verdict::Allow { Vec::new() } else { policy.trace(request) };
    tracing::info!(
        "request-id" = log.request_id,
        "method" = request.request.method,
        "path" = request.request.path,
        "host" = request.request.host,
        "ip" = %request.request.source_ip,
        "session-id" = request.session.map_or("", |s| s.id.as_str()),
        "user" = request.session.map_or("", |s| s.user_id.as_str()),
        "email" = request.session.map_or("", |s| s.email.as_str()),
        "route-id" = log.route_id,
        "route" = log.route_name,
        "allow" = decision.allow.value,
        "allow-why-true" = why(decision.allow, true),
        "allow-why-false" = why(decision.allow, false),
        "deny" = decision.deny.value,
        "deny-why-true" = why(decision.deny, true),
        "deny-why-false" = why(decision.deny, false),
        "rules" = traces.join("; "),
        "authorize check"
    );
    match verdict {
        Verdict::Allow => Ok(Permit(())),
        Verdict::SignIn | Verdict::Deny { .. } => Err(Denial { verdict, decision, traces }),
    }
}
