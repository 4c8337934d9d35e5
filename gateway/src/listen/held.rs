//! Answers on their way to clients: each keeps its request under way, and is let go where its client takes nothing of it.
//!
//! Nobody asks an answer for more while its client does not read: so no limit inside of it is ever looked at, and a client that stands
//! still would hold an app's connection for as long as it likes. The look is taken from outside.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{task::AbortHandle, time::Instant};
use tokio_util::task::TaskTracker;

use super::idle::UnderWay;
use crate::body::{Body, BodyError};

/// The client did not read.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing of its answer for too long")]
pub(super) struct NotTaken;

/// How long a client may take nothing of an answer, and who looks.
pub(super) struct Limit {
    pub(super) idle: Option<Duration>,
    pub(super) tracker: TaskTracker,
}

/// An answer's body that keeps its request under way until it has been sent, or until its client has taken nothing of it for
/// too long.
pub(super) struct Held {
    state: Arc<Mutex<State>>,
    limit: Limit,
    /// Looks, once there is more than one piece.
    looking: Option<AbortHandle>,
}

struct State {
    /// `None`: let go.
    answer: Option<(Body, UnderWay)>,
    /// Since when a piece has been with the client, and no further one asked for.
    since: Option<Instant>,
}

impl Held {
    pub(super) fn new(body: Body, request: UnderWay, limit: Limit) -> Self {
        let state = State { answer: Some((body, request)), since: None };
        Self { state: Arc::new(Mutex::new(state)), limit, looking: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets an answer go whose client has taken nothing for `idle`.
async fn look(state: Arc<Mutex<State>>, idle: Duration) {
    let mut next = idle;
    loop {
        tokio::time::sleep(next).await;
        let mut state = lock(&state);
        // Without: the app is waited for.
        next = state.since.map_or(idle, |since| idle.saturating_sub(since.elapsed()));
        if next.is_zero() {
            let answer = state.answer.take();
            drop(state);
            drop(answer);
            return tracing::debug!("an answer was broken off: its client takes nothing of it");
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state();
        let Some((body, _)) = &mut state.answer else {
            return Poll::Ready(Some(Err(NotTaken.into())));
        };
        let polled = Pin::new(&mut *body).poll_frame(context);
        let is_more = matches!(polled, Poll::Ready(Some(Ok(_)))) && !body.is_end_stream();
        state.since = is_more.then(Instant::now);
        drop(state);
        if let (true, None, Some(idle)) = (is_more, &self.looking, self.limit.idle) {
            let looking = self.limit.tracker.spawn(look(self.state.clone(), idle));
            self.looking = Some(looking.abort_handle());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.state().answer.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.state().answer.as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::{
        super::{Waits, idle::Activity},
        *,
    };
    use crate::body::boxed;

    const IDLE: Duration = Duration::from_secs(300);

    /// Three pieces, with a pause of the app's before each.
    fn held(pause: Duration) -> Held {
        let frames = futures_util::stream::iter(0..3).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"piece")))
        });
        let limit = Limit { idle: Some(IDLE), tracker: TaskTracker::new() };
        Held::new(boxed(StreamBody::new(Box::pin(frames))), Activity::new(Waits::USUAL).begin(), limit)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_whose_client_takes_nothing_is_let_go_and_does_not_look_whole() {
        let mut held = held(Duration::ZERO);
        held.frame().await.unwrap().unwrap();
        tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
        held.frame().await.unwrap().unwrap();
        assert!(held.state().answer.is_some(), "slow, and still there");
        tokio::time::sleep(IDLE + Duration::from_secs(1)).await;
        assert!(held.state().answer.is_none(), "its app's connection is free, though nobody asks for more");
        assert!(!held.is_end_stream());
        assert!(held.frame().await.unwrap().unwrap_err().is::<NotTaken>());
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_that_takes_its_time_is_no_clients_fault() {
        assert_eq!(held(10 * IDLE).collect().await.unwrap().to_bytes().len(), 15);
    }
}
