//! What the client does not decide.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use pomerium_shared::clock::Now;

use crate::{
    forward::saved::{Saved, parse},
    token::{Token, tests::token_until},
};

/// How long a session lives.
const SESSION: Duration = Duration::from_secs(8 * 3600);
/// How long before its end people are told.
const AHEAD: Duration = Duration::from_secs(10 * 60);
/// They are told a little later than that at most, as nobody looks all the time.
const LATE: Duration = Duration::from_secs(60);

/// What becomes of what is sent to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gateway {
    Up,
    /// Nothing answers.
    Down,
    /// It takes connections, and drops them.
    Drops,
    /// It takes no token, not even its own.
    Confused,
}

/// What the person does with a sign-in page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Person {
    /// Signs in after so many seconds.
    SignsIn(u16),
    /// Lets it go by.
    IsAway,
    SaysNo,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Now,
    /// The machine's own address; `None` without a network.
    pub(super) address: Option<u8>,
    pub(super) udp: bool,
    pub(super) gateway: Gateway,
    /// Which process the gateway is; another one knows nothing of old connections.
    pub(super) incarnation: u64,
    /// What the gateway takes for a session.
    pub(super) session: Option<Token>,
    pub(super) person: Person,
    /// Since when a sign-in page waits for the person.
    pub(super) window: Option<Now>,
    /// Whether a pool of connections comes again and again.
    pub(super) pool: bool,
    /// Whether nothing can be written or removed.
    pub(super) is_disk_full: bool,
    /// The token on this machine's disk.
    pub(super) cache: Option<Token>,
    /// Which process holds the lock beside it.
    pub(super) lock: Option<usize>,
    pub(super) file: Vec<Saved>,
    /// Addresses that other programs hold.
    pub(super) taken: BTreeSet<SocketAddr>,
    /// Since when the clock has gone on evenly, and the token in the cache is the same.
    even_since: SystemTime,
    kept: Option<Token>,
    told: Option<SystemTime>,
    random: u64,
}

/// A forward at the address of this number, whose name and app may be changed.
pub(super) fn saved(number: u8, name: u8) -> Saved {
    let text = format!(
        "forwards:\n  - {{name: f{number}-{name}, gateway: g.example, route: 'app{name}:1', listen: '127.64.0.{}:1'}}\n",
        number + 1
    );
    parse(&text).expect("a file as people write it").remove(0)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let now = Now::read();
        Self {
            now,
            address: Some(1),
            udp: true,
            gateway: Gateway::Up,
            incarnation: 0,
            session: None,
            person: Person::SignsIn(5),
            window: None,
            pool: false,
            is_disk_full: false,
            cache: None,
            lock: None,
            file: vec![saved(0, 0), saved(1, 0)],
            taken: BTreeSet::new(),
            even_since: now.wall,
            kept: None,
            told: None,
            random: seed | 1,
        }
    }

    pub(super) fn be_well(&mut self) {
        (self.address, self.udp, self.gateway) = (Some(9), true, Gateway::Up);
        self.person = Person::SignsIn(3);
        (self.pool, self.is_disk_full) = (false, false);
        self.taken.clear();
    }

    /// Time passes, awake.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = Now { monotonic: self.now.monotonic + time, wall: self.now.wall + time };
        if self.cache != self.kept {
            (self.kept, self.even_since) = (self.cache.clone(), self.now.wall);
        }
        let Some(end) = self.kept.as_ref().and_then(Token::expires) else { return };
        let is_late = self.now.wall >= end - AHEAD + LATE && self.now.wall < end;
        if is_late && self.even_since <= end - AHEAD {
            assert_eq!(self.told, Some(end), "nobody was told that the session ends");
        }
    }

    pub(super) fn sleep(&mut self, time: Duration) {
        self.now.wall += time;
        self.even_since = self.now.wall;
    }

    pub(super) fn set_clock(&mut self, by: i8) {
        let by_seconds = Duration::from_secs(by.unsigned_abs().into());
        self.now.wall = if by < 0 { self.now.wall - by_seconds } else { self.now.wall + by_seconds };
        self.even_since = self.now.wall;
    }

    /// The person hears that the session ends then.
    pub(super) fn tell(&mut self, end: SystemTime) {
        assert_ne!(self.told, Some(end), "the same end was told twice");
        self.told = Some(end);
    }

    /// An address that packets leave from.
    pub(super) fn source(&self) -> Option<IpAddr> {
        self.address.map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    /// Whether a handshake over TCP succeeds.
    pub(super) fn tcp_gets_through(&self) -> bool {
        self.address.is_some() && self.gateway != Gateway::Down
    }

    /// Whether packets over UDP do.
    pub(super) fn udp_gets_through(&self) -> bool {
        self.tcp_gets_through() && self.udp
    }

    /// Whether the gateway takes this token.
    pub(super) fn takes(&self, token: Option<&Token>) -> bool {
        let is_session = token.is_some() && self.session.as_ref() == token;
        self.gateway != Gateway::Confused
            && is_session
            && token.is_some_and(|token| !token.is_expired(self.now.wall))
    }

    /// Writes to the disk, if it can.
    pub(super) fn keep(&mut self, token: Option<Token>) {
        if !self.is_disk_full {
            self.cache = token;
        }
    }

    /// A session begins.
    pub(super) fn begin_session(&mut self) -> Token {
        let end = self.now.unix_seconds() + i64::try_from(SESSION.as_secs()).expect("a few hours");
        let token = token_until(end);
        self.session = Some(token.clone());
        token
    }

    /// Any number (xorshift).
    pub(super) const fn random(&mut self) -> u16 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random as u16
    }
}
