//! SYNs that wait for a decision.

use std::collections::HashMap;

use smoltcp::wire::TcpSeqNumber;

use super::{
    packet::{Segment, SegmentKind},
    pair::{FlowId, Pair},
};

/// A SYN that has not been answered.
#[derive(Debug)]
pub(super) struct HeldSyn {
    pub(super) pair: Pair,
    pub(super) segment: Segment,
    /// The whole packet.
    pub(super) packet: Vec<u8>,
}

/// All held SYNs of a stack; how many there may be is counted elsewhere.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_id: HashMap<FlowId, HeldSyn>,
    by_pair: HashMap<Pair, FlowId>,
}

/// What a segment is to a held SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// The same again, or nothing that matters.
    Same,
    /// The peer wants it no more.
    Withdrawn,
}

impl HalfOpen {
    pub(super) fn find(&self, pair: Pair) -> Option<FlowId> {
        self.by_pair.get(&pair).copied()
    }

    pub(super) fn hold(&mut self, id: FlowId, pair: Pair, segment: Segment, packet: &[u8]) {
        self.by_pair.insert(pair, id);
        self.by_id.insert(id, HeldSyn { pair, segment, packet: packet.to_vec() });
    }

    /// Holds a segment of the same pair against the SYN that waits.
    pub(super) fn matches(&mut self, id: FlowId, segment: Segment, packet: &[u8]) -> Match {
        let Some(held) = self.by_id.get_mut(&id) else { return Match::Same };
        match segment.kind {
            // The peer has begun anew; the question is the same.
            SegmentKind::Syn if segment.sequence != held.segment.sequence => {
                held.segment = segment;
                packet.clone_into(&mut held.packet);
                Match::Same
            }
            SegmentKind::Reset if is_next(segment.sequence, &held.segment) => Match::Withdrawn,
            SegmentKind::Syn | SegmentKind::Reset | SegmentKind::Other => Match::Same,
        }
    }

    pub(super) fn remove(&mut self, id: FlowId) -> Option<HeldSyn> {
        let held = self.by_id.remove(&id)?;
        self.by_pair.remove(&held.pair);
        Some(held)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

/// A reset counts only with the one number that its sender must know (RFC 5961, 3.2).
fn is_next(sequence: TcpSeqNumber, syn: &Segment) -> bool {
    sequence == syn.sequence + 1
}
