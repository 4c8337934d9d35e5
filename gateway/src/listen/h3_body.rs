//! A request's body over HTTP/3, held to the length that its header announces (RFC 9114, 4.1.2).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use http_body::{Body, Frame, SizeHint};
use pomerium_shared::tunnel::ServerRecv;

use crate::body::BodyError;

/// The body; ends with an error where it is shorter or longer than announced.
pub(super) struct RequestBody {
    pieces: BoxStream<'static, Result<Bytes, BodyError>>,
    /// Bytes that must still come; `None`: none were announced.
    left: Option<u64>,
}

/// More or less came than was announced: the next request on a connection to an app must not begin in the middle of this.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is not as long as its content-length says")]
struct OtherLength;

impl RequestBody {
    pub(super) fn new(recv: ServerRecv, length: Option<u64>) -> Self {
        let pieces = futures_util::stream::unfold(recv, |mut recv| async move {
            match recv.recv().await {
                Ok(Some(bytes)) => Some((Ok(bytes), recv)),
                Ok(None) => None,
                Err(error) => Some((Err(BodyError::from(error)), recv)),
            }
        });
        Self { pieces: pieces.boxed(), left: length }
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
        Poll::Ready(match (piece, self.left) {
            (Some(Ok(bytes)), Some(left)) => match left.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    self.left = Some(left);
                    Some(Ok(Frame::data(bytes)))
                }
                None => Some(Err(OtherLength.into())),
            },
            (None, Some(1..)) => Some(Err(OtherLength.into())),
            (piece, _) => piece.map(|piece| piece.map(Frame::data)),
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn read(pieces: &'static [&'static str], length: Option<u64>) -> Option<Bytes> {
        let pieces =
            futures_util::stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))));
        let body = RequestBody { pieces: pieces.boxed(), left: length };
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
    }
}
