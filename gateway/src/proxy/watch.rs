//! Takes a decision again while what it allowed is open: streams, WebSockets, long answers.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pomerium_shared::{clock::Now, reason::EndReason};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Live, Proxy,
    caller::Caller,
    decider::Asked,
    patience::{Patience, UNANSWERED_INTERVAL},
    question::Question,
    respond::AUTHORIZE_UNREACHABLE,
};
use crate::{
    authorize::Verdict,
    body::{Body, BodyError},
    session::{Session, SessionId},
    store::Store,
};

/// How often the clock, and the address of the other end, are looked at.
const CLOCK_INTERVAL: Duration = Duration::from_millis(500);

/// Wall and monotonic clock may differ by this much: time servers slew them a little.
const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(1);

/// Answers of a known length up to this are sent before anybody could change their mind.
const SHORT_LEN: u64 = 64 * 1024;

/// Follows what an allowed request or stream depends on: configuration, session, clock, and the gateway's own life.
#[derive(Debug)]
pub(super) struct Watch {
    question: Question,
    session: Option<SessionId>,
    /// Of the request that was allowed.
    request_id: String,
    live: Arc<ArcSwap<Live>>,
    store: Store,
    revision: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
    cut: CancellationToken,
}

impl Proxy {
    /// Follows a question that was answered with yes.
    pub(super) fn watch(&self, question: Question, session: Option<SessionId>, request_id: &str) -> Watch {
        Watch {
            question,
            session,
            request_id: request_id.to_owned(),
            live: self.live.clone(),
            store: self.store.clone(),
            revision: self.revision.subscribe(),
            changes: self.store.changes(),
            cut: self.cut.clone(),
        }
    }
}

impl Watch {
    /// Resolves when what was allowed may no longer live. Levels, not edges: whatever changed since the last look is seen
    /// by the next.
    pub(super) async fn revoked(mut self) -> EndReason {
        let mut patience = Patience::default();
        loop {
            self.revision.mark_unchanged();
            self.changes.mark_unchanged();
            let (decided, from) = (Now::read(), self.question.ip_now());
            let left = patience.left(decided.monotonic);
            let standing = tokio::select! {
                biased;
                () = self.cut.cancelled() => return EndReason::Shutdown,
                standing = tokio::time::timeout(left, self.standing(decided)) => standing,
            };
            let (edge, (pause, interval)) = match standing {
                Ok(Standing::Over(reason)) => return reason,
                Ok(Standing::Allowed { edge, recheck }) => {
                    patience.answered();
                    (edge, recheck)
                }
                Ok(Standing::Unanswered) if patience.unanswered(decided.monotonic) => {
                    (None, (UNANSWERED_INTERVAL, UNANSWERED_INTERVAL))
                }
                Ok(Standing::Unanswered) | Err(_) => {
                    let reason = AUTHORIZE_UNREACHABLE;
                    tracing::warn!(
                        "request-id" = self.request_id,
                        reason,
                        "nobody says whether it may stay open"
                    );
                    return EndReason::Policy;
                }
            };
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return EndReason::Shutdown,
                _ = self.revision.changed() => {}
                _ = self.changes.changed() => {}
                () = clock_passes(decided, edge) => {}
                () = moves(&self.question, from) => {}
                () = tokio::time::sleep(interval) => {}
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes the decision again.
    async fn standing(&self, now: Now) -> Standing {
        match self.still_allowed(now).await {
            Ok(standing) => standing,
            Err(reason) => Standing::Over(reason),
        }
    }

    async fn still_allowed(&self, now: Now) -> Result<Standing, EndReason> {
        let live = self.live.load_full();
        let session = self.session_at(&live, now).await?;
        let caller = Caller::of_session(session, &self.store, now).await.map_err(|_| EndReason::Session)?;
        let route = self.question.route(&live.router).map_err(|_| EndReason::Policy)?;
        let unvouched_at =
            caller.session.as_ref().and_then(|session| session.unvouched_at(route.unreachable_grace));
        if unvouched_at.is_some_and(|end| end <= now.wall) {
            return Err(EndReason::Session);
        }
        let (question, request_id) = (&self.question, self.request_id.as_str());
        let asked = Asked { route, caller: &caller, question, request_id };
        match live.check_again(asked, now).await {
            Ok((Verdict::Allow, edge)) => {
                let edge = edge.into_iter().chain(unvouched_at).chain(caller.proof_ends(now)).min();
                Ok(Standing::Allowed { edge, recheck: live.decider.recheck() })
            }
            Ok((Verdict::SignIn, _)) => Err(EndReason::Session),
            Ok((Verdict::Deny { .. }, _)) => Err(EndReason::Policy),
            Err(_) => Ok(Standing::Unanswered),
        }
    }

    /// The session as it is now. One that is gone, or that the store cannot tell, ends what it began.
    async fn session_at(&self, live: &Live, now: Now) -> Result<Option<Arc<Session>>, EndReason> {
        let Some(id) = &self.session else { return Ok(None) };
        let found = self.store.session(id).await.map_err(|_| EndReason::Session)?;
        let is_of_peer = self.question.is_of_peer();
        Ok(Some(
            found
                .map(|session| if is_of_peer { live.behind_peer(session) } else { session })
                .filter(|session| live.authenticate.stands_by(session, now.wall))
                .ok_or(EndReason::Session)?,
        ))
    }

    /// Lets a body through until it ends or may no longer live.
    pub(super) fn over(self, body: Body) -> Body {
        if body.is_end_stream() || body.size_hint().upper().is_some_and(|len| len <= SHORT_LEN) {
            return body;
        }
        crate::body::boxed(Watched { body, revoked: Box::pin(self.revoked()) })
    }
}

/// How it stands with what was allowed.
enum Standing {
    /// It is; the clock alone may change that at `edge`, and it is asked again within `recheck`: not before the one, and no
    /// later than the other.
    Allowed { edge: Option<SystemTime>, recheck: (Duration, Duration) },
    /// Nobody says.
    Unanswered,
    /// No longer.
    Over(EndReason),
}

/// Resolves when whoever asked is elsewhere than `from`: a QUIC connection may move to another network.
async fn moves(question: &Question, from: IpAddr) {
    while question.ip_now() == from {
        tokio::time::sleep(CLOCK_INTERVAL).await;
    }
}

/// Resolves when a decision of `decided` must be taken again because of the clock: its `edge` has come, or somebody has
/// set the clock. Timers alone do not see the latter, nor a sleep of the machine.
async fn clock_passes(decided: Now, edge: Option<SystemTime>) {
    loop {
        let now = Now::read();
        if edge.is_some_and(|edge| edge <= now.wall) || is_clock_set(decided, now) {
            return;
        }
        let left = edge.and_then(|edge| edge.duration_since(now.wall).ok());
        tokio::time::sleep(left.unwrap_or(CLOCK_INTERVAL).min(CLOCK_INTERVAL)).await;
    }
}

/// Whether the wall clock has run differently from the monotonic one since then.
fn is_clock_set(then: Now, now: Now) -> bool {
    let should_be = then.wall + now.monotonic.saturating_duration_since(then.monotonic);
    let drift = now.wall.duration_since(should_be).or_else(|_| should_be.duration_since(now.wall));
    drift.is_ok_and(|drift| drift > CLOCK_DRIFT_MAX)
}

/// A body under a live decision.
struct Watched {
    body: Body,
    revoked: Pin<Box<dyn Future<Output = EndReason> + Send>>,
}

/// An answer was cut.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
struct Cut(EndReason);

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(reason) = self.revoked.as_mut().poll(context) {
            tracing::info!(reason = reason.as_str(), "an answer was cut");
            return Poll::Ready(Some(Err(Cut(reason).into())));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_seen_and_one_that_runs_is_not() {
        let then = Now::read();
        let after = |wall: i64, monotonic: u64| {
            let ahead = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 { then.wall - ahead } else { then.wall + ahead };
            Now { wall, monotonic: then.monotonic + Duration::from_secs(monotonic) }
        };
        assert!(!is_clock_set(then, after(3600, 3600)));
        assert!(!is_clock_set(then, after(11, 10)), "slewed");
        assert!(is_clock_set(then, after(3600, 1)), "set forward, or a sleep of the machine");
        assert!(is_clock_set(then, after(-3600, 1)), "set back");
    }

    #[tokio::test]
    async fn an_edge_that_has_come_is_not_waited_for() {
        let now = Now::read();
        clock_passes(now, Some(now.wall)).await;
        clock_passes(now, Some(now.wall + Duration::from_millis(1))).await;
        let woken_before_suspend = Now { wall: now.wall - Duration::from_secs(60), ..now };
        clock_passes(woken_before_suspend, None).await;
    }
}
