//! IP packets in, flows out: TCP connections and UDP flows, ended in user space.
//!
//! The gateway's WireGuard listener and the client's TUN mode hand over packets and get flows to decide on. A SYN is answered
//! only by [`accept`](flows::Opening::accept): a port that is denied, or behind which nobody answers, is refused and never open. Whatever is
//! not a whole packet for an address of the stack is dropped and counted.
//!
//! [`stack`] is the core, without I/O and with the time as an argument; it stands on smoltcp for TCP alone (ADR 0015).
//! [`flows`] is the thin shell that runs it under tokio. What must not live here: which address is which route
//! ([`names`](crate::names)), who may do what, and where packets come from.
//!
//! ```
//! use std::net::Ipv4Addr;
//! use pomerium_shared::{clock::Now, netstack::{Refusal, flows::{Flow, netstack}, settings::Settings, stack::Stack}};
//! use tokio::sync::mpsc;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let db = Ipv4Addr::new(100, 64, 0, 7);
//! let mut settings = Settings::new(0x5eed); // from a random source
//! settings.own = vec![Ipv4Addr::new(100, 64, 0, 1).into()];
//! let (driver, mut flows) = netstack(Stack::new(settings, move |to| to == db, Now::read().monotonic));
//!
//! // From and to the device. When a channel is full, drop the packet, as a network does.
//! let (to_stack, incoming) = mpsc::channel(256);
//! let (outgoing, from_stack) = mpsc::channel(256);
//! let mut tasks = tokio::task::JoinSet::new();
//! tasks.spawn(driver.run(incoming, outgoing));
//! # drop((to_stack, from_stack));
//!
//! while let Some(flow) = flows.next().await {
//!     match flow {
//!         Flow::Tcp(opening) if opening.destination().port() == 5432 => {
//!             // Ask policy, dial the app, and only then:
//!             let Ok(mut stream) = opening.accept() else { continue };
//!             tasks.spawn(async move { drop(tokio::io::AsyncWriteExt::shutdown(&mut stream).await) });
//!         }
//!         Flow::Tcp(opening) => opening.refuse(Refusal::Reset),
//!         Flow::Udp(flow) => flow.refuse(Refusal::Prohibited),
//!     }
//! }
//! # }
//! ```

use std::collections::VecDeque;

mod connection;
pub mod counters;
mod datagrams;
pub mod flows;
mod half_open;
mod in_flight;
mod packet;
mod pair;
mod recovery;
pub mod settings;
pub mod stack;
#[cfg(test)]
mod tests;

pub use connection::{Read, Reset};
pub use pair::FlowId;

/// How a flow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As if nobody listened: TCP gets a reset, UDP "port unreachable".
    Reset,
    /// Policy says no: ICMP "administratively prohibited".
    Prohibited,
}

/// Packets that wait to be sent.
#[derive(Debug, Default)]
struct Outbox {
    packets: VecDeque<Vec<u8>>,
    packets_max: usize,
}

impl Outbox {
    const fn new(packets_max: usize) -> Self {
        Self { packets: VecDeque::new(), packets_max }
    }

    fn has_room(&self) -> bool {
        self.packets.len() < self.packets_max
    }

    fn push(&mut self, packet: Vec<u8>) {
        self.packets.push_back(packet);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    fn len(&self) -> usize {
        self.packets.len()
    }
}
