//! The core: packets and calls in, packets and events out. No I/O, no clock, no runtime.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Outbox, Refusal,
    connection::{Connection, Read, Reset, Turn},
    counters::{Counters, Dropped},
    datagrams::Datagrams,
    half_open::{HalfOpen, Match},
    packet::{self, Body, Packet, Segment, SegmentKind},
    pair::{FlowId, Pair, Quota, Rate, Timers},
    settings::{MTU_MIN, Settings},
};

/// Somebody opens a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its name from now on.
    pub id: FlowId,
    /// What it carries.
    pub kind: Kind,
    /// Who opens it.
    pub source: SocketAddr,
    /// What is reached for.
    pub destination: SocketAddr,
}

/// What a flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP connection whose SYN waits for [`Stack::accept`] or [`Stack::refuse`].
    Tcp,
    /// Datagrams; the first of them waits to be read.
    Udp,
}

/// The flow is no more: its opener gave up, its time is over, or nothing came for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flow is gone")]
pub struct Gone;

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The flow is no more.
    #[error("the flow is gone")]
    Gone,
    /// It does not fit into a packet; nothing is put into parts here.
    #[error("the datagram is longer than a packet may be")]
    TooLong,
    /// Too much waits to be sent; datagrams get lost, and this one is.
    #[error("too many packets wait to be sent")]
    Full,
}

/// A whole stack. See the [module](super) for how it is used.
pub struct Stack {
    settings: Settings,
    mtu: usize,
    answers: Box<dyn Fn(IpAddr) -> bool + Send>,
    epoch: Instant,
    next_id: u64,
    half_open: HalfOpen,
    half_open_places: Quota,
    /// Whose places are held by who decides on what its opener does not want any more.
    withdrawn: HashMap<FlowId, IpAddr>,
    connections: HashMap<FlowId, Connection>,
    by_pair: HashMap<Pair, FlowId>,
    datagrams: Datagrams,
    flow_places: Quota,
    timers: Timers,
    resets: Rate,
    /// Connections that may have something to send, once each.
    pending: VecDeque<FlowId>,
    /// Flows whose user should look.
    ready: BTreeSet<FlowId>,
    events: VecDeque<Event>,
    outbox: Outbox,
    counters: Counters,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("connections", &self.connections.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// A stack that answers for `settings.own` and for each address that `answers` says yes to. It is asked for each packet.
    #[must_use]
    pub fn new(settings: Settings, answers: impl Fn(IpAddr) -> bool + Send + 'static, now: Instant) -> Self {
        Self {
            mtu: settings.mtu.clamp(MTU_MIN, usize::from(u16::MAX)),
            answers: Box::new(answers),
            epoch: now,
            next_id: 0,
            half_open: HalfOpen::default(),
            withdrawn: HashMap::new(),
            half_open_places: Quota::new(settings.half_open_max, settings.half_open_per_source_max),
            connections: HashMap::new(),
            by_pair: HashMap::new(),
            datagrams: Datagrams::new(settings.datagram_timeout, settings.datagram_queue),
            flow_places: Quota::new(settings.flows_max, settings.flows_per_source_max),
            timers: Timers::default(),
            resets: Rate::new(settings.resets_per_second, now),
            pending: VecDeque::new(),
            ready: BTreeSet::new(),
            events: VecDeque::new(),
            outbox: Outbox::new(settings.outbox_max),
            counters: Counters::default(),
            settings,
        }
    }

    /// Takes a packet from the wire. What is not answered is counted.
    pub fn receive(&mut self, packet: &[u8], now: Instant) {
        if let Err(reason) = self.take(packet, now) {
            self.counters.count(reason);
        }
    }

    /// Does what is due. To be called after any other call, and at the time that it returns.
    ///
    /// Where packets are left to send ([`Self::next_packet`]), it is called again once they are gone.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        while let Some(id) = self.timers.pop(now) {
            self.expire(id, now);
        }
        // Each connection has one turn for each that it waits for: bounded by the outbox, which every further turn fills.
        while self.outbox.has_room() {
            let Some(id) = self.pending.pop_front() else { break };
            self.turn(id, now);
        }
        self.timers.next()
    }

    /// The next packet to send.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop()
    }

    /// Whether packets wait to be sent.
    #[must_use]
    pub fn has_packets(&self) -> bool {
        self.outbox.len() > 0
    }

    /// Whether flows wait to be told of.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next flow that somebody opens.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A flow that can be read, written, or is over. May be said in vain.
    pub fn next_ready(&mut self) -> Option<FlowId> {
        self.ready.pop_first()
    }

    /// What was thrown away so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Answers the SYN that waits.
    ///
    /// # Errors
    /// [`Gone`]: nobody waits any more, or there is no place for another connection.
    pub fn accept(&mut self, id: FlowId, now: Instant) -> Result<(), Gone> {
        let Some(held) = self.end_half_open(id) else {
            self.let_go(id);
            return Err(Gone);
        };
        if !self.flow_places.take(held.pair.source.ip()) {
            self.counters.count(Dropped::FlowsFull);
            self.send(packet::reset(held.pair, &held.segment));
            return Err(Gone);
        }
        let seed = self.connection_seed(id, held.pair);
        let mut connection = Connection::new(held.pair, seed, &self.settings, self.mtu, self.epoch, now);
        connection.receive(&held.segment, &held.packet, &mut self.outbox, self.epoch, now);
        self.by_pair.insert(held.pair, id);
        self.connections.insert(id, connection);
        self.mark_pending(id);
        Ok(())
    }

    /// Says no to a flow of either kind, and forgets it.
    pub fn refuse(&mut self, id: FlowId, why: Refusal) {
        if let Some(held) = self.end_half_open(id) {
            self.send(match why {
                Refusal::Reset => packet::reset(held.pair, &held.segment),
                Refusal::Prohibited => packet::unreachable(held.pair, why, &held.packet),
            });
        } else if let Some(flow) = self.end_datagrams(id) {
            self.send(packet::unreachable(flow.pair, why, &flow.opened_by));
        } else {
            self.let_go(id);
        }
    }

    /// Reads from a connection: `take` gets what has come and says how much it took.
    ///
    /// # Errors
    /// [`Reset`]: the connection was cut.
    pub fn read(&mut self, id: FlowId, mut take: impl FnMut(&[u8]) -> usize) -> Result<Read, Reset> {
        let read = self.connections.get_mut(&id).ok_or(Reset)?.read(&mut take);
        if matches!(read, Ok(Read::Octets(_))) {
            // The peer may have to hear that there is room again.
            self.mark_pending(id);
        }
        read
    }

    /// Takes what there is room for, which may be nothing.
    ///
    /// # Errors
    /// [`Reset`]: the connection was cut, or our direction has ended.
    pub fn write(&mut self, id: FlowId, octets: &[u8], now: Instant) -> Result<usize, Reset> {
        let written = self.connections.get_mut(&id).ok_or(Reset)?.write(octets, now)?;
        if written > 0 {
            self.mark_pending(id);
        }
        Ok(written)
    }

    /// Ends our direction of a connection, after what was written; the other flows on.
    pub fn shutdown(&mut self, id: FlowId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.shutdown();
            self.mark_pending(id);
        }
    }

    /// The next datagram of a UDP flow, if one waits.
    ///
    /// # Errors
    /// [`Gone`]: the flow is no more.
    pub fn read_datagram(&mut self, id: FlowId) -> Result<Option<Bytes>, Gone> {
        self.datagrams.pop(id).ok_or(Gone)
    }

    /// Sends a datagram back to the flow's opener.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_datagram(&mut self, id: FlowId, payload: &[u8], now: Instant) -> Result<(), SendError> {
        let pair = self.datagrams.touch(id, now).ok_or(SendError::Gone)?;
        let packet = packet::datagram(pair, payload, self.mtu).ok_or(SendError::TooLong)?;
        self.send(packet).then_some(()).ok_or(SendError::Full)
    }

    /// The user is done with a flow. A connection delivers what was written if it was shut down before, and is reset if not; a
    /// UDP flow is forgotten; an opening is refused.
    pub fn leave(&mut self, id: FlowId, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.leave(&self.settings, now);
            self.mark_pending(id);
        } else if self.end_datagrams(id).is_none() {
            self.refuse(id, Refusal::Reset);
        }
    }

    /// Resets a connection, whatever was written.
    pub fn abort(&mut self, id: FlowId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.abort();
            self.mark_pending(id);
            self.ready.insert(id);
        }
    }

    fn take(&mut self, bytes: &[u8], now: Instant) -> Result<(), Dropped> {
        let packet = Packet::parse(bytes, self.mtu)?;
        let is_own = self.settings.own.contains(&packet.destination);
        if !is_own && !(self.answers)(packet.destination) {
            return Err(Dropped::Foreign);
        }
        match packet.body {
            Body::Tcp(segment) => self.take_segment(&packet, segment, now),
            Body::Udp { source_port, destination_port, payload } => {
                self.take_datagram(&packet, packet.pair(source_port, destination_port), payload, now)
            }
            Body::Echo(_) if !is_own => Err(Dropped::Protocol),
            Body::Echo(request) => {
                self.send(packet::echo_reply(&packet, request));
                Ok(())
            }
        }
    }

    fn take_segment(&mut self, packet: &Packet<'_>, segment: Segment, now: Instant) -> Result<(), Dropped> {
        let pair = packet.pair(segment.source_port, segment.destination_port);
        if let Some(&id) = self.by_pair.get(&pair) {
            let is_successor = segment.kind == SegmentKind::Syn
                && self.connections.get(&id).is_some_and(Connection::is_replaceable);
            if !is_successor {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.receive(&segment, packet.bytes, &mut self.outbox, self.epoch, now);
                }
                self.mark_pending(id);
                return Ok(());
            }
            // Whoever still holds it finds it closed.
            self.by_pair.remove(&pair);
        }
        if let Some(id) = self.half_open.find(pair) {
            if self.half_open.matches(id, segment, packet.bytes) == Match::Withdrawn {
                self.withdraw(id);
            }
            return Ok(());
        }
        match segment.kind {
            SegmentKind::Syn => self.hold(pair, segment, packet.bytes, now),
            SegmentKind::Reset => Err(Dropped::Unexpected),
            SegmentKind::Other if self.resets.take(now) => {
                self.send(packet::reset(pair, &segment));
                Err(Dropped::Unexpected)
            }
            SegmentKind::Other => Err(Dropped::RateLimited),
        }
    }

    fn hold(&mut self, pair: Pair, segment: Segment, packet: &[u8], now: Instant) -> Result<(), Dropped> {
        if !self.half_open_places.take(pair.source.ip()) {
            return Err(Dropped::HalfOpenFull);
        }
        let id = self.open(Kind::Tcp, pair);
        self.half_open.hold(id, pair, segment, packet);
        self.timers.set(id, Some(now + self.settings.half_open_timeout));
        Ok(())
    }

    fn take_datagram(
        &mut self,
        packet: &Packet<'_>,
        pair: Pair,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Dropped> {
        let id = if let Some(id) = self.datagrams.find(pair) {
            id
        } else {
            if !self.flow_places.take(packet.source) {
                return Err(Dropped::FlowsFull);
            }
            let id = self.open(Kind::Udp, pair);
            self.datagrams.open(id, pair, packet.bytes, now);
            self.timers.set(id, self.datagrams.ends_at(id));
            id
        };
        self.datagrams.push(id, payload, now)?;
        self.ready.insert(id);
        Ok(())
    }

    /// A name for a new flow, told to the user. Events are as bounded as the flows that they tell of.
    fn open(&mut self, kind: Kind, pair: Pair) -> FlowId {
        let id = FlowId(self.next_id);
        self.next_id += 1;
        self.events.push_back(Event { id, kind, source: pair.source, destination: pair.destination });
        id
    }

    fn expire(&mut self, id: FlowId, now: Instant) {
        if self.connections.contains_key(&id) {
            self.mark_pending(id);
        } else if let Some(ends_at) = self.datagrams.ends_at(id) {
            if ends_at > now {
                self.timers.set(id, Some(ends_at));
            } else {
                self.end_datagrams(id);
                self.ready.insert(id);
            }
        } else {
            self.withdraw(id);
        }
    }

    fn turn(&mut self, id: FlowId, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_pending = false;
        let turn = connection.take_turn(&mut self.outbox, &self.settings, self.epoch, now);
        if connection.has_changed() {
            self.ready.insert(id);
        }
        match turn {
            Turn::More => self.mark_pending(id),
            Turn::Wait(until) => self.timers.set(id, until),
            Turn::Over => self.end_connection(id),
        }
    }

    /// Takes the place of a connection that is over. One that is still held stays readable; its user lets go of it.
    fn end_connection(&mut self, id: FlowId) {
        self.timers.set(id, None);
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.is_held() {
            return;
        }
        let (pair, source) = (connection.pair, connection.source());
        self.connections.remove(&id);
        self.flow_places.give(source);
        if self.by_pair.get(&pair) == Some(&id) {
            self.by_pair.remove(&pair);
        }
    }

    fn end_half_open(&mut self, id: FlowId) -> Option<super::half_open::HeldSyn> {
        let held = self.half_open.remove(id)?;
        self.forget(id);
        self.half_open_places.give(held.pair.source.ip());
        Some(held)
    }

    /// Nobody wants it any more, or it took too long. Who was told of it keeps its place until they are done with it: an opener that
    /// gives up again and again has no more decided on at a time than one that waits.
    fn withdraw(&mut self, id: FlowId) {
        let is_told = self.events.iter().all(|event| event.id != id);
        let Some(held) = self.half_open.remove(id) else { return };
        self.forget(id);
        self.ready.insert(id);
        let source = held.pair.source.ip();
        if is_told {
            self.withdrawn.insert(id, source);
        } else {
            self.half_open_places.give(source);
        }
    }

    /// Who was told of an opening is done with it.
    fn let_go(&mut self, id: FlowId) {
        if let Some(source) = self.withdrawn.remove(&id) {
            self.half_open_places.give(source);
        }
    }

    fn end_datagrams(&mut self, id: FlowId) -> Option<super::datagrams::DatagramFlow> {
        let flow = self.datagrams.remove(id)?;
        self.forget(id);
        self.flow_places.give(flow.pair.source.ip());
        Some(flow)
    }

    fn forget(&mut self, id: FlowId) {
        self.timers.set(id, None);
        // Nearly always empty: events are taken as they come.
        self.events.retain(|event| event.id != id);
    }

    fn mark_pending(&mut self, id: FlowId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !std::mem::replace(&mut connection.is_pending, true) {
            self.pending.push_back(id);
        }
    }

    /// Queues a packet that nothing repeats; whether there was room.
    fn send(&mut self, packet: Vec<u8>) -> bool {
        let has_room = self.outbox.has_room();
        if has_room {
            self.outbox.push(packet);
        } else {
            self.counters.count(Dropped::OutboxFull);
        }
        has_room
    }

    fn connection_seed(&self, id: FlowId, pair: Pair) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.settings.seed, id, pair).hash(&mut hasher);
        hasher.finish()
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.half_open.len(), self.connections.len())
    }
}
