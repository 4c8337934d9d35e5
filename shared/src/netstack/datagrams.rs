//! UDP flows: datagrams between two addresses and ports, for as long as any come.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    counters::Dropped,
    packet::QUOTE_MAX,
    pair::{FlowId, Pair},
};

/// What a datagram costs beside its octets, so that empty ones are not free.
const DATAGRAM_COST: usize = 64;

/// One UDP flow.
#[derive(Debug)]
pub(super) struct DatagramFlow {
    pub(super) pair: Pair,
    waiting: VecDeque<Bytes>,
    cost: usize,
    /// The packet that opened it, as much as a refusal quotes.
    pub(super) opened_by: Vec<u8>,
    pub(super) last: Instant,
}

impl DatagramFlow {
    fn new(pair: Pair, packet: &[u8], now: Instant) -> Self {
        let opened_by = packet[..packet.len().min(QUOTE_MAX)].to_vec();
        Self { pair, waiting: VecDeque::new(), cost: 0, opened_by, last: now }
    }

    fn push(&mut self, payload: &[u8], cost_max: usize, now: Instant) -> Result<(), Dropped> {
        self.last = now;
        let cost = payload.len() + DATAGRAM_COST;
        if self.cost + cost > cost_max {
            return Err(Dropped::DatagramsFull);
        }
        self.cost += cost;
        self.waiting.push_back(Bytes::copy_from_slice(payload));
        Ok(())
    }
}

/// All UDP flows of a stack; how many there may be is counted elsewhere.
#[derive(Debug)]
pub(super) struct Datagrams {
    by_id: HashMap<FlowId, DatagramFlow>,
    by_pair: HashMap<Pair, FlowId>,
    timeout: Duration,
    cost_max: usize,
}

impl Datagrams {
    pub(super) fn new(timeout: Duration, cost_max: usize) -> Self {
        Self { by_id: HashMap::new(), by_pair: HashMap::new(), timeout, cost_max }
    }

    pub(super) fn find(&self, pair: Pair) -> Option<FlowId> {
        self.by_pair.get(&pair).copied()
    }

    /// Opens a flow with its first packet.
    pub(super) fn open(&mut self, id: FlowId, pair: Pair, packet: &[u8], now: Instant) {
        self.by_pair.insert(pair, id);
        self.by_id.insert(id, DatagramFlow::new(pair, packet, now));
    }

    /// Queues a datagram for the flow's reader.
    pub(super) fn push(&mut self, id: FlowId, payload: &[u8], now: Instant) -> Result<(), Dropped> {
        let flow = self.by_id.get_mut(&id).ok_or(Dropped::Unexpected)?;
        flow.push(payload, self.cost_max, now)
    }

    /// The next datagram of a flow; `None` without the flow.
    pub(super) fn pop(&mut self, id: FlowId) -> Option<Option<Bytes>> {
        let flow = self.by_id.get_mut(&id)?;
        let datagram = flow.waiting.pop_front();
        flow.cost -= datagram.as_ref().map_or(0, |datagram| datagram.len() + DATAGRAM_COST);
        Some(datagram)
    }

    /// A flow that is about to send.
    pub(super) fn touch(&mut self, id: FlowId, now: Instant) -> Option<Pair> {
        let flow = self.by_id.get_mut(&id)?;
        flow.last = now;
        Some(flow.pair)
    }

    pub(super) fn remove(&mut self, id: FlowId) -> Option<DatagramFlow> {
        let flow = self.by_id.remove(&id)?;
        self.by_pair.remove(&flow.pair);
        Some(flow)
    }

    /// When a flow ends, if nothing more comes.
    pub(super) fn ends_at(&self, id: FlowId) -> Option<Instant> {
        Some(self.by_id.get(&id)?.last + self.timeout)
    }
}
