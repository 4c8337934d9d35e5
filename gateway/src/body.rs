//! The one body type that requests and responses carry between listener, proxy and app: streamed, never collected.

pub(crate) mod limit;
pub(crate) mod patience;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use tokio_util::sync::CancellationToken;

/// What may go wrong while a body streams.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of nothing.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Boxes any body whose errors can be boxed.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(|error| -> BodyError { error.into() }).boxed_unsync()
}

/// A body on its way to an app. The token is cancelled when the app's connection needs no more of it: at once where there is
/// none, as such a body may be kept for another try, unread.
pub(crate) fn upload(body: Body) -> (Body, CancellationToken) {
    let ended = CancellationToken::new();
    if body.is_end_stream() {
        ended.cancel();
        return (body, ended);
    }
    (keeping(body, ended.clone().drop_guard()).boxed_unsync(), ended)
}

/// Lets `body` through, with its trailers as `clean` leaves them.
pub(crate) fn with_trailers(body: Body, clean: impl Fn(&mut HeaderMap) + Send + Unpin + 'static) -> Body {
    WithTrailers { body, clean }.boxed_unsync()
}

struct WithTrailers<F> {
    body: Body,
    clean: F,
}

impl<F: Fn(&mut HeaderMap) + Unpin> HttpBody for WithTrailers<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        if let Some(trailers) = frame.trailers_mut() {
            (self.clean)(trailers);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that comes back if it is dropped before anything was read of it.
pub(crate) fn lend(body: Body) -> (Body, Home) {
    let home = Home::default();
    (Lent { body, is_touched: false, home: home.clone() }.boxed_unsync(), home)
}

/// Where a lent body comes back to.
#[derive(Clone, Default)]
pub(crate) struct Home(Arc<Mutex<Option<Body>>>);

impl Home {
    /// The body, if it is back.
    pub(crate) fn into_inner(self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Lent {
    body: Body,
    is_touched: bool,
    home: Home,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.is_touched = true;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.is_touched {
            let body = std::mem::replace(&mut self.body, empty());
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

/// Keeps something until a body is through.
pub(crate) struct Keeping<B, K> {
    body: B,
    _kept: K,
}

/// Lets `body` through and keeps `kept` until its end.
pub(crate) fn keeping<B, K>(body: B, kept: K) -> Keeping<B, K> {
    Keeping { body, _kept: kept }
}

impl<B: HttpBody + Unpin, K: Unpin> HttpBody for Keeping<B, K> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Collects a body of at most `len_max` bytes; `None` when it is longer or breaks off.
pub(crate) async fn collect(mut body: Body, len_max: usize) -> Option<Bytes> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            if collected.len() + data.len() > len_max {
                return None;
            }
            collected.extend_from_slice(&data);
        }
    }
    Some(collected.freeze())
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn an_upload_tells_its_end_and_its_trailers_are_cleaned() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-forged", http::HeaderValue::from_static("1"));
        trailers.insert("x-own", http::HeaderValue::from_static("2"));
        let frames: [Result<Frame<Bytes>, BodyError>; 2] =
            [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers))];
        let (body, ended) = upload(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
        let clean = |trailers: &mut HeaderMap| _ = trailers.remove("x-forged");
        let collected = with_trailers(body, clean).collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert!(trailers.len() == 1 && trailers["x-own"] == "2");
        assert_eq!(collected.to_bytes(), "x");
        ended.cancelled().await;
    }

    #[tokio::test]
    async fn a_lent_body_comes_back_only_untouched() {
        let (lent, home) = lend(full("abc"));
        assert_eq!(lent.size_hint().exact(), Some(3));
        drop(lent);
        assert_eq!(home.into_inner().unwrap().collect().await.unwrap().to_bytes(), "abc");
        let (mut lent, home) = lend(full("abc"));
        assert!(lent.frame().await.is_some());
        drop(lent);
        assert!(home.into_inner().is_none());
    }

    #[tokio::test]
    async fn an_upload_of_nothing_has_ended_before_it_is_sent() {
        let (body, ended) = upload(empty());
        let (lent, home) = lend(body);
        drop(lent);
        ended.cancelled().await;
        assert!(home.into_inner().is_some());
    }

    #[test]
    fn an_upload_keeps_its_length() {
        let (body, _ended) = upload(boxed(Full::new(Bytes::from_static(b"abc"))));
        assert_eq!(body.size_hint().exact(), Some(3));
    }
}
