//! The protocol side of the WireGuard door: datagrams in, packets, replies and events out. Pure but for boringtun's clock.
//!
//! [`front`] sorts what comes from anybody, and sends cookies when much does. [`peer`] is one peer: its [`tunnel`], where it is, and
//! the rule that it speaks with its own addresses alone. [`table`] finds peers by key and by index, [`train`] puts datagrams into as
//! few calls of the system as they need. What must not live here: sockets, tasks, the store, and who may reach what.

#[cfg(test)]
pub(crate) mod client;
pub mod counters;
pub mod front;
pub mod peer;
pub mod table;
#[cfg(test)]
mod tests;
pub mod train;
pub mod tunnel;

/// Octets of an inner packet at most, either way: what WireGuard leaves of an Ethernet frame.
pub const MTU: usize = 1420;

/// Octets of a datagram that is looked at: an inner packet with its wrapping and padding, and some to spare for peers whose device
/// has larger packets. Those are thrown away as packets, and counted as such.
pub const DATAGRAM_MAX: usize = 2048;
