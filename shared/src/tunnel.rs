//! The tunnel: streams to apps inside one QUIC connection, as standard HTTP/3 CONNECT (RFC 9114, 4.4).
//!
//! Here live both ends of it: the gateway accepts ([`accept`], [`ServerStream`]), the client asks ([`TunnelClient`]);
//! an open stream becomes a [`Leg`](crate::relay::Leg), which [`crate::relay`] joins with another. Who may reach what
//! is decided elsewhere.

use h3::{
    error::{Code, ConnectionError, StreamError},
    quic::ConnectionErrorIncoming,
};

use crate::reason::EndReason;

mod chunks;
mod client;
mod extended;
pub mod h3_quinn;
mod server;

pub use chunks::Chunks;
pub use client::{Connected, Streamed, TunnelClient, TunnelEnd};
pub use extended::Protocol;
pub use server::{RequestToCome, ServerConnection, ServerRecv, ServerSend, ServerStream, accept, request};

/// Bytes of a field section (uncompressed, RFC 9114, 4.2.2) that we take: room for the largest cookies and tokens.
const FIELD_SECTION_LEN_MAX: u64 = 64 * 1024;

/// Why the tunnel, or one request in it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The connection under the tunnel is gone, or broke HTTP/3's rules.
    #[error("the connection to the gateway was lost")]
    Connection(#[from] ConnectionError),
    /// The peer cut the stream, or the stream broke HTTP/3's rules.
    #[error("the stream failed")]
    Stream(#[from] StreamError),
    /// The answer's body is longer than the caller takes.
    #[error("the answer is longer than {len_max} bytes")]
    BodyTooLong {
        /// The caller's limit.
        len_max: usize,
    },
    /// The request cannot be written as HTTP.
    #[error("the request is not valid HTTP")]
    BadRequest(#[from] http::Error),
}

impl TunnelError {
    /// Whether the gateway has not even looked at the request, so that it may be made again elsewhere: it came after the
    /// gateway's goodbye (RFC 9114, 5.2).
    #[must_use]
    pub fn was_not_taken(&self) -> bool {
        match self {
            Self::Stream(StreamError::RemoteClosing) => true,
            Self::Stream(StreamError::RemoteTerminate { code }) => *code == Code::H3_REQUEST_REJECTED,
            _ => false,
        }
    }

    /// Why the stream ended, if the peer said so or the connection was lost.
    #[must_use]
    pub fn reason(&self) -> Option<EndReason> {
        match self {
            Self::Connection(error) => Some(connection_reason(error)),
            Self::Stream(error) => stream_reason(error),
            Self::BodyTooLong { .. } | Self::BadRequest(_) => None,
        }
    }
}

/// The reason in a stream's error; `None` if the peer gave none of ours.
pub(crate) fn stream_reason(error: &StreamError) -> Option<EndReason> {
    match error {
        StreamError::RemoteTerminate { code } => EndReason::from_error_code(code.value()),
        StreamError::ConnectionError(error) => Some(connection_reason(error)),
        StreamError::RemoteClosing => Some(EndReason::Shutdown),
        // Rules broken by the peer, or an error of a later h3: no word of ours.
        _ => None,
    }
}

fn connection_reason(error: &ConnectionError) -> EndReason {
    match error {
        ConnectionError::Remote(ConnectionErrorIncoming::ApplicationClose { error_code }) => {
            EndReason::from_error_code(*error_code).unwrap_or(EndReason::Network)
        }
        _ => EndReason::Network,
    }
}

#[cfg(test)]
pub(crate) mod tests;
