//! Several losses at once, got over one after the other.
//!
//! smoltcp sends a segment again when three acknowledgements in a row ask for it, and leaves everything else that was lost with it to its
//! clock, whose shortest time is a second. An acknowledgement of a part only says at once which segment is missing next (RFC 6582, 3.2).
//! Heard three more times it is what smoltcp acts on: here it is decided when that is to be done.

use smoltcp::wire::TcpSeqNumber;

use super::packet::{Segment, SegmentKind};

/// Acknowledgements in a row that ask for a segment (RFC 5681, 3.2).
pub(super) const REPEATS: u8 = 3;

/// What a connection sent, and what its peer misses of that.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Behind the last octet ever sent.
    sent: Option<TcpSeqNumber>,
    heard: Option<Heard>,
    repeats: u8,
    /// What had been sent when the loss was found; it ends when all of that is acknowledged.
    until: Option<TcpSeqNumber>,
    /// Segments that were asked for and are still to be sent again.
    asked: u32,
    /// The clock has everything up to here sent again: what is asked for twice until then says nothing.
    by_clock: Option<TcpSeqNumber>,
}

/// The last acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Heard {
    acknowledgement: TcpSeqNumber,
    window: u16,
}

impl Recovery {
    /// A segment goes out.
    pub(super) fn sends(&mut self, from: TcpSeqNumber, octets: usize) {
        if octets == 0 {
            return;
        }
        let end = from + octets;
        match self.sent {
            Some(sent) if end <= sent => match self.asked.checked_sub(1) {
                Some(left) if self.until.is_some() => self.asked = left,
                _ => (self.until, self.by_clock) = (None, self.by_clock.or(Some(sent))),
            },
            _ => self.sent = Some(end),
        }
    }

    /// Whether a segment of the peer says nothing but what the last one did.
    pub(super) fn has_heard(&self, segment: &Segment) -> bool {
        let is_bare = segment.kind == SegmentKind::Other && segment.sequence == segment.sequence_end;
        is_bare && self.heard.is_some_and(|heard| Some(heard.acknowledgement) == segment.acknowledgement)
    }

    /// A segment of the peer comes in; whether it is to be heard [`REPEATS`] times more.
    pub(super) fn hears(&mut self, segment: &Segment) -> bool {
        let (Some(acknowledgement), Some(sent)) = (segment.acknowledgement, self.sent) else { return false };
        let is_bare = segment.kind == SegmentKind::Other && segment.sequence == segment.sequence_end;
        let heard = Heard { acknowledgement, window: segment.window };
        let before = self.heard.replace(heard);
        match before {
            Some(before) if acknowledgement < before.acknowledgement => {
                self.heard = Some(before);
                false
            }
            Some(before) if acknowledgement == before.acknowledgement => {
                if is_bare && segment.window == before.window && acknowledgement < sent {
                    self.repeats = self.repeats.saturating_add(1);
                    if self.repeats == REPEATS && self.until.is_none() && self.by_clock.is_none() {
                        (self.until, self.asked) = (Some(sent), 1);
                    }
                }
                false
            }
            _ => {
                self.repeats = 0;
                self.by_clock = self.by_clock.filter(|until| acknowledgement < *until);
                self.until = self.until.filter(|until| acknowledgement < *until);
                let is_partial = self.until.is_some() && is_bare;
                self.asked += u32::from(is_partial);
                is_partial
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i32 = i32::MAX - 500;
    const MSS: usize = 100;

    fn at(segment: usize) -> TcpSeqNumber {
        TcpSeqNumber(START) + segment * MSS
    }

    fn ack(segment: usize) -> Segment {
        Segment {
            source_port: 1,
            destination_port: 2,
            kind: SegmentKind::Other,
            sequence: TcpSeqNumber(0),
            sequence_end: TcpSeqNumber(0),
            acknowledgement: Some(at(segment)),
            window: 1000,
        }
    }

    /// Ten segments are sent, and the first of them is acknowledged.
    fn after_ten() -> Recovery {
        let mut recovery = Recovery::default();
        for segment in 0..10 {
            recovery.sends(at(segment), MSS);
        }
        assert!(!recovery.hears(&ack(1)));
        recovery
    }

    fn lose_one(recovery: &mut Recovery, segment: usize) {
        for _ in 0..REPEATS {
            assert!(!recovery.hears(&ack(segment)), "smoltcp counts the first three itself");
        }
        recovery.sends(at(segment), MSS);
    }

    #[test]
    fn the_next_loss_of_the_same_moment_is_asked_for_at_once() {
        let mut recovery = after_ten();
        lose_one(&mut recovery, 1);
        assert!(recovery.hears(&ack(4)), "4 is missing as well");
        recovery.sends(at(4), MSS);
        assert!(recovery.hears(&ack(7)));
        recovery.sends(at(7), MSS);
        assert!(!recovery.hears(&ack(10)), "nothing is missing any more");
        recovery.sends(at(10), MSS);
        assert!(!recovery.hears(&ack(11)));
    }

    #[test]
    fn without_a_loss_nothing_is_repeated() {
        let mut recovery = after_ten();
        for segment in 2..=10 {
            assert!(!recovery.hears(&ack(segment)));
        }
        assert!(!recovery.hears(&ack(4)), "an old one that was on its way for long");
    }

    #[test]
    fn what_is_no_repetition_counts_for_none() {
        let mut recovery = after_ten();
        for window in 1..20 {
            assert!(!recovery.hears(&Segment { window, ..ack(1) }), "the window moved");
        }
        for _ in 0..10 {
            assert!(
                !recovery.hears(&Segment { sequence_end: TcpSeqNumber(5), window: 19, ..ack(1) }),
                "it has data"
            );
        }
        assert!(!recovery.hears(&ack(4)));
    }

    #[test]
    fn the_clock_ends_it_and_what_comes_twice_then_begins_none() {
        let mut recovery = after_ten();
        lose_one(&mut recovery, 1);
        for segment in 1..4 {
            recovery.sends(at(segment), MSS);
        }
        assert!(!recovery.hears(&ack(4)), "all is being sent again");
        for _ in 0..10 {
            assert!(!recovery.hears(&ack(4)));
        }
        assert!(!recovery.hears(&ack(6)));
        assert!(!recovery.hears(&ack(10)));
        recovery.sends(at(10), MSS);
        recovery.sends(at(11), MSS);
        recovery.sends(at(12), MSS);
        lose_one(&mut recovery, 10);
        assert!(recovery.hears(&ack(11)), "the next loss is a new one");
    }
}
