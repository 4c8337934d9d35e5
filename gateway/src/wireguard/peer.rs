//! One peer: its tunnel, where it is, and what it may send.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use pomerium_shared::names::Addresses;

use super::{
    DATAGRAM_MAX,
    counters::Dropped,
    tunnel::{Expired, HANDSHAKE, Opened, Tunnel},
};

/// Between two looks at the timers of a tunnel in use. WireGuard's own are of seconds.
pub const TICK: Duration = Duration::from_millis(250);
/// Events that wait to be told at most.
const EVENTS_MAX: usize = 8;
/// Between two moves that are told: a peer may send each datagram from another place.
const MOVES_EVERY: Duration = Duration::from_secs(1);

/// What a person would notice of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A session is confirmed, after none was.
    Up,
    /// It speaks from another address.
    Moved,
    /// Nothing has come for so long that its sessions have ended.
    Silent,
}

/// A peer at work.
#[derive(Debug)]
pub struct Peer {
    tunnel: Tunnel,
    addresses: Addresses,
    endpoint: Option<SocketAddr>,
    /// Where it was said to be last, and when it was said to have moved.
    told: Option<SocketAddr>,
    moved: Option<Instant>,
    ticked: Option<Instant>,
    is_up: bool,
    /// No session, and none is asked for: there is nothing to look at the clock for.
    is_idle: bool,
    events: VecDeque<Event>,
    replies: Vec<Vec<u8>>,
}

impl Peer {
    /// A peer that has not been heard yet.
    #[must_use]
    pub const fn new(tunnel: Tunnel, addresses: Addresses) -> Self {
        Self {
            tunnel,
            addresses,
            endpoint: None,
            told: None,
            moved: None,
            ticked: None,
            is_up: false,
            is_idle: true,
            events: VecDeque::new(),
            replies: Vec::new(),
        }
    }

    /// Takes a datagram that came from `from`. The packet in it, if there is a good one, is the first so many octets of `packet`.
    /// What is to be sent back is in [`Self::replies`].
    ///
    /// # Errors
    /// [`Dropped`]. What is not authentic changes nothing.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        packet: &mut [u8; DATAGRAM_MAX],
        now: Instant,
    ) -> Result<Option<usize>, Dropped> {
        self.catch_up(now);
        let opened = self.tunnel.open(datagram, packet, &mut self.replies)?;
        self.is_idle = false;
        match opened {
            Opened::Cookie => Ok(None),
            Opened::Handshake => {
                self.heard_from(from, now);
                Ok(None)
            }
            Opened::Keepalive => {
                self.confirmed(from, now);
                Ok(None)
            }
            Opened::Packet(len) => {
                self.confirmed(from, now);
                let source = packet.get(..len).and_then(source_of).ok_or(Dropped::NotIp)?;
                let is_own = match source {
                    IpAddr::V4(source) => source == self.addresses.v4,
                    IpAddr::V6(source) => source == self.addresses.v6,
                };
                if is_own { Ok(Some(len)) } else { Err(Dropped::ForeignSource) }
            }
        }
    }

    /// Wraps a packet for the peer; `None` while it has to wait for a session.
    ///
    /// # Errors
    /// [`Dropped::NoEndpoint`].
    pub fn seal(
        &mut self,
        packet: &[u8],
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Option<usize>, Dropped> {
        if self.endpoint.is_none() {
            return Err(Dropped::NoEndpoint);
        }
        self.catch_up(now);
        self.is_idle = false;
        Ok(self.tunnel.seal(packet, datagram))
    }

    /// Does what is due by the clock.
    pub fn tick(&mut self, now: Instant) {
        self.ticked = Some(now);
        let mut datagram = [0; HANDSHAKE];
        match self.tunnel.tick(&mut datagram) {
            Ok(Some(len)) => self.replies.push(datagram[..len].to_vec()),
            Ok(None) => {}
            Err(Expired) => {
                self.is_idle = true;
                if std::mem::take(&mut self.is_up) {
                    self.tell(Event::Silent);
                }
            }
        }
    }

    /// When [`Self::tick`] is to be called; `None` as long as nothing happens.
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        (!self.is_idle).then(|| self.ticked.map(|at| at + TICK)).flatten()
    }

    /// The datagrams to send to [`Self::endpoint`], beside those of [`Self::seal`].
    pub fn replies(&mut self) -> std::vec::Drain<'_, Vec<u8>> {
        self.replies.drain(..)
    }

    /// The next thing to tell.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Where it spoke from last.
    #[must_use]
    pub const fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// boringtun knows the time of its last tick alone.
    fn catch_up(&mut self, now: Instant) {
        if self.ticked.is_none_or(|at| now.saturating_duration_since(at) >= TICK) {
            self.tick(now);
        }
    }

    fn confirmed(&mut self, from: SocketAddr, now: Instant) {
        self.heard_from(from, now);
        if !std::mem::replace(&mut self.is_up, true) {
            self.told = Some(from);
            self.tell(Event::Up);
        }
    }

    fn heard_from(&mut self, from: SocketAddr, now: Instant) {
        self.endpoint = Some(from);
        let may_tell = self.moved.is_none_or(|at| now.saturating_duration_since(at) >= MOVES_EVERY);
        if self.is_up && may_tell && self.told != Some(from) {
            (self.told, self.moved) = (Some(from), Some(now));
            self.tell(Event::Moved);
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

/// The source address of an IP packet, which is looked at no further here.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into()),
        6 => Some(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}
