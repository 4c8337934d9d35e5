//! What was thrown away, by reason, and what went through.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// Why a datagram, or the packet in it, was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Dropped {
    /// No message of WireGuard, or one of another length than its kind has.
    #[error("malformed")]
    Malformed,
    /// Longer than any peer of ours sends.
    #[error("oversized")]
    Oversized,
    /// Made by somebody who does not know the gateway's public key, or changed on the way.
    #[error("bad mac")]
    BadMac,
    /// A handshake, while there are many: its sender was asked to show its address first.
    #[error("asked for a cookie")]
    CookieSent,
    /// A handshake, while there are many, from an address that has sent enough of them.
    #[error("too many handshakes from one address")]
    HandshakeRate,
    /// A handshake, with as many waiting as may.
    #[error("too many handshakes waiting")]
    HandshakesFull,
    /// A handshake of a key that nobody enrolled, or whose person is signed out.
    #[error("unknown key")]
    UnknownKey,
    /// For a tunnel that is not there.
    #[error("unknown index")]
    UnknownIndex,
    /// Does not open: bit flips, forgeries, keys of the past.
    #[error("not authentic")]
    NotAuthentic,
    /// Seen before, or too old to know.
    #[error("replayed")]
    Replayed,
    /// Opens, and is no IP packet.
    #[error("not an IP packet")]
    NotIp,
    /// Opens, and comes from an address that is not the peer's.
    #[error("foreign inner source")]
    ForeignSource,
    /// With as much waiting for its peer, or for all, as may.
    #[error("too much waiting")]
    QueueFull,
    /// To a peer of which nobody knows where it is.
    #[error("peer not reachable")]
    NoEndpoint,
    /// The system did not take it.
    #[error("not sent")]
    NotSent,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 15] = [
        Self::Malformed,
        Self::Oversized,
        Self::BadMac,
        Self::CookieSent,
        Self::HandshakeRate,
        Self::HandshakesFull,
        Self::UnknownKey,
        Self::UnknownIndex,
        Self::NotAuthentic,
        Self::Replayed,
        Self::NotIp,
        Self::ForeignSource,
        Self::QueueFull,
        Self::NoEndpoint,
        Self::NotSent,
    ];
}

const _: () = assert!(Dropped::NotSent as usize + 1 == Dropped::ALL.len());

/// How often each [`Dropped`] happened, counted by many tasks at once.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Dropped::ALL.len()]);

impl Counters {
    /// Counts one.
    pub fn count(&self, reason: Dropped) {
        self.count_many(reason, 1);
    }

    /// Counts several.
    pub fn count_many(&self, reason: Dropped, times: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(times, Ordering::Relaxed);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, reason: Dropped) -> u64 {
        self.0.get(reason as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// How often each has happened so far.
    #[must_use]
    pub fn read(&self) -> Counts {
        Counts(Dropped::ALL.map(|reason| self.of(reason)))
    }
}

/// How often each [`Dropped`] had happened at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Dropped::ALL.len()]);

impl Counts {
    /// What has happened since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.0.iter_mut().zip(before.0) {
            *count = count.saturating_sub(before);
        }
        since
    }

    /// The reasons that happened at all, and how often.
    pub fn seen(&self) -> impl Iterator<Item = (Dropped, u64)> {
        Dropped::ALL.into_iter().zip(self.0).filter(|(_, times)| *times > 0)
    }
}

/// Reasons in words, for the log.
pub fn to_text<R: fmt::Display>(seen: impl Iterator<Item = (R, u64)>) -> String {
    let words: Vec<_> = seen.map(|(why, times)| format!("{why}: {times}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place_and_words() {
        let counters = Counters::default();
        assert_eq!(to_text(counters.read().seen()), "");
        for (index, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            counters.count(reason);
            assert_eq!(counters.of(reason), 1);
        }
        counters.count_many(Dropped::Replayed, 2);
        let text = to_text(counters.read().seen());
        assert!(text.contains("replayed: 3, not an IP packet: 1"), "{text}");
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let counters = Counters::default();
        counters.count(Dropped::BadMac);
        let before = counters.read();
        assert_eq!(counters.read().since(&before).seen().count(), 0);
        counters.count_many(Dropped::CookieSent, 3);
        assert_eq!(counters.read().since(&before).seen().collect::<Vec<_>>(), [(Dropped::CookieSent, 3)]);
    }
}
