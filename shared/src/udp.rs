//! UDP inside HTTP: CONNECT-UDP (RFC 9298) with HTTP Datagrams and capsules (RFC 9297).
//!
//! Here live the words ([`path`]), the codec ([`capsule`]), the sharing of one QUIC connection's DATAGRAM frames among flows
//! ([`datagrams`]), and the loop that joins a flow with a local end ([`run`]). Who may reach what is decided elsewhere.
//!
//! A payload travels as a QUIC DATAGRAM where it fits into one packet, else as a capsule on the flow's own stream: what is too
//! large for the path arrives all the same, as IP fragments would. UDP promises nothing, and so nothing here waits for a
//! slow reader: a full queue drops.

pub mod capsule;
pub mod datagrams;
mod local;
pub mod path;
mod relay;

#[cfg(test)]
mod tests;

pub use local::Local;
pub use relay::{Carriage, Near, between, run, run_counted};

/// Bytes of one payload at most: what is left of 65,535 without a UDP header (RFC 768).
pub const PAYLOAD_LEN_MAX: usize = 65_527;

/// The header field that says that a stream has capsules (RFC 9297, 3.4), and its value.
pub const CAPSULE_PROTOCOL: (&str, &str) = ("capsule-protocol", "?1");

/// The upgrade token (RFC 9298, 8.2).
pub const UPGRADE: &str = "connect-udp";
