//! The one module that knows boringtun: its sessions read their own clock, and panic where a buffer is too small or a counter ends.
//! Both are seen to here, before each call.

use std::{fmt, sync::Arc};

use boringtun::{
    noise::{
        Packet as Message, Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon,
        rate_limiter::RateLimiter,
    },
    x25519,
};

use super::{DATAGRAM_MAX, counters::Dropped};

/// Octets that a data message has beside what is in it.
pub const OVERHEAD: usize = 32;
/// Octets of the longest message that is no data: a handshake's first.
pub const HANDSHAKE: usize = 148;
/// Octets of a cookie reply.
const COOKIE_REPLY: usize = 64;
/// Messages that a session carries at most (`REJECT_AFTER_MESSAGES`); boringtun's arithmetic ends a little above.
const COUNTER_MAX: u64 = u64::MAX - (1 << 13);
/// Bits of a receiver index that are boringtun's: they number a tunnel's sessions.
const SESSION_BITS: u32 = 8;

const _: () = assert!(DATAGRAM_MAX >= super::MTU + OVERHEAD && DATAGRAM_MAX >= HANDSHAKE);

/// Names a tunnel in what its peer sends: 24 bits, so that boringtun's numbers of sessions fit behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Index(u32);

impl Index {
    /// Of any number, its lower 24 bits.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number & (u32::MAX >> SESSION_BITS))
    }

    const fn of_receiver(receiver: u32) -> Self {
        Self(receiver >> SESSION_BITS)
    }
}

/// What the gateway is to all peers: its key pair, and what it asks of strangers.
pub struct Identity {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// Tunnels check anew what [`Identity::admit`] has let through; there is no load in that.
    boundless: Arc<RateLimiter>,
    limiter: RateLimiter,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// What a datagram is, as far as a stranger's can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// Asks for a session; who asks is said inside.
    Initiation,
    /// For one tunnel.
    For(Index),
}

/// What is wrong with a datagram of a stranger.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdmitted<'b> {
    /// It is thrown away.
    Dropped(Dropped),
    /// There are many handshakes: its sender has to show that it gets this.
    Cookie(&'b [u8]),
}

impl Identity {
    /// The gateway with this private key, which asks for cookies above so many handshakes a second.
    #[must_use]
    pub fn new(private: [u8; 32], handshakes_per_second: u64) -> Self {
        let secret = x25519::StaticSecret::from(private);
        let public = x25519::PublicKey::from(&secret);
        let boundless = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { limiter: RateLimiter::new(&public, handshakes_per_second), secret, public, boundless }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    /// Looks at a datagram as cheaply as it can be done.
    ///
    /// # Errors
    /// See [`NotAdmitted`].
    pub fn admit<'b>(
        &self,
        datagram: &[u8],
        from: std::net::IpAddr,
        cookie: &'b mut [u8; COOKIE_REPLY],
    ) -> Result<Admitted, NotAdmitted<'b>> {
        if datagram.len() > DATAGRAM_MAX {
            return Err(NotAdmitted::Dropped(Dropped::Oversized));
        }
        // Counts anew each second, by its own clock.
        if datagram.len() <= HANDSHAKE {
            self.limiter.reset_count();
        }
        match self.limiter.verify_packet(Some(from), datagram, cookie) {
            Ok(Message::HandshakeInit(_)) => Ok(Admitted::Initiation),
            Ok(Message::HandshakeResponse(message)) => {
                Ok(Admitted::For(Index::of_receiver(message.receiver_idx)))
            }
            Ok(Message::PacketCookieReply(message)) => {
                Ok(Admitted::For(Index::of_receiver(message.receiver_idx)))
            }
            Ok(Message::PacketData(message)) => Ok(Admitted::For(Index::of_receiver(message.receiver_idx))),
            Err(TunnResult::WriteToNetwork(reply)) => Err(NotAdmitted::Cookie(reply)),
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => Err(NotAdmitted::Dropped(Dropped::BadMac)),
            Err(_) => Err(NotAdmitted::Dropped(Dropped::Malformed)),
        }
    }

    /// Whose handshake it is that [`Self::admit`] let through. Costs a multiplication on the curve.
    ///
    /// # Errors
    /// [`Dropped`].
    pub fn initiator(&self, datagram: &[u8]) -> Result<[u8; 32], Dropped> {
        let Ok(Message::HandshakeInit(message)) = Tunn::parse_incoming_packet(datagram) else {
            return Err(Dropped::Malformed);
        };
        let half = parse_handshake_anon(&self.secret, &self.public, &message);
        Ok(half.map_err(|_| Dropped::NotAuthentic)?.peer_static_public)
    }
}

/// The sessions with one peer.
pub struct Tunnel {
    tunn: Tunn,
    /// Packets may wait for the session that the next message confirms.
    may_have_queued: bool,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// What an authentic datagram was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet of so many octets, at the front of the buffer.
    Packet(usize),
    /// Nothing but a sign of life.
    Keepalive,
    /// Part of a handshake.
    Handshake,
    /// A cookie for our own handshakes. It says nothing about where the peer is.
    Cookie,
}

/// Every session with the peer has ended, and nothing is tried any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

impl Tunnel {
    /// A tunnel without a session yet.
    #[must_use]
    pub fn new(identity: &Identity, peer: [u8; 32], preshared: Option<[u8; 32]>, index: Index) -> Self {
        let (secret, limiter) = (identity.secret.clone(), identity.boundless.clone());
        let tunn = Tunn::new(secret, peer.into(), preshared, None, index.0, Some(limiter));
        Self { tunn, may_have_queued: false }
    }

    /// Opens a datagram into `packet`, which has room for [`DATAGRAM_MAX`] octets; what has to be sent is pushed to `replies`.
    ///
    /// # Errors
    /// [`Dropped`].
    pub fn open(
        &mut self,
        datagram: &[u8],
        packet: &mut [u8; DATAGRAM_MAX],
        replies: &mut Vec<Vec<u8>>,
    ) -> Result<Opened, Dropped> {
        if datagram.is_empty() || datagram.len() > DATAGRAM_MAX {
            return Err(Dropped::Oversized);
        }
        let is_data = match Tunn::parse_incoming_packet(datagram).map_err(|_| Dropped::Malformed)? {
            Message::PacketData(_) => true,
            Message::PacketCookieReply(_) => {
                return match self.tunn.decapsulate(None, datagram, packet) {
                    TunnResult::Done => Ok(Opened::Cookie),
                    _ => Err(Dropped::NotAuthentic),
                };
            }
            Message::HandshakeInit(_) | Message::HandshakeResponse(_) => false,
        };
        if is_data && counter(datagram).is_none_or(|counter| counter >= COUNTER_MAX) {
            return Err(Dropped::Replayed);
        }
        let opened = match self.tunn.decapsulate(None, datagram, packet) {
            TunnResult::WriteToTunnelV4(inner, _) | TunnResult::WriteToTunnelV6(inner, _) => {
                Opened::Packet(inner.len())
            }
            TunnResult::Done => Opened::Keepalive,
            TunnResult::WriteToNetwork(reply) => {
                replies.push(reply.to_vec());
                self.may_have_queued = true;
                return Ok(Opened::Handshake);
            }
            TunnResult::Err(error) => return Err(dropped(&error)),
        };
        if std::mem::take(&mut self.may_have_queued) {
            self.release_queued(replies);
        }
        Ok(opened)
    }

    /// Wraps a packet into `datagram`; `None` while there is no session to send it in: it waits for the next one then.
    /// A handshake may be what there is to send instead. Packets longer than the MTU are not sent.
    pub fn seal(&mut self, packet: &[u8], datagram: &mut [u8]) -> Option<usize> {
        if packet.len() > super::MTU || datagram.len() < HANDSHAKE.max(packet.len() + OVERHEAD) {
            debug_assert!(false, "the netstack keeps to the MTU, and buffers have room for it");
            return None;
        }
        match self.tunn.encapsulate(packet, datagram) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Lets time pass, by boringtun's own clock: a handshake or a sign of life may be due.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn tick(&mut self, datagram: &mut [u8; HANDSHAKE]) -> Result<Option<usize>, Expired> {
        match self.tunn.update_timers(datagram) {
            TunnResult::WriteToNetwork(message) => Ok(Some(message.len())),
            TunnResult::Err(WireGuardError::ConnectionExpired) => Err(Expired),
            _ => Ok(None),
        }
    }

    /// Sends what waited for a session.
    fn release_queued(&mut self, replies: &mut Vec<Vec<u8>>) {
        let mut datagram = [0; DATAGRAM_MAX];
        while let TunnResult::WriteToNetwork(message) = self.tunn.decapsulate(None, &[], &mut datagram) {
            replies.push(message.to_vec());
        }
    }
}

/// The number of a data message, which is long enough to have one.
fn counter(datagram: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*datagram.get(8..)?.first_chunk()?))
}

const fn dropped(error: &WireGuardError) -> Dropped {
    match error {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp => Dropped::Replayed,
        WireGuardError::InvalidPacket => Dropped::NotIp,
        WireGuardError::WrongIndex | WireGuardError::NoCurrentSession => Dropped::UnknownIndex,
        WireGuardError::InvalidMac => Dropped::BadMac,
        _ => Dropped::NotAuthentic,
    }
}
