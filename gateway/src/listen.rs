//! The doors: HTTPS on TCP (HTTP/1.1, HTTP/2) and QUIC on UDP (HTTP/3), on one port number, and WireGuard on another.
//!
//! Here: sockets, handshakes, limits, and the way from a protocol's request to [`crate::proxy`] and back. Nothing is
//! decided here.

pub(crate) mod bind;
mod client_certificate;
mod device_key;
mod h3_body;
mod held;
pub(crate) mod https;
mod idle;
pub(crate) mod inner;
mod proxy_protocol;
pub(crate) mod quic;
pub(crate) mod redirect;
mod reset;
mod shown;
pub(crate) mod staples;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;
pub(crate) mod wireguard;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::tls::{TlsError, TlsKeys};

/// Connections per listener at most; further ones wait in the kernel's queue.
pub(crate) const CONNECTIONS_MAX: usize = 20_000;

/// Streams on one HTTP/2 connection at most.
pub(crate) const STREAMS_MAX: u32 = 250;

/// Bytes of a request's header section at most.
pub(crate) const HEADER_LEN_MAX: u32 = 64 * 1024;

/// Fields in a request's header at most.
pub(crate) const HEADERS_MAX: usize = 1_000;

/// How long clients are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// For a TLS handshake: a client that needs longer is not there.
    pub(crate) handshake: Duration,
    /// For a request's header, from the handshake's end or from the request's beginning.
    pub(crate) header: Duration,
    /// For another request on a connection on which none is under way.
    pub(crate) idle: Duration,
}

impl Waits {
    /// What the gateway runs with.
    pub(crate) const USUAL: Self = Self {
        handshake: Duration::from_secs(10),
        header: Duration::from_secs(30),
        idle: Duration::from_secs(300),
    };
}

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
    /// How long who comes through them is waited for.
    pub(crate) waits: Waits,
}

impl Lifetime {
    /// Doors that are open until somebody says otherwise.
    pub(crate) fn new(waits: Waits) -> Self {
        Self {
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            doors: TaskTracker::new(),
            tracker: TaskTracker::new(),
            waits,
        }
    }
}
