//! What was sent and is not confirmed. Pure.
//!
//! Places are counted in octets from the stream's beginning; its end is one more, so that an end that was lost is sent again.

use std::{collections::VecDeque, iter};

use bytes::{Buf as _, Bytes, BytesMut};

use super::suspended::Places;
use crate::tunnel::Chunks;

/// Octets that may wait for a confirmation: 500 Mbit/s at 130 ms of round trip.
pub(super) const KEPT_LEN_MAX: usize = 8 * 1024 * 1024;

/// Pieces shorter than this are copied together: each may hold a whole read buffer.
const PIECE_LEN_MIN: usize = 4 * 1024;

/// Octets handed out at a time at most.
const BATCH_LEN_MAX: usize = 256 * 1024;

/// What the peer says does not fit what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{said} was confirmed, of {confirmed} to {sent}")]
pub(super) struct Unconfirmable {
    said: u64,
    confirmed: u64,
    sent: u64,
}

/// What to send next.
#[derive(Debug)]
pub(super) enum Next {
    Octets(Chunks),
    End,
}

/// One direction of a stream, at its sender.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// From `confirmed` on, as far as it is still needed.
    kept: VecDeque<Bytes>,
    kept_len: usize,
    /// How many of the pieces were sent over the leg in use.
    pieces_sent: usize,
    confirmed: u64,
    sent: u64,
    /// All that was ever added.
    added: u64,
    has_ended: bool,
    /// Whether something was sent that is neither confirmed nor kept.
    has_gap: bool,
}

impl Ledger {
    /// Whether more may be added: what cannot be sent yet waits at its source.
    pub(super) fn has_room(&self) -> bool {
        !self.is_full() && self.added.saturating_sub(self.sent) < BATCH_LEN_MAX as u64
    }

    /// Whether it waits for confirmations.
    pub(super) const fn is_full(&self) -> bool {
        self.kept_len >= KEPT_LEN_MAX
    }

    /// Adds what is to be sent. More than there is room for is taken as well: one batch.
    pub(super) fn add(&mut self, mut batch: Chunks) {
        let len = batch.remaining();
        self.added += len as u64;
        self.kept_len += len;
        let mut small = BytesMut::new();
        while let Some(piece) = batch.pop() {
            if piece.len() < PIECE_LEN_MIN {
                small.extend_from_slice(&piece);
                continue;
            }
            if !small.is_empty() {
                self.kept.push_back(small.split().freeze());
            }
            self.kept.push_back(piece);
        }
        if !small.is_empty() {
            self.kept.push_back(small.freeze());
        }
    }

    /// Nothing more will be added.
    pub(super) const fn end(&mut self) {
        self.has_ended = true;
    }

    /// Takes the next to send.
    pub(super) fn next(&mut self) -> Option<Next> {
        let mut batch = Chunks::default();
        while let Some(piece) = self.kept.get(self.pieces_sent)
            && (batch.is_empty() || batch.remaining() + piece.len() <= BATCH_LEN_MAX)
        {
            batch.push(piece.clone());
            self.pieces_sent += 1;
        }
        if !batch.is_empty() {
            self.sent += batch.remaining() as u64;
            return Some(Next::Octets(batch));
        }
        let end_is_due = self.has_ended && self.sent == self.added;
        end_is_due.then(|| {
            self.sent += 1;
            Next::End
        })
    }

    /// The peer has all before `place`.
    pub(super) fn confirm(&mut self, place: u64) -> Result<(), Unconfirmable> {
        // What was given up is not counted any more.
        if self.has_gap && place < self.confirmed {
            return Ok(());
        }
        if place < self.confirmed || place > self.sent {
            return Err(Unconfirmable { said: place, confirmed: self.confirmed, sent: self.sent });
        }
        self.drop_before(place);
        Ok(())
    }

    /// Another leg is in use, whose other end has all before `place`: what follows is sent again.
    pub(super) fn resume(&mut self, place: u64) -> Result<(), Unconfirmable> {
        if !self.has_from(place) {
            return Err(Unconfirmable { said: place, confirmed: self.confirmed, sent: self.sent });
        }
        self.drop_before(place);
        (self.pieces_sent, self.sent) = (0, place);
        Ok(())
    }

    /// Forgets what was sent, confirmed or not: there is room again, but no way back. Says whether there was anything.
    pub(super) fn give_up_sent(&mut self) -> bool {
        let given_up = self.sent > self.confirmed;
        self.has_gap |= given_up;
        self.drop_before(self.sent);
        given_up
    }

    /// Octets that it keeps.
    pub(super) const fn len(&self) -> usize {
        self.kept_len
    }

    /// Whether the peer may have all before `place`, and everything from there on is still here.
    pub(super) const fn has_from(&self, place: u64) -> bool {
        self.confirmed <= place && place <= self.sent
    }

    /// Whether the peer has everything, the end included.
    pub(super) const fn is_settled(&self) -> bool {
        self.has_ended && self.confirmed == self.added + 1
    }

    /// How far it is; the octets from the confirmed place on are [`Self::kept`].
    pub(super) const fn places(&self) -> Places {
        Places::to_client(self.confirmed, self.sent, self.added, self.has_ended, self.has_gap)
    }

    /// The octets that it keeps.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Bytes> {
        self.kept.iter()
    }

    /// What another one was; `None` if there never was such a one.
    pub(super) fn of(places: Places, kept: Bytes) -> Option<Self> {
        let Places { confirmed, sent, added, app_ended: has_ended, has_gap, .. } = places;
        let kept_len = kept.len();
        let is_whole = confirmed <= sent
            && sent <= added.checked_add(u64::from(has_ended))?
            && kept_len as u64 == added.saturating_sub(confirmed);
        let mut rest = kept;
        let pieces =
            iter::from_fn(|| (!rest.is_empty()).then(|| rest.split_to(rest.len().min(BATCH_LEN_MAX))));
        let kept = pieces.collect();
        is_whole.then_some(Self {
            kept,
            kept_len,
            pieces_sent: 0,
            confirmed,
            sent,
            added,
            has_ended,
            has_gap,
        })
    }

    fn drop_before(&mut self, place: u64) {
        let octets = place.min(self.added) - self.confirmed.min(self.added);
        let mut left = usize::try_from(octets).unwrap_or(usize::MAX).min(self.kept_len);
        self.kept_len -= left;
        while left > 0
            && let Some(first) = self.kept.front_mut()
        {
            if left < first.len() {
                first.advance(left);
                break;
            }
            left -= first.len();
            self.kept.pop_front();
            self.pieces_sent = self.pieces_sent.saturating_sub(1);
        }
        self.confirmed = place;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(range: std::ops::Range<u64>) -> Chunks {
        Bytes::from(range.map(|place| (place % 251) as u8).collect::<Vec<_>>()).into()
    }

    #[test]
    fn what_the_peer_cannot_have_is_no_confirmation() {
        let mut ledger = Ledger::default();
        ledger.add(text(0..10));
        assert!(ledger.confirm(1).is_err(), "nothing was sent yet");
        assert!(ledger.next().is_some());
        ledger.confirm(10).unwrap();
        assert!(ledger.confirm(9).is_err(), "the peer had more before");
        assert!(ledger.resume(9).is_err());
        assert!(ledger.confirm(11).is_err());
    }

    #[test]
    fn what_was_given_up_cannot_be_sent_again_but_all_else_goes_on() {
        let mut ledger = Ledger::default();
        ledger.add(text(0..10));
        assert!(ledger.next().is_some());
        assert!(ledger.give_up_sent());
        ledger.confirm(5).unwrap();
        ledger.add(text(10..20));
        let Some(Next::Octets(batch)) = ledger.next() else { panic!("more is sent") };
        assert_eq!(batch.remaining(), 10);
        assert!(ledger.resume(5).is_err());
    }

    #[derive(Debug, Clone)]
    enum Act {
        Add(u16),
        End,
        Send,
        /// The peer confirms so much (of 255) of what is under way.
        Confirm(u8),
        /// The leg is lost; the peer has so much of what was under way.
        Lose(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (1..9_000_u16).prop_map(Act::Add),
            1 => Just(Act::End),
            6 => Just(Act::Send),
            3 => any::<u8>().prop_map(Act::Confirm),
            2 => any::<u8>().prop_map(Act::Lose),
        ]
    }

    proptest! {
        /// Whatever is lost when: the peer gets each octet once and in order, and then the end.
        #[test]
        fn no_octet_is_lost_or_doubled(acts in prop::collection::vec(act(), 1..200)) {
            let (mut ledger, mut added, mut has_ended) = (Ledger::default(), 0_u64, false);
            // What the peer has taken; and what is under way to it, the end as `None`.
            let (mut taken, mut under_way) = (0_u64, VecDeque::<Option<u8>>::new());
            let arrive = |count: usize, taken: &mut u64, under_way: &mut VecDeque<Option<u8>>, added: u64| {
                for octet in under_way.drain(..count) {
                    let expected = (*taken < added).then_some((*taken % 251) as u8);
                    assert_eq!(octet, expected, "at {taken}");
                    *taken += 1;
                }
            };
            let last = [Act::End, Act::Lose(0)].into_iter().chain(iter::repeat_n(Act::Send, 2_000));
            for act in acts.into_iter().chain(last).chain([Act::Confirm(255)]) {
                match act {
                    Act::Add(len) if !has_ended => {
                        ledger.add(text(added..added + u64::from(len)));
                        added += u64::from(len);
                    }
                    Act::End => {
                        has_ended = true;
                        ledger.end();
                    }
                    Act::Send => match ledger.next() {
                        Some(Next::Octets(mut batch)) => {
                            under_way.extend(batch.copy_to_bytes(batch.remaining()).iter().map(|b| Some(*b)));
                        }
                        Some(Next::End) => under_way.push_back(None),
                        None => {}
                    },
                    Act::Confirm(part) => {
                        let count = under_way.len() * usize::from(part) / 255;
                        arrive(count, &mut taken, &mut under_way, added);
                        ledger.confirm(taken).unwrap();
                    }
                    Act::Lose(part) => {
                        let count = under_way.len() * usize::from(part) / 255;
                        arrive(count, &mut taken, &mut under_way, added);
                        under_way.clear();
                        ledger.resume(taken).unwrap();
                    }
                    Act::Add(_) => {}
                }
            }
            prop_assert!(ledger.is_settled());
            prop_assert_eq!(taken, added + 1);
        }
    }
}
