//! Takes a decision again while what it allowed is open: streams, WebSockets, long answers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pomerium_shared::{clock::Now, reason::EndReason};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Live, Proxy, question::Question};
use crate::{
    authorize::{CheckRequest, Verdict},
    body::{Body, BodyError},
    session::{Session, SessionId},
    store::Store,
};

/// How often a decision is taken again even if nothing is known to have changed: a lost notification must not keep
/// somebody in.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Answers of a known length up to this are sent before anybody could change their mind.
const SHORT_LEN: u64 = 64 * 1024;

/// Follows what an allowed request or stream depends on: configuration, session, clock, and the gateway's own life.
#[derive(Debug)]
pub(super) struct Watch {
    question: Question,
    session: Option<SessionId>,
    live: Arc<ArcSwap<Live>>,
    store: Store,
    revision: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
    cut: CancellationToken,
}

impl Proxy {
    /// Follows a question that was answered with yes.
    pub(super) fn watch(&self, question: Question, session: Option<SessionId>) -> Watch {
        Watch {
            question,
            session,
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
        loop {
            self.revision.mark_unchanged();
            self.changes.mark_unchanged();
            let until = match self.still_allowed().await {
                Ok(until) => until,
                Err(reason) => return reason,
            };
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return EndReason::Shutdown,
                _ = self.revision.changed() => {}
                _ = self.changes.changed() => {}
                () = tokio::time::sleep(until.min(RECHECK_INTERVAL)) => {}
            }
        }
    }

    /// Takes the decision again, now; `Ok` says for how long nothing changes by the clock alone.
    async fn still_allowed(&self) -> Result<Duration, EndReason> {
        let now = Now::read();
        let session = self.session_at(now).await?;
        let live = self.live.load_full();
        let route = self.question.route(&live.router).ok_or(EndReason::Policy)?;
        let check = CheckRequest {
            session: session.as_ref(),
            request: self.question.facts(),
            device: None,
            records: live.settings.records.as_ref(),
            now,
        };
        match route.policy.evaluate(&check).verdict() {
            Verdict::Allow => {
                let ends = session.map(|session| session.expires_at.duration_since(now.wall));
                Ok(ends.map_or(RECHECK_INTERVAL, Result::unwrap_or_default))
            }
            Verdict::SignIn => Err(EndReason::Session),
            Verdict::Deny { .. } => Err(EndReason::Policy),
        }
    }

    /// The session as it is now. One that is gone, or that the store cannot tell, ends what it began.
    async fn session_at(&self, now: Now) -> Result<Option<Session>, EndReason> {
        let Some(id) = &self.session else { return Ok(None) };
        let found = self.store.session(id).await.map_err(|_| EndReason::Session)?;
        Ok(Some(found.filter(|session| session.is_valid_at(now.wall)).ok_or(EndReason::Session)?))
    }

    /// Lets a body through until it ends or may no longer live.
    pub(super) fn over(self, body: Body) -> Body {
        if body.is_end_stream() || body.size_hint().upper().is_some_and(|len| len <= SHORT_LEN) {
            return body;
        }
        crate::body::boxed(Watched { body, revoked: Box::pin(self.revoked()) })
    }
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
