//! How much of a body there may be.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::{Body, BodyError};

/// The body is longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("the body is longer than its route allows")]
struct TooLong;

/// Whether something failed because a body was too long.
pub(crate) fn is_cause(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| Error::source(*error)).any(|error| error.is::<TooLong>())
}

/// Lets so many octets of `body` through, and fails at the first beyond.
pub(crate) fn to(body: Body, octets: u64) -> Body {
    Limited { body, left: octets }.boxed_unsync()
}

struct Limited {
    body: Body,
    left: u64,
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let len = frame.data_ref().map_or(0, Bytes::len) as u64;
            match self.left.checked_sub(len) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(TooLong.into()))),
            }
        }
        polled
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
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn what_fits_arrives_and_one_octet_more_does_not() {
        for (octets, fits) in [(5, true), (4, false), (0, false)] {
            let frames = ["ab", "cde"].map(|data| Ok::<_, BodyError>(Frame::data(Bytes::from(data))));
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            match to(body, octets).collect().await {
                Ok(collected) => assert!(fits && collected.to_bytes() == "abcde", "{octets}"),
                Err(error) => assert!(!fits && is_cause(&*error), "{octets}"),
            }
        }
    }
}
