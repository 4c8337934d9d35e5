//! Memory that peers' tasks work in: borrowed for a moment, so that a thousand quiet peers have none.

use std::sync::{Mutex, PoisonError};

use pomerium_shared::netstack::flows::Driver;

use crate::wireguard::{DATAGRAM_MAX, train::Train};

/// Octets of packets that are opened before the netstack sees them.
const OPENED_MAX: usize = 64 * 1024;
/// Sets that are kept for the next; more are in use only while sockets are full.
const KEPT_MAX: usize = 16;

/// The sets that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Buffers>>);

/// What one task works in.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) opened: Opened,
    pub(super) train: Train,
}

/// Packets out of a tunnel, one behind the other.
#[derive(Debug)]
pub(super) struct Opened {
    memory: Box<[u8]>,
    lens: Vec<usize>,
    used: usize,
}

impl Pool {
    /// An empty set.
    pub(super) fn borrow(&self) -> Buffers {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Buffers { opened: Opened::new(), train: Train::new(1) })
    }

    /// Takes an empty set back. One that is not given back is no more.
    pub(super) fn give_back(&self, buffers: Buffers) {
        debug_assert!(
            buffers.opened.used == 0 && buffers.train.ready().is_none(),
            "no packet is left behind"
        );
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(buffers);
        }
    }
}

impl Opened {
    fn new() -> Self {
        let memory = vec![0; OPENED_MAX + DATAGRAM_MAX].into_boxed_slice();
        Self { memory, lens: Vec::new(), used: 0 }
    }

    /// Where the next packet is to be written.
    pub(super) fn room(&mut self) -> &mut [u8; DATAGRAM_MAX] {
        let used = self.used.min(OPENED_MAX);
        self.memory[used..].first_chunk_mut().expect("there is room for one more behind the last place")
    }

    /// Takes `len` octets of [`Self::room`] as a packet; `false`: there is no room for another.
    pub(super) fn push(&mut self, len: usize) -> bool {
        let len = len.min(DATAGRAM_MAX);
        self.lens.push(len);
        self.used += len;
        self.used <= OPENED_MAX
    }

    /// Hands all packets to a netstack.
    pub(super) fn hand_over(&mut self, driver: &Driver) {
        let mut rest = &self.memory[..self.used];
        if !rest.is_empty() {
            driver.receive(self.lens.drain(..).map(|len| {
                let (packet, behind) = rest.split_at(len);
                rest = behind;
                packet
            }));
        }
        self.used = 0;
    }
}
