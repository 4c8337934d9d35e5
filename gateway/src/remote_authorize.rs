//! Asks the authorize service of another process for decisions (`services: proxy,authenticate`).
//!
//! Here: the messages, the way there, time-outs, fail-over, and when an address is left alone. Not here: what is asked and
//! what follows from the answer, which is [`crate::proxy`]'s to say. No answer is never a yes: it is a [`NoAnswer`].

mod breaker;
pub(crate) mod messages;
#[cfg(test)]
mod tests;
mod transport;

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pomerium_shared::clock::Now;
use serde::Serialize;
use tokio::{sync::Semaphore, time::Instant};
use tonic::Code;

pub(crate) use self::transport::TransportError;
use self::{
    breaker::{Breaker, Change, Outcome, Pass},
    messages::{DecideRequest, DecideResponse},
    transport::Transport,
};
use crate::{authorize::Decision, config::AuthorizeService, secret::Secret};

/// Questions under way at most, to all addresses together. Full: the next waits, and its time-out runs.
const QUESTIONS_MAX: usize = 1_000;

/// How often one question is sent at most where the connection fails, or as often as there are addresses. The second time
/// at one address gets a new connection in the place of one that its other end had closed.
const ATTEMPTS_MIN: usize = 2;

/// How long a caller's token is good. Each is used once, at once; the rest is for clocks that differ.
const TOKEN_LIFE_SECONDS: i64 = 60;

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Each address has failed again and again, and is left alone for a moment.
    #[error("no authorize service has answered of late: asked again in a moment")]
    LeftAlone,
    /// `grpc_client_timeout`.
    #[error("the authorize service did not answer within {0:?}")]
    TimedOut(Duration),
    /// No connection, or one that ended before the answer was there.
    #[error("the authorize service at {address} cannot be reached")]
    Connection {
        /// Who was asked.
        address: String,
        /// What happened.
        #[source]
        source: tonic::Status,
    },
    /// It said that it does not decide.
    #[error("the authorize service at {address} did not decide: {code:?}: {message}")]
    Refused {
        /// Who was asked.
        address: String,
        /// The code of gRPC.
        code: Code,
        /// What it said.
        message: String,
    },
    /// It said something else.
    #[error("the authorize service at {address} answered another question, or none")]
    Nonsense {
        /// Who was asked.
        address: String,
    },
    /// No token could be made.
    #[error("no token for the authorize service could be signed")]
    Token,
}

impl NoAnswer {
    /// Whether it says something of the other side's health. What it did not want to decide, it may have been asked wrongly,
    /// and no one question may shut it off for all others.
    const fn is_failure(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Connection { .. } | Self::Nonsense { .. } => true,
            Self::Refused { code, .. } => matches!(code, Code::Unavailable | Code::Unauthenticated),
            Self::LeftAlone | Self::Token => false,
        }
    }
}

/// What the authorize service has decided, and logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// What policy came to.
    pub(crate) decision: Decision,
    /// How each criterion came out, where the answer is no.
    pub(crate) traces: Vec<String>,
    /// What would help the person.
    pub(crate) remedies: Vec<String>,
    /// After how long the clock alone may turn a yes.
    pub(crate) turns_in: Option<Duration>,
}

/// The authorize services of a configuration.
pub(crate) struct RemoteAuthorize {
    members: Vec<Member>,
    /// Where the next question begins.
    next: AtomicUsize,
    timeout: Duration,
    shared_secret: Secret<[u8; 32]>,
    slots: Semaphore,
}

struct Member {
    address: String,
    transport: Transport,
    breaker: Mutex<Breaker>,
}

impl fmt::Debug for RemoteAuthorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.address)).finish()
    }
}

impl RemoteAuthorize {
    /// Nothing is dialled before the first question.
    ///
    /// # Errors
    /// The roots or the name that a certificate must be for cannot be used.
    pub(crate) fn new(
        service: &AuthorizeService,
        shared_secret: Secret<[u8; 32]>,
    ) -> Result<Self, TransportError> {
        let member = |url: &url::Url| {
            Ok(Member {
                address: url.origin().ascii_serialization(),
                transport: Transport::new(url, service)?,
                breaker: Mutex::new(Breaker::new()),
            })
        };
        Ok(Self {
            members: service.urls.iter().map(member).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
            timeout: service.timeout,
            shared_secret,
            slots: Semaphore::new(QUESTIONS_MAX),
        })
    }

    /// Asks one address after the other, until there is an answer: beginning with another each time, and going on only
    /// where the connection failed. What was answered, be it a refusal to decide, is not asked elsewhere.
    ///
    /// # Errors
    /// [`NoAnswer`], which is a deny.
    pub(crate) async fn decide(&self, question: &DecideRequest) -> Result<Decided, NoAnswer> {
        let deadline = deadline(self.timeout);
        let late = |_| NoAnswer::TimedOut(self.timeout);
        // Never closed.
        let _slot = tokio::time::timeout_at(deadline, self.slots.acquire()).await.map_err(late)?;
        let token = token(&self.shared_secret, Now::read())?;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut why = NoAnswer::LeftAlone;
        for attempt in 0..self.members.len().max(ATTEMPTS_MIN) {
            let member = &self.members[(first % self.members.len() + attempt) % self.members.len()];
            let Some(mut asking) = member.enter() else { continue };
            let answering = member.transport.decide(question.clone(), &token);
            let answered = match tokio::time::timeout_at(deadline, answering).await {
                Ok(answered) => answered.map_err(|status| member.no_answer(status)),
                Err(elapsed) => Err(late(elapsed)),
            };
            let answer = answered.and_then(|answer| member.fitting(question, answer));
            asking.outcome = match &answer {
                Err(why) if why.is_failure() => Outcome::Failed,
                Ok(_) | Err(_) => Outcome::Answered,
            };
            match answer {
                Err(error @ NoAnswer::Connection { .. }) => why = error,
                answer => return answer,
            }
        }
        Err(why)
    }
}

/// The moment after which nobody waits.
fn deadline(timeout: Duration) -> Instant {
    Instant::from_std(Now::read().monotonic) + timeout
}

impl Member {
    fn enter(&self) -> Option<Asking<'_>> {
        let pass =
            self.breaker.lock().unwrap_or_else(PoisonError::into_inner).enter(Now::read().monotonic)?;
        Some(Asking { member: self, pass, outcome: Outcome::Abandoned })
    }

    /// A status that the other side sent has no source here; one that stands for a broken connection does.
    fn no_answer(&self, status: tonic::Status) -> NoAnswer {
        let address = self.address.clone();
        if std::error::Error::source(&status).is_some() {
            return NoAnswer::Connection { address, source: status };
        }
        NoAnswer::Refused { address, code: status.code(), message: status.message().to_owned() }
    }

    /// The answer, if it is one to this question.
    fn fitting(&self, question: &DecideRequest, answer: DecideResponse) -> Result<Decided, NoAnswer> {
        let is_ours = answer.request_id == question.request_id && answer.route_id == question.route_id;
        let decision = answer.decision().filter(|_| is_ours);
        Ok(Decided {
            decision: decision.ok_or_else(|| NoAnswer::Nonsense { address: self.address.clone() })?,
            traces: answer.traces,
            remedies: answer.remedies,
            turns_in: answer.turns_in_ms.map(Duration::from_millis),
        })
    }
}

/// A question under way. Dropped before it is answered, it still tells the breaker.
struct Asking<'a> {
    member: &'a Member,
    pass: Pass,
    outcome: Outcome,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Member { address, breaker, .. } = self.member;
        let change = breaker.lock().unwrap_or_else(PoisonError::into_inner).leave(
            &self.pass,
            self.outcome,
            Now::read().monotonic,
        );
        match change {
            Some(Change::Opened) => {
                tracing::error!(address, "the authorize service does not answer: nobody is let in by it");
            }
            Some(Change::Closed) => tracing::info!(address, "the authorize service answers again"),
            None => {}
        }
    }
}

/// What this process proves itself with: when it ends, and nothing else.
fn token(secret: &Secret<[u8; 32]>, now: Now) -> Result<String, NoAnswer> {
    #[derive(Serialize)]
    struct Claims {
        exp: i64,
    }
    let claims = Claims { exp: now.unix_seconds() + TOKEN_LIFE_SECONDS };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.expose()))
        .map_err(|_| NoAnswer::Token)
}
