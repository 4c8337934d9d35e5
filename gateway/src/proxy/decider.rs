//! Who decides: this process, or the authorize service of another. Everything that asks goes through here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use pomerium_shared::clock::Now;

use super::{Live, Refusal, caller::Caller, question::Question, respond::AUTHORIZE_UNREACHABLE};
use crate::{
    authorize::{self, CheckLog, CheckRequest, Denial, Permit, Verdict},
    config::{Route, Settings},
    remote_authorize::{
        NoAnswer, RemoteAuthorize, TransportError,
        messages::{DecideRequest, Subject},
    },
    secret::Secret,
};

/// How often what is open is asked about again, even if nothing is known to have changed: a lost notification must not keep
/// somebody in.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The same where another process decides: nothing tells this one that its configuration has changed.
const RECHECK_INTERVAL_REMOTE: Duration = Duration::from_secs(1);

/// Between two questions about the same open stream to another process. What changes in between is one change.
const RECHECK_PAUSE_REMOTE: Duration = Duration::from_millis(100);

/// Takes the decisions of one configuration.
#[derive(Debug)]
pub(super) enum Decider {
    /// A call of a function.
    Here,
    /// Over gRPC.
    There(RemoteAuthorize),
}

/// A question, and who asks it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) caller: &'a Caller,
    pub(super) question: &'a Question,
    pub(super) request_id: &'a str,
}

impl Decider {
    pub(super) fn new(settings: &Settings, shared_secret: &[u8; 32]) -> Result<Self, TransportError> {
        Ok(match &settings.authorize_service {
            Some(service) => Self::There(RemoteAuthorize::new(service, Secret::new(*shared_secret))?),
            None => Self::Here,
        })
    }

    /// How long a yes stands at least and at most before it is asked for again.
    pub(super) const fn recheck(&self) -> (Duration, Duration) {
        match self {
            Self::Here => (Duration::ZERO, RECHECK_INTERVAL),
            Self::There(_) => (RECHECK_PAUSE_REMOTE, RECHECK_INTERVAL_REMOTE),
        }
    }
}

impl Live {
    /// Decides on a request or stream. The decision is in the log of the process that took it.
    pub(super) async fn check(&self, asked: Asked<'_>, now: Now) -> Result<Result<Permit, Denial>, Refusal> {
        match &self.decider {
            Decider::Here => {
                Ok(asked.here(self, now, |check| authorize::check(&asked.route.policy, check, asked.log())))
            }
            Decider::There(remote) => {
                let answer = Box::pin(remote.decide(&asked.wire(false))).await.map_err(|why| {
                    asked.note(&why);
                    Refusal::NoDecision
                })?;
                Ok(authorize::accept(answer.decision, answer.traces, answer.remedies.into()))
            }
        }
    }

    /// Decides again on what was allowed and is open; beside the verdict stands when the clock alone may turn it.
    pub(super) async fn check_again(
        &self,
        asked: Asked<'_>,
        now: Now,
    ) -> Result<(Verdict, Option<SystemTime>), NoAnswer> {
        match &self.decider {
            Decider::Here => Ok(asked.decide_again(self, now)),
            Decider::There(remote) => {
                let answer = Box::pin(remote.decide(&asked.wire(true))).await.inspect_err(|why| {
                    // Each open stream asks on: who watches over it says so once, when it is cut.
                    tracing::debug!(
                        "request-id" = asked.request_id,
                        error = why as &dyn std::error::Error,
                        "no decision"
                    );
                })?;
                Ok((answer.decision.verdict(), answer.turns_in.and_then(|left| now.wall.checked_add(left))))
            }
        }
    }
}

impl Asked<'_> {
    /// Puts the question before the policy of this process.
    pub(super) fn here<T>(&self, live: &Live, now: Now, decide: impl FnOnce(&CheckRequest<'_>) -> T) -> T {
        let shown = self.question.shown(self.route, now);
        decide(&self.caller.asks(live, self.question.facts(shown.as_ref()), now))
    }

    pub(super) fn log(&self) -> CheckLog<'_> {
        CheckLog { request_id: self.request_id, route_id: &self.route.id, route_name: &self.route.name }
    }

    fn decide_again(&self, live: &Live, now: Now) -> (Verdict, Option<SystemTime>) {
        let policy = &self.route.policy;
        self.here(live, now, |check| {
            let verdict = authorize::check_again(policy, check, self.log()).verdict();
            (verdict, self.next_edge(check, now))
        })
    }

    /// When the clock alone may turn a yes.
    pub(super) fn next_edge(&self, check: &CheckRequest<'_>, now: Now) -> Option<SystemTime> {
        let end_of_certificate = self.question.shown(self.route, now).and_then(|shown| shown.end);
        self.route.policy.next_edge(check).into_iter().chain(end_of_certificate).min()
    }

    fn wire(&self, is_again: bool) -> DecideRequest {
        let subject: Subject = self.question.to_wire();
        DecideRequest {
            request_id: self.request_id.to_owned(),
            route_id: self.route.id.clone(),
            session_id: self.caller.session.as_ref().map(|session| session.id.as_str().to_owned()),
            client_ip: self.question.ip_now().to_string(),
            certificates: self.question.certificates(),
            is_again,
            subject: Some(subject),
            is_of_peer: self.question.is_of_peer(),
        }
    }

    /// Logs that there is no decision.
    fn note(&self, why: &NoAnswer) {
        tracing::warn!(
            "request-id" = self.request_id,
            "route-id" = self.route.id,
            "route-name" = self.route.name,
            reason = AUTHORIZE_UNREACHABLE,
            error = why as &dyn std::error::Error,
            cause = %root(why),
            "no decision"
        );
    }
}

/// What it came from in the end: a refused connection, a certificate.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}
