//! An answer that is read as it comes, over whichever way it came.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use pomerium_shared::tunnel;

use super::{Link, LinkError};

/// The body of such an answer. Dropped before its end, the request is cancelled.
#[derive(Debug)]
pub(crate) enum Streamed {
    /// In the one connection.
    Http3(Box<tunnel::Streamed>),
    /// On a connection of its own.
    Http1(Box<Incoming>),
}

impl Streamed {
    /// The next piece; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self, link: &Link) -> Result<Option<Bytes>, LinkError> {
        match self {
            Self::Http3(body) => body.next().await.map_err(|source| link.lost(source)),
            Self::Http1(body) => loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Ok(frame)) => {
                        if let Ok(piece) = frame.into_data() {
                            return Ok(Some(piece));
                        }
                    }
                    Some(Err(source)) => {
                        return Err(LinkError::LostHttp1 {
                            gateway: link.gateway().clone(),
                            source: source.into(),
                        });
                    }
                }
            },
        }
    }
}
