//! What the door throws away, by reason, told while it runs: a flood, and what is wrong with a peer, are seen when they happen.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pomerium_shared::netstack::counters::Counters as Inside;

use super::Door;
use crate::wireguard::counters::{Counters, Counts, to_text};

/// Between two lines of the log.
const EVERY: Duration = Duration::from_secs(60);

/// Counts for all peers together.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// Datagrams, and packets that came out of a tunnel they should not have come out of.
    pub(super) datagrams: Counters,
    /// Packets that the peers' netstacks took no further.
    packets: Mutex<Inside>,
}

/// Both counts at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    datagrams: Counts,
    packets: Inside,
}

impl Drops {
    /// Adds what one netstack threw away.
    pub(super) fn count_packets(&self, more: &Inside) {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).add(more);
    }

    /// As it is now.
    pub(super) fn seen(&self) -> Seen {
        let packets = *self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        Seen { datagrams: self.datagrams.read(), packets }
    }
}

impl Seen {
    /// What netstacks threw away.
    #[cfg(test)]
    pub(super) const fn packets(&self) -> &Inside {
        &self.packets
    }

    /// Says what was thrown away since `before`, if anything was.
    pub(super) fn tell_since(&self, before: &Self) {
        if let Some((datagrams, packets)) = self.since(before) {
            tracing::info!(datagrams, packets, "wireguard has dropped");
        }
    }

    /// The same in words, of datagrams and of packets.
    fn since(&self, before: &Self) -> Option<(String, String)> {
        let datagrams = to_text(self.datagrams.since(&before.datagrams).seen());
        let packets = to_text(self.packets.since(&before.packets).seen());
        (!datagrams.is_empty() || !packets.is_empty()).then_some((datagrams, packets))
    }
}

/// Says what is thrown away, for as long as it is polled.
pub(super) async fn tell(door: Arc<Door>) {
    let mut before = Seen::default();
    loop {
        tokio::time::sleep(EVERY).await;
        let now = door.drops.seen();
        now.tell_since(&before);
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wireguard::counters::Dropped;

    #[test]
    fn what_was_told_is_not_told_again() {
        let drops = Drops::default();
        let nothing = drops.seen();
        assert_eq!(nothing.since(&Seen::default()), None);
        drops.datagrams.count_many(Dropped::BadMac, 2);
        let first = drops.seen();
        assert_eq!(first.since(&nothing), Some(("bad mac: 2".to_owned(), String::new())));
        assert_eq!(drops.seen().since(&first), None);
        drops.datagrams.count(Dropped::BadMac);
        assert_eq!(drops.seen().since(&first), Some(("bad mac: 1".to_owned(), String::new())));
    }
}
