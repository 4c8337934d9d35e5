//! The doors: HTTPS on TCP (HTTP/1.1, HTTP/2) and QUIC on UDP (HTTP/3), on one port number.
//!
//! Here: sockets, handshakes, limits, and the way from a protocol's request to [`crate::proxy`] and back. Nothing is
//! decided here.

pub(crate) mod bind;
pub(crate) mod https;
pub(crate) mod inner;
pub(crate) mod quic;
pub(crate) mod redirect;
mod tls;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::tls::{TlsError, TlsKeys};

/// For a TLS handshake: a client that needs longer is not there.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections per listener at most; further ones wait in the kernel's queue.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// Streams on one connection at most.
pub(crate) const STREAMS_MAX: u32 = 10_000;

/// Bytes of a request's header section at most.
pub(crate) const HEADER_LEN_MAX: u32 = 128 * 1024;

/// When the doors close, and who waits for what went through them.
#[derive(Debug, Clone)]
pub(crate) struct Lifetime {
    /// Cancelled: accept nothing more, let what is open end.
    pub(crate) drain: CancellationToken,
    /// Cancelled: end what is open.
    pub(crate) cut: CancellationToken,
    /// Owns the doors themselves.
    pub(crate) doors: TaskTracker,
    /// Owns what came in through them.
    pub(crate) tracker: TaskTracker,
}
