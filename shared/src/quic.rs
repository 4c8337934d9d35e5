//! QUIC settings of both ends: flow-control windows, timers, socket buffers.
//!
//! What crosses the streams lives in [`crate::tunnel`].

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    IdleTimeout, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use socket2::{Domain, Protocol, Socket, Type};

pub use self::nudge::nudge;

mod nudge;
mod path_model;

/// A connection without a packet for this long is lost. Who walks from one network to another comes back well within it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The client's probe interval: several may be lost before [`IDLE_TIMEOUT`], and NAT bindings live (RFC 4787 asks for
/// two minutes, many routers give thirty seconds).
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Streams that a stranger may hold open at a time: a browser's page with room to spare. Each may make the gateway hold
/// a request's header.
const BIDI_STREAMS_OF_STRANGER: u32 = 100;

/// Streams that a client may hold open once one of them was let through: a database pool's connections with room to
/// spare. For [`quinn::Connection::set_max_concurrent_bi_streams`].
pub const BIDI_STREAMS_MAX: VarInt = VarInt::from_u32(10_000);

/// HTTP/3 needs three one-way streams a side (RFC 9114, 6.2); the rest is for peers that grease.
const UNI_STREAMS_MAX: u32 = 16;

/// Bytes in flight on one stream: 500 Mbit/s at 250 ms of round trip.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;

/// Bytes that one connection may make us hold.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// Bytes of socket buffer that we ask for; the kernel grants up to `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Why QUIC settings could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuicError {
    /// The TLS settings lack TLS 1.3 or its `AES_128_GCM_SHA256`, with which QUIC's first packets are sealed
    /// (RFC 9001, 5.2).
    #[error("QUIC needs TLS 1.3 with AES_128_GCM_SHA256")]
    NoInitialCipherSuite(#[from] NoInitialCipherSuite),
}

/// The gateway's QUIC settings over its TLS settings, whose ALPN must have `h3`.
///
/// # Errors
/// [`QuicError::NoInitialCipherSuite`].
pub fn server_config(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, QuicError> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport())).migration(true);
    Ok(config)
}

/// The client's QUIC settings over its TLS settings, whose ALPN must have `h3`.
///
/// # Errors
/// [`QuicError::NoInitialCipherSuite`].
pub fn client_config(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, QuicError> {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = transport();
    // A server of HTTP/3 opens no two-way streams (RFC 9114, 6.1).
    transport.keep_alive_interval(Some(KEEP_ALIVE)).max_concurrent_bidi_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("a minute fits QUIC's 62 bits of milliseconds");
    transport
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_OF_STRANGER))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(STREAM_WINDOW))
        .congestion_controller_factory(Arc::new(nudge::NudgeFactory));
    transport
}

/// Binds a UDP socket for QUIC with large buffers, ready for [`quinn::Endpoint::new`].
///
/// An IPv6 address is bound for IPv6 alone, so that `[::]` and `0.0.0.0` may stand side by side.
///
/// # Errors
/// What the system says to `socket` and `bind`. Buffers smaller than asked for are no error.
pub fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Best effort: the socket works with the system's default, only slower.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
