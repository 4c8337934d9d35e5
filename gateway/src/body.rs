//! The one body type that requests and responses carry between listener, proxy and app: streamed, never collected.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

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
