//! What was thrown away, by reason.

/// Why a packet, or what it asked for, was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// Shorter than its own headers say.
    #[error("truncated")]
    Truncated,
    /// Longer than the MTU.
    #[error("oversized")]
    Oversized,
    /// No IP version that exists, or fields that contradict each other.
    #[error("malformed")]
    Malformed,
    /// A checksum is wrong.
    #[error("bad checksum")]
    BadChecksum,
    /// A part of a packet: nothing is put together here.
    #[error("fragment")]
    Fragment,
    /// An IPv6 header between the IPv6 header and the payload.
    #[error("extension header")]
    ExtensionHeader,
    /// From or to an address that no single machine has: multicast, broadcast, loopback, unspecified, or from its destination.
    #[error("martian")]
    Martian,
    /// Neither TCP nor UDP nor an echo request.
    #[error("protocol")]
    Protocol,
    /// To an address that the stack does not answer for.
    #[error("foreign destination")]
    Foreign,
    /// Belongs to no connection.
    #[error("unexpected segment")]
    Unexpected,
    /// A SYN, with as many waiting for a decision as may.
    #[error("too many half-open connections")]
    HalfOpenFull,
    /// A connection or UDP flow, with as many open as may.
    #[error("too many flows")]
    FlowsFull,
    /// A datagram, with as much waiting in its flow as may.
    #[error("too many datagrams queued")]
    DatagramsFull,
    /// A packet to send, with as many waiting as may.
    #[error("too many packets to send")]
    OutboxFull,
    /// A reply to a stranger, with as many sent this second as may be.
    #[error("too many replies")]
    RateLimited,
}

/// All reasons, in their order.
const ALL: [Dropped; REASONS] = [
    Dropped::Truncated,
    Dropped::Oversized,
    Dropped::Malformed,
    Dropped::BadChecksum,
    Dropped::Fragment,
    Dropped::ExtensionHeader,
    Dropped::Martian,
    Dropped::Protocol,
    Dropped::Foreign,
    Dropped::Unexpected,
    Dropped::HalfOpenFull,
    Dropped::FlowsFull,
    Dropped::DatagramsFull,
    Dropped::OutboxFull,
    Dropped::RateLimited,
];
/// How many [`Dropped`] there are.
const REASONS: usize = 15;
const _: () = assert!(Dropped::RateLimited as usize + 1 == REASONS);

/// How often each [`Dropped`] happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters([u64; REASONS]);

impl Counters {
    pub(super) fn count(&mut self, reason: Dropped) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, reason: Dropped) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// What has happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.0.iter_mut().zip(before.0) {
            *count = count.saturating_sub(before);
        }
        since
    }

    /// Counts what another stack threw away as well.
    pub fn add(&mut self, more: &Self) {
        for (count, more) in self.0.iter_mut().zip(more.0) {
            *count = count.saturating_add(more);
        }
    }

    /// What happened at all, and how often.
    pub fn seen(&self) -> impl Iterator<Item = (Dropped, u64)> {
        ALL.into_iter().map(|reason| (reason, self.of(reason))).filter(|(_, count)| *count > 0)
    }

    /// How often anything was thrown away.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_and_by_its_name() {
        let mut counters = Counters::default();
        for reason in ALL {
            counters.count(reason);
        }
        let seen: Vec<_> = counters.seen().collect();
        assert_eq!(seen, ALL.map(|reason| (reason, 1)));
        assert_eq!(counters.total(), REASONS as u64);
        assert_eq!(Counters::default().seen().count(), 0);
    }

    #[test]
    fn counters_of_several_stacks_are_added_up_and_each_drop_is_counted_once() {
        let (mut one, mut all) = (Counters::default(), Counters::default());
        one.count(Dropped::Martian);
        let before = one;
        all.add(&one.since(&Counters::default()));
        one.count(Dropped::Martian);
        one.count(Dropped::Fragment);
        all.add(&one.since(&before));
        assert_eq!(all.seen().collect::<Vec<_>>(), [(Dropped::Fragment, 1), (Dropped::Martian, 2)]);
    }
}
