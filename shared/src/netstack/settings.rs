//! The bounds of a stack.

use std::{net::IpAddr, time::Duration};

/// How a stack behaves, and how much it may hold.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Octets of a packet at most, either way. Default 1420, what WireGuard leaves of an Ethernet frame; at least 1280
    /// (RFC 8200, 5), a smaller value counts as that.
    pub mtu: usize,
    /// The addresses that answer to echo requests; flows to them come up as flows to any other address.
    pub own: Vec<IpAddr>,
    /// Connections that wait for a decision at most. Default 1024; each costs its SYN, some hundred octets.
    pub half_open_max: usize,
    /// Of these, from one source address. Default 128: one peer does not take the others' places.
    pub half_open_per_source_max: usize,
    /// How long a decision may take. Default 60 s: about as long as clients repeat their SYN, and a sign-in may take.
    pub half_open_timeout: Duration,
    /// TCP connections and UDP flows at most. Default 4096; a connection takes up to twice the window, and only what its peer fills.
    pub flows_max: usize,
    /// Of these, from one source address. Default 1024. Where all come from one address, as from a TUN device, it is `flows_max`.
    pub flows_per_source_max: usize,
    /// Octets that a connection keeps each way at most. Default 256 KiB, 50 Mbit/s at 40 ms.
    pub window: usize,
    /// How long a peer may leave what it was sent without an answer before its connection is reset. Default 5 minutes: a short
    /// sleep or a change of network cuts nothing. A connection with nothing on its way has no time-out.
    pub unanswered_timeout: Duration,
    /// How long a connection that its user has left may take to deliver what was written. Default 60 s.
    pub linger_timeout: Duration,
    /// How long a UDP flow lives without a datagram. Default 2 minutes (RFC 4787, REQ-5).
    pub datagram_timeout: Duration,
    /// Octets that wait in a UDP flow for their reader at most; more are dropped. Default 128 KiB.
    pub datagram_queue: usize,
    /// Packets that wait to be sent at most. Default 512; connections wait when it is full, all else is dropped.
    pub outbox_max: usize,
    /// Resets for segments of no connection, a second. Default 100.
    pub resets_per_second: u32,
    /// From a random source; what sequence numbers begin with cannot be guessed without it.
    pub seed: u64,
}

/// Octets that every IPv6 link carries (RFC 8200, 5).
pub(super) const MTU_MIN: usize = 1280;

impl Settings {
    /// The defaults, with a seed from a random source.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            mtu: 1420,
            own: Vec::new(),
            half_open_max: 1024,
            half_open_per_source_max: 128,
            half_open_timeout: Duration::from_secs(60),
            flows_max: 4096,
            flows_per_source_max: 1024,
            window: 256 * 1024,
            unanswered_timeout: Duration::from_secs(300),
            linger_timeout: Duration::from_secs(60),
            datagram_timeout: Duration::from_secs(120),
            datagram_queue: 128 * 1024,
            outbox_max: 512,
            resets_per_second: 100,
            seed,
        }
    }
}
