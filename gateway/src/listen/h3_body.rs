//! A request's body over HTTP/3, held to the length that its header announces (RFC 9114, 4.1.2).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    stream::{self, BoxStream, StreamExt as _},
};
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use pomerium_shared::tunnel::ServerRecv;

use crate::body::BodyError;

/// The body; ends with an error where it is shorter or longer than announced.
pub(super) struct RequestBody {
    pieces: BoxStream<'static, Result<Frame<Bytes>, BodyError>>,
    /// Bytes that must still come; `None`: none were announced.
    left: Option<u64>,
    /// Nothing comes: the request ended with its header.
    is_empty: bool,
}

/// More or less came than was announced: the next request on a connection to an app must not begin in the middle of this.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is not as long as its content-length says")]
struct OtherLength;

/// The request's header speaks of a connection, or does not say how long the body is: malformed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's header has no place in HTTP/3")]
pub(super) struct Malformed;

/// The announced length of a request's body, if its fields may stand in HTTP/3 at all (RFC 9114, 4.2 and 4.1.2).
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let names = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if names.iter().any(|name| headers.contains_key(*name))
        || headers.get_all(header::TE).iter().any(|te| te.as_bytes() != b"trailers")
    {
        return Err(Malformed);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) => {
            length.to_str().ok().and_then(|length| length.parse().ok()).map(Some).ok_or(Malformed)
        }
        (Some(_), _) => Err(Malformed),
    }
}

impl RequestBody {
    /// The body that `recv` brings, and as many octets as were announced.
    pub(super) fn new(recv: ServerRecv, length: Option<u64>) -> Self {
        let pieces = stream::unfold(Some(recv), |recv| async move {
            let mut recv = recv?;
            match recv.recv().await {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(recv))),
                Ok(None) => match recv.trailers().await {
                    Ok(trailers) => Some((Ok(Frame::trailers(trailers?)), None)),
                    Err(error) => Some((Err(BodyError::from(error)), None)),
                },
                Err(error) => Some((Err(BodyError::from(error)), Some(recv))),
            }
        });
        Self::of(pieces.boxed(), length)
    }

    /// Most requests end with their header, which has come with it then: those are known to have no body.
    fn of(mut pieces: BoxStream<'static, Result<Frame<Bytes>, BodyError>>, length: Option<u64>) -> Self {
        let first = pieces.next().now_or_never();
        let is_empty = matches!(first, Some(None)) && length.unwrap_or(0) == 0;
        let pieces = match first {
            Some(Some(piece)) => stream::iter([piece]).chain(pieces).boxed(),
            Some(None) => stream::empty().boxed(),
            None => pieces,
        };
        Self { pieces, left: length, is_empty }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = match self.pieces.poll_next_unpin(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(piece) => piece,
        };
        let length = match &piece {
            Some(Ok(frame)) => frame.data_ref().map(Bytes::len),
            Some(Err(_)) => return Poll::Ready(piece),
            None => None,
        };
        Poll::Ready(match (length, self.left) {
            (_, None) => piece,
            (Some(length), Some(left)) => match left.checked_sub(length as u64) {
                Some(left) => {
                    self.left = Some(left);
                    piece
                }
                None => Some(Err(OtherLength.into())),
            },
            // The end, or the trailers before it.
            (None, Some(0)) => piece,
            (None, Some(1..)) => Some(Err(OtherLength.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_empty {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn read(pieces: &'static [&'static str], length: Option<u64>) -> Option<Bytes> {
        let pieces =
            stream::iter(pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))));
        let body = RequestBody::of(pieces.boxed(), length);
        body.collect().await.ok().map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_announced_or_broken() {
        assert_eq!(read(&["ab", "c"], Some(3)).await.unwrap(), "abc");
        assert_eq!(read(&["ab", "c"], None).await.unwrap(), "abc");
        assert_eq!(read(&[], Some(0)).await.unwrap(), "");
        assert_eq!(read(&["ab", "c"], Some(2)).await, None);
        assert_eq!(read(&["ab"], Some(3)).await, None);
        assert_eq!(read(&["ab"], Some(0)).await, None);
        assert_eq!(read(&[], Some(1)).await, None);
    }

    #[test]
    fn a_request_that_ended_with_its_header_has_no_body_and_others_may() {
        let piece = || Ok(Frame::data(Bytes::from_static(b"x")));
        let is_empty = |pieces, length| RequestBody::of(pieces, length).is_end_stream();
        assert!(is_empty(stream::empty().boxed(), None));
        assert!(is_empty(stream::empty().boxed(), Some(0)));
        assert!(!is_empty(stream::empty().boxed(), Some(1)), "an announced octet is missing");
        assert!(!is_empty(stream::pending().boxed(), None), "its end has not come yet");
        assert!(!is_empty(stream::iter([piece()]).boxed(), None));
    }
}
