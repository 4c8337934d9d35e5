//! One TCP connection: an interface of smoltcp with a single address and a single socket.
//!
//! An interface of its own costs a few hundred octets and saves the search through all sockets for each packet; who gets a
//! packet is decided before, by its [`Pair`].

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{self, CongestionControl, RecvError, State},
    time::{Duration as WireDuration, Instant as WireInstant},
    wire::{HardwareAddress, IpCidr, IpListenEndpoint, TcpPacket, TcpSeqNumber},
};

use super::{
    Outbox,
    in_flight::InFlight,
    packet::Segment,
    pair::Pair,
    recovery::{REPEATS, Recovery},
    settings::Settings,
};

/// Packets that one connection may send before it is the next one's turn.
const TURN: usize = 32;
/// How long until a connection that had nothing to say after all is asked again.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a connection in TIME-WAIT is looked after while its user holds it; less than the 10 s that smoltcp makes of it.
const TIME_WAIT_POLLED: Duration = Duration::from_secs(5);

/// A connection is gone, or was cut by the other side: what was read may not be all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection was reset")]
pub struct Reset;

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many octets, not 0.
    Octets(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: the peer ended its direction.
    End,
}

/// Whether anybody still holds the connection's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    ByUser,
    /// Left after a shutdown: delivers until then.
    UntilDelivered(Instant),
}

pub(super) struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    pub(super) pair: Pair,
    held: Held,
    mtu: usize,
    /// When the peer was last heard, or was last sent something after a silence of ours.
    heard: Instant,
    has_outstanding: bool,
    seen: Progress,
    in_flight: InFlight,
    recovery: Recovery,
    time_wait_since: Option<Instant>,
    /// It stands in the stack's queue of those that may have something to send.
    pub(super) is_pending: bool,
}

/// What a user waits for a change of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    received: usize,
    unsent: usize,
    state: State,
}

/// What a turn left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to send until then.
    Wait(Option<Instant>),
    /// More to send.
    More,
    /// The connection is over, for both.
    Over,
}

impl Connection {
    /// A connection that listens for the one SYN that was held.
    pub(super) fn new(
        pair: Pair,
        seed: u64,
        settings: &Settings,
        mtu: usize,
        epoch: Instant,
        now: Instant,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut outbox = Outbox::default();
        let mut recovery = Recovery::default();
        let mut wire = Wire { incoming: None, outbox: &mut outbox, recovery: &mut recovery, mtu };
        let mut interface = Interface::new(config, &mut wire, wire_time(epoch, now));
        let local = pair.destination.ip();
        interface.update_ip_addrs(|addresses| {
            // The list is empty, and has room for two.
            let _ = addresses.push(IpCidr::new(local.into(), if local.is_ipv4() { 32 } else { 128 }));
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; settings.window]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(WireDuration::from_millis(10)));
        let endpoint = IpListenEndpoint { addr: Some(local.into()), port: pair.destination.port() };
        // Fails for port 0 and for a socket that is in use alone; the parser lets no port 0 through.
        let is_listening = socket.listen(endpoint).is_ok();
        debug_assert!(is_listening, "a fresh socket listens");
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Self {
            interface,
            sockets,
            socket,
            pair,
            held: Held::ByUser,
            mtu,
            heard: now,
            has_outstanding: true,
            seen: Progress { received: 0, unsent: 0, state: State::Listen },
            in_flight: InFlight::new(settings.window),
            recovery,
            is_pending: false,
            time_wait_since: None,
        }
    }

    /// Takes a segment of this connection, with the whole packet that it was read from.
    pub(super) fn receive(
        &mut self,
        segment: &Segment,
        packet: &[u8],
        outbox: &mut Outbox,
        epoch: Instant,
        now: Instant,
    ) {
        self.heard = now;
        let is_repeated = self.recovery.has_heard(segment);
        // A third one smoltcp would take for a lost octet, find none to send again, and stop the clock that sends our end again.
        if is_repeated && self.misses_our_end_alone() {
            return;
        }
        let repeats = if self.recovery.hears(segment) { REPEATS } else { 0 };
        for repeat in 0..=repeats {
            // Where nothing but our end is missing smoltcp finds nothing to send at once, and stops the clock that would send the end.
            if repeat > 0 && self.sockets.get::<tcp::Socket<'_>>(self.socket).send_queue() == 0 {
                break;
            }
            let mut wire =
                Wire { incoming: Some(packet), outbox, recovery: &mut self.recovery, mtu: self.mtu };
            self.interface.poll_ingress_single(wire_time(epoch, now), &mut wire, &mut self.sockets);
        }
        let queued = self.sockets.get::<tcp::Socket<'_>>(self.socket).send_queue();
        self.in_flight.heard(queued, now);
    }

    fn misses_our_end_alone(&self) -> bool {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        let has_ended = matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
        has_ended && socket.send_queue() == 0
    }

    /// Sends what may be sent, up to a turn's worth.
    pub(super) fn take_turn(
        &mut self,
        outbox: &mut Outbox,
        settings: &Settings,
        epoch: Instant,
        now: Instant,
    ) -> Turn {
        if self.is_too_late(settings, now) {
            self.abort();
        }
        if self.is_kept_for_user(now) {
            return Turn::Wait(None);
        }
        let at = wire_time(epoch, now);
        let queued = outbox.len();
        let mut wire = Wire { incoming: None, outbox, recovery: &mut self.recovery, mtu: self.mtu };
        for _ in 0..TURN {
            if self.interface.poll_egress(at, &mut wire, &mut self.sockets) == PollResult::None {
                break;
            }
        }
        let next = self.interface.poll_at(at, &self.sockets);
        if self.state() == State::Closed && next.is_none() {
            return Turn::Over;
        }
        match next {
            Some(next) if next <= at && (outbox.len() > queued || !outbox.has_room()) => Turn::More,
            next => {
                // One that is due and sends nothing is asked again a little later.
                let next = next.map(|next| now + PAUSE.max((next.max(at) - at).into()));
                Turn::Wait([next, self.deadline(settings, now)].into_iter().flatten().min())
            }
        }
    }

    /// smoltcp empties what was received when TIME-WAIT is over; it does not get to see the end while somebody may still read.
    fn is_kept_for_user(&mut self, now: Instant) -> bool {
        if self.state() != State::TimeWait || !self.is_held() {
            return false;
        }
        let since = *self.time_wait_since.get_or_insert(now);
        now.saturating_duration_since(since) >= TIME_WAIT_POLLED
    }

    fn is_too_late(&mut self, settings: &Settings, now: Instant) -> bool {
        self.deadline(settings, now).is_some_and(|deadline| deadline <= now)
    }

    /// When to give up.
    fn deadline(&mut self, settings: &Settings, now: Instant) -> Option<Instant> {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        let has_outstanding = socket.send_queue() > 0
            || matches!(
                socket.state(),
                State::Listen | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
            );
        if has_outstanding && !self.has_outstanding {
            // Its silence until now was our own.
            self.heard = now;
        }
        self.has_outstanding = has_outstanding;
        let patience = match socket.state() {
            State::Listen | State::SynReceived => settings.half_open_timeout,
            _ => settings.unanswered_timeout,
        };
        let unanswered = has_outstanding.then(|| self.heard + patience);
        let lingering = match self.held {
            Held::ByUser => None,
            Held::UntilDelivered(until) => Some(until),
        };
        let is_open = socket.state() != State::Closed;
        [unanswered, lingering].into_iter().flatten().min().filter(|_| is_open)
    }

    /// Whether the user should look: something came, went, or changed since the last call.
    pub(super) fn has_changed(&mut self) -> bool {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        let seen =
            Progress { received: socket.recv_queue(), unsent: socket.send_queue(), state: socket.state() };
        std::mem::replace(&mut self.seen, seen) != seen
    }

    /// Hands what has come to `take`, which says how much it took, until it takes no more.
    pub(super) fn read(&mut self, take: &mut dyn FnMut(&[u8]) -> usize) -> Result<Read, Reset> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if matches!(socket.state(), State::Listen | State::SynReceived) {
            return Ok(Read::Nothing);
        }
        let mut octets = 0;
        loop {
            let was_wanted = socket.recv(|come| {
                let taken = take(come).min(come.len());
                (taken, (taken, come.len()))
            });
            match was_wanted {
                Ok((taken, come)) => {
                    octets += taken;
                    // The buffer is a ring: there may be a second piece.
                    if taken < come || come == 0 {
                        break;
                    }
                }
                Err(_) if octets > 0 => break,
                Err(RecvError::Finished) => return Ok(Read::End),
                Err(RecvError::InvalidState) => return Err(Reset),
            }
        }
        Ok(if octets > 0 { Read::Octets(octets) } else { Read::Nothing })
    }

    /// Takes what there is room for.
    pub(super) fn write(&mut self, octets: &[u8], now: Instant) -> Result<usize, Reset> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if matches!(socket.state(), State::Listen | State::SynReceived) {
            return Ok(0);
        }
        let room = self.in_flight.room(socket.send_queue()).min(octets.len());
        let written = socket.send_slice(&octets[..room]).map_err(|_| Reset)?;
        if written > 0 {
            self.in_flight.wrote(written, socket.send_queue(), now);
        }
        Ok(written)
    }

    /// Ends our direction, after what was written.
    pub(super) fn shutdown(&mut self) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).close();
    }

    /// Resets the connection.
    pub(super) fn abort(&mut self) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
    }

    /// The user has left: what was written before a shutdown is delivered, all else is reset.
    pub(super) fn leave(&mut self, settings: &Settings, now: Instant) {
        self.held = Held::UntilDelivered(now + settings.linger_timeout);
        match self.state() {
            State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait
            | State::Closed => {}
            State::Listen | State::SynSent | State::SynReceived | State::Established | State::CloseWait => {
                self.abort()
            }
        }
    }

    /// Whether a new connection may take its place.
    pub(super) fn is_replaceable(&self) -> bool {
        matches!(self.state(), State::TimeWait | State::Closed)
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self.held, Held::ByUser)
    }

    fn state(&self) -> State {
        self.sockets.get::<tcp::Socket<'_>>(self.socket).state()
    }

    pub(super) const fn source(&self) -> IpAddr {
        self.pair.source.ip()
    }
}

/// smoltcp counts from its own beginning.
fn wire_time(epoch: Instant, now: Instant) -> WireInstant {
    let since = now.saturating_duration_since(epoch).as_micros();
    WireInstant::from_micros(i64::try_from(since).unwrap_or(i64::MAX))
}

/// What smoltcp sees of the world: one packet that came, and the packets to send.
struct Wire<'a> {
    incoming: Option<&'a [u8]>,
    outbox: &'a mut Outbox,
    recovery: &'a mut Recovery,
    mtu: usize,
}

/// The octets of the stream in a packet that smoltcp wrote, which has no options of IP.
fn sent(packet: &[u8]) -> Option<(TcpSeqNumber, usize)> {
    let header = if packet.first()? >> 4 == 4 { 20 } else { 40 };
    let segment = TcpPacket::new_checked(packet.get(header..)?).ok()?;
    Some((segment.seq_number(), segment.segment_len()))
}

struct Incoming<'a>(&'a [u8]);
struct Outgoing<'a>(&'a mut Outbox, &'a mut Recovery);

impl Device for Wire<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: WireInstant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        // An answer to what came may exceed the outbox by this one packet.
        Some((Incoming(self.incoming.take()?), Outgoing(self.outbox, self.recovery)))
    }

    fn transmit(&mut self, _: WireInstant) -> Option<Self::TxToken<'_>> {
        self.outbox.has_room().then_some(Outgoing(self.outbox, self.recovery))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // What comes has been checked.
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = checksum;
        capabilities
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        if let Some((from, octets)) = sent(&packet) {
            self.1.sends(from, octets);
        }
        self.0.push(packet);
        result
    }
}
