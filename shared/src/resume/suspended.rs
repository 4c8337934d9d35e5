//! The gateway's end of a stream between two processes: all that the next one needs to go on, as octets that outlive the first.

use std::io::{self, Write};

use bytes::{Buf as _, Bytes};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::tunnel::Chunks;

/// The gateway's end of a stream, without a leg and without a relay.
#[derive(Debug)]
pub struct Suspended {
    pub(super) ledger: Ledger,
    /// How far the client's octets have come, its end included.
    pub(super) received: u64,
    pub(super) peer_ended: bool,
    /// Those of them that the app has not taken.
    pub(super) arrived: Chunks,
}

/// What was read is not what a process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no record of a stream")]
pub struct BadRecord;

/// How far a stream is; the octets lie beside it: those that the app has not taken, then those that the client has not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub(super) received: u64,
    pub(super) client_ended: bool,
    pub(super) not_taken: usize,
    pub(super) confirmed: u64,
    pub(super) sent: u64,
    pub(super) added: u64,
    pub(super) app_ended: bool,
    pub(super) has_gap: bool,
}

impl Suspended {
    /// Octets that the app has taken.
    #[must_use]
    pub fn bytes_from_client(&self) -> u64 {
        (self.received - u64::from(self.peer_ended)).saturating_sub(self.arrived.remaining() as u64)
    }

    /// Octets that the app has sent.
    #[must_use]
    pub const fn bytes_from_app(&self) -> u64 {
        self.ledger.places().added
    }

    /// How far it is.
    #[must_use]
    pub fn places(&self) -> Places {
        let not_taken = self.arrived.remaining();
        Places { received: self.received, client_ended: self.peer_ended, not_taken, ..self.ledger.places() }
    }

    /// Writes the octets that it keeps.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_octets(&self, to: &mut impl Write) -> io::Result<()> {
        self.arrived.iter().chain(self.ledger.kept()).try_for_each(|octets| to.write_all(octets))
    }

    /// What was written.
    ///
    /// # Errors
    /// [`BadRecord`] if the octets are not those of the places.
    pub fn of(places: Places, mut octets: Bytes) -> Result<Self, BadRecord> {
        if octets.len() < places.not_taken || places.received < u64::from(places.client_ended) {
            return Err(BadRecord);
        }
        let arrived = octets.split_to(places.not_taken).into();
        let ledger = Ledger::of(places, octets).ok_or(BadRecord)?;
        Ok(Self { ledger, received: places.received, peer_ended: places.client_ended, arrived })
    }
}

impl Places {
    /// Those of the octets to the client.
    pub(super) const fn to_client(
        confirmed: u64,
        sent: u64,
        added: u64,
        app_ended: bool,
        has_gap: bool,
    ) -> Self {
        Self { received: 0, client_ended: false, not_taken: 0, confirmed, sent, added, app_ended, has_gap }
    }
}
