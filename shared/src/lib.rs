//! What both ends of the gateway must agree on.
//!
//! Here live the tunnel ([`tunnel`]), the words for what is reached ([`destination`]) and for how a stream ends
//! ([`reason`], [`problem`], [`relay`]), and the TLS and QUIC settings of both ends ([`tls`], [`quic`]).
//!
//! [`netstack`] makes flows of IP packets, [`names`] gives routes the addresses that such packets go to; [`wireguard`] has the
//! keys and documents of those whose packets come through WireGuard.
//! [`netstack`] makes flows of IP packets, [`names`] gives routes the addresses that such packets go to. [`finding`] is what
//! both doctors say.
//!
//! [`events`] is what a gateway tells clients unasked.
//!
//! What must not live here: policy, store, prompts, command lines, and helpers that only one side needs.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod destination;
pub mod events;
pub mod finding;
pub mod names;
pub mod netstack;
pub mod posture;
pub mod problem;
pub mod quic;
pub mod reason;
pub mod relay;
pub mod resume;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
pub mod udp;
pub mod wireguard;
