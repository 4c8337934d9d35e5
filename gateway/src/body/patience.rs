//! For how long a body is waited for: a request's while it arrives (`timeout_read`), an answer's to its end (`timeout`), and its
//! next piece (`idle_timeout`).

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep};

use super::{Body, BodyError};

/// Each so many bytes of a request earn a second: a large upload is not a slow one.
const BYTES_PER_SECOND: u64 = 1024;

/// When the time for an answer is over.
pub(crate) type TooLate = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for a request's body only so long; travels with the request, to be told when that is over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// The answer has begun: from now on the client may take as long as it likes.
    pub(crate) fn is_over(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn was_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The client sent too little for too long.
#[derive(Debug, thiserror::Error)]
#[error("the request did not arrive in time")]
struct TooSlow;

/// The app answered for too long.
#[derive(Debug, thiserror::Error)]
#[error("the app's answer took longer than its route allows")]
struct TookTooLong;

/// The app stopped in the middle of its answer.
#[derive(Debug, thiserror::Error)]
#[error("the app's answer stood still for longer than its route allows")]
struct StoodStill;

/// Whether something failed because a request did not arrive in time.
pub(crate) fn is_cause(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| Error::source(*error)).any(|error| error.is::<TooSlow>())
}

/// Gives a request's body `limit` to arrive, and a second more for each KiB. Only waiting for the client counts.
pub(crate) fn over(request: Request<Body>, limit: Option<Duration>) -> Request<Body> {
    let Some(limit) = limit.filter(|_| !request.body().is_end_stream()) else { return request };
    let patience = Patience::default();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(patience.clone());
    let waiting = Waiting { body, patience, limit, left: limit, since: None };
    Request::from_parts(parts, waiting.boxed_unsync())
}

struct Waiting {
    body: Body,
    patience: Patience,
    limit: Duration,
    left: Duration,
    /// Since when the client is waited for, and when that ends.
    since: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// What is left of `limit` after bytes came.
fn earned(left: Duration, bytes: u64, limit: Duration) -> Duration {
    left.saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_SECOND)).min(limit)
}

impl HttpBody for Waiting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some((since, _)) = self.since.take() {
                self.left = self.left.saturating_sub(since.elapsed());
            }
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.left = earned(self.left, bytes, self.limit);
            }
            return Poll::Ready(frame);
        }
        if self.patience.was_ended() {
            return Poll::Pending;
        }
        let left = self.left;
        let (_, end) = self.since.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        match end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(TooSlow.into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Lets an answer's body through until it is too late, and breaks it off then.
pub(crate) fn until(body: Body, too_late: TooLate) -> Body {
    Until { body, too_late }.boxed_unsync()
}

struct Until {
    body: Body,
    too_late: TooLate,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.too_late.as_mut().poll(context).is_ready() {
            self.too_late = Box::pin(std::future::pending());
            self.body = super::empty();
            return Poll::Ready(Some(Err(TookTooLong.into())));
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

/// Breaks an answer's body off where nothing of it comes for `limit`. Only waiting for the app counts: a client may take its time.
pub(crate) fn never_idle(body: Body, limit: Option<Duration>) -> Body {
    match limit {
        Some(limit) => NeverIdle { body, limit, end: None }.boxed_unsync(),
        None => body,
    }
}

struct NeverIdle {
    body: Body,
    limit: Duration,
    /// While the app is waited for.
    end: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for NeverIdle {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.end = None;
            return Poll::Ready(frame);
        }
        let limit = self.limit;
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if end.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        (self.end, self.body) = (None, super::empty());
        Poll::Ready(Some(Err(StoodStill.into())))
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
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;

    use super::*;
    use crate::body::boxed;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A client that sends `piece` bytes again and again, with a pause before each.
    fn client(pieces: usize, piece: usize, pause: Duration) -> Body {
        let frames = stream::unfold(0, move |sent| async move {
            if sent == pieces {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((Ok::<_, BodyError>(Frame::data(Bytes::from(vec![0; piece]))), sent + 1))
        });
        boxed(StreamBody::new(Box::pin(frames)))
    }

    async fn arrives(body: Body) -> bool {
        let request = over(Request::new(body), Some(LIMIT));
        match request.into_body().collect().await {
            Ok(_) => true,
            Err(error) => {
                assert!(is_cause(error.as_ref()));
                false
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_steadily_is_waited_for_and_who_dribbles_or_pauses_is_not() {
        let second = Duration::from_secs(1);
        assert!(arrives(client(3600, 2048, second)).await, "an hour, at two KiB a second");
        assert!(arrives(client(1, 1, 29 * second)).await);
        assert!(!arrives(client(1, 1, 31 * second)).await, "a pause");
        assert!(!arrives(client(60, 10, second)).await, "ten bytes a second");
        let banked = client(1, 1 << 30, second).collect().await.unwrap().to_bytes();
        let late = StreamBody::new(Box::pin(stream::iter([Ok::<_, BodyError>(Frame::data(banked))]).chain(
            stream::once(async move {
                tokio::time::sleep(31 * second).await;
                Ok(Frame::data(Bytes::new()))
            }),
        )));
        assert!(!arrives(boxed(late)).await, "what came fast before buys no longer pause");
    }

    #[tokio::test(start_paused = true)]
    async fn once_the_answer_has_begun_a_client_may_be_silent() {
        let request = over(Request::new(client(2, 1, Duration::from_secs(3600))), Some(LIMIT));
        request.extensions().get::<Patience>().unwrap().is_over();
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stands_still_is_broken_off_and_a_slow_reader_is_not() {
        let second = Duration::from_secs(1);
        let app = |pause| never_idle(client(3, 1, pause), Some(10 * second));
        assert_eq!(app(9 * second).collect().await.unwrap().to_bytes().len(), 3);
        assert!(app(11 * second).collect().await.is_err());
        let mut slow = app(second);
        while let Some(frame) = slow.frame().await {
            frame.unwrap();
            tokio::time::sleep(60 * second).await;
        }
        assert_eq!(
            never_idle(client(1, 1, 3600 * second), None).collect().await.unwrap().to_bytes().len(),
            1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_too_long_is_broken_off() {
        let within =
            |limit| until(client(10, 1, Duration::from_secs(1)), Box::pin(tokio::time::sleep(limit)));
        assert!(within(Duration::from_secs(11)).collect().await.is_ok());
        assert!(within(Duration::from_secs(5)).collect().await.is_err());
    }
}
