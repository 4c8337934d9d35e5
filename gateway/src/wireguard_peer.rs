//! WireGuard peers of people: plain data and the rules of their life, without I/O.
//!
//! A peer belongs to a person, and stands on the session that the person began last, in any browser or client. Ends that
//! session, so does what is open, and the peer waits for the next sign-in. The peer's key says which person's peer it is,
//! and nothing about the machine: see [`session_behind`].

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::{Ipv4Net, Ipv6Net};
use pomerium_shared::{
    destination::Destination,
    names::{Addresses, Pools},
    wireguard::{Enrolment, ListedPeer, PeerName, PeerState, PresharedKey, PublicKey},
};

use crate::session::{Session, SessionId, UserId};

/// Names one peer; random, minted by the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(String);

impl PeerId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One peer of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Names the peer.
    pub id: PeerId,
    /// Whose it is.
    pub user_id: UserId,
    /// Which identity provider knows that person: ids of two providers are of two people.
    pub idp_id: String,
    /// What the person calls it.
    pub name: PeerName,
    /// Names it in handshakes.
    pub public_key: PublicKey,
    /// The secret of both ends.
    pub preshared_key: PresharedKey,
    /// Its own addresses: whatever it sends comes from one of them.
    pub addresses: Addresses,
    /// The session that it stands on; `None` while its person is signed out.
    pub session_id: Option<SessionId>,
    /// When it was enrolled.
    pub created_at: SystemTime,
    /// When an administrator revoked it. It stays in its person's list, and comes in no more.
    pub revoked_at: Option<SystemTime>,
}

/// A peer that may come in, and until when that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedPeer {
    /// The peer.
    pub peer: Peer,
    /// The session that it stands on.
    pub session_id: SessionId,
    /// From this moment on it may not, unless its person signs in before: the end of the session and the grace after it.
    pub until: SystemTime,
}

impl Peer {
    /// How it stands with the peer at `now`; `session_ends` is when its session does, if it has one.
    #[must_use]
    pub fn state(
        &self,
        networks: &Networks,
        session_ends: Option<SystemTime>,
        grace: Duration,
        now: SystemTime,
    ) -> PeerState {
        if self.revoked_at.is_some() {
            PeerState::Revoked
        } else if !networks.is_of_peer(self.addresses) {
            PeerState::Misplaced
        } else if session_ends.is_some_and(|end| now < end + grace) {
            PeerState::Active
        } else {
            PeerState::SignedOut
        }
    }
}

/// On what terms people enrol peers.
#[derive(Debug, Clone)]
pub struct PeerTerms {
    /// The networks inside the tunnel.
    pub networks: Networks,
    /// Where clients are told to send.
    pub endpoint: Destination,
    /// Names the gateway in handshakes.
    pub gateway_public_key: PublicKey,
    /// Whom clients ask about names that are no routes'.
    pub other_dns: Vec<IpAddr>,
    /// Peers that one person may have.
    pub peers_per_user: NonZeroU32,
    /// How long a peer outlives the session that it stands on.
    pub session_grace: Duration,
}

impl PeerTerms {
    /// What the client of a new peer is told, once.
    #[must_use]
    pub fn enrolment(&self, peer: &Peer) -> Enrolment {
        let (v4, v6) = self.networks.towards_gateway();
        Enrolment {
            id: peer.id.to_string(),
            name: peer.name.clone(),
            address_v4: peer.addresses.v4,
            address_v6: peer.addresses.v6,
            preshared_key: peer.preshared_key.clone(),
            gateway_public_key: self.gateway_public_key,
            endpoint: self.endpoint.clone(),
            dns: [self.networks.gateway().v4.into()]
                .into_iter()
                .chain(self.other_dns.iter().copied())
                .collect(),
            allowed_ips: vec![v4.into(), v6.into()],
        }
    }

    /// A peer as its person's list has it.
    #[must_use]
    pub fn listed(&self, peer: &Peer, session_ends: Option<SystemTime>, now: SystemTime) -> ListedPeer {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let state = peer.state(&self.networks, session_ends, self.session_grace, now);
        let until = session_ends.filter(|_| state == PeerState::Active).map(|end| end + self.session_grace);
        ListedPeer {
            id: peer.id.to_string(),
            name: peer.name.clone(),
            public_key: peer.public_key,
            address_v4: peer.addresses.v4,
            address_v6: peer.addresses.v6,
            created_at: seconds(peer.created_at),
            state,
            active_until: until.map(seconds),
        }
    }
}

/// A peer's session as decisions must see it: on no device, and for `grace` longer.
///
/// A peer's key is a file that moves between machines. So it is not the device key that the session may be bound to, and no
/// proof that this is the browser which proved to be a device.
#[must_use]
pub fn session_behind(session: Session, grace: Duration) -> Session {
    let expires_at = session.expires_at + grace;
    Session { bound_to: None, proof: None, expires_at, ..session }
}

/// The networks inside the tunnel. The lower half of each is of routes, the upper half of peers: an address is never both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Networks {
    routes: (Ipv4Net, Ipv6Net),
    peers: (Ipv4Net, Ipv6Net),
    pools: Pools,
}

/// Why two networks cannot be those inside the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworksError {
    /// Not /8 to /29.
    #[error("the IPv4 network must have a prefix of 8 to 29 bits")]
    V4Prefix,
    /// Not /8 to /111.
    #[error("the IPv6 network must have a prefix of 8 to 111 bits")]
    V6Prefix,
    /// Loopback, multicast and the like.
    #[error("{0} is not routed like others: take private networks, like 100.64.0.0/10 and fd00::/64")]
    Special(IpAddr),
    /// Fewer IPv6 than IPv4 addresses: each peer has one of both.
    #[error("the IPv6 network is smaller than the IPv4 network: each peer has an address of both")]
    V6Smaller,
}

impl Networks {
    /// Two networks to divide; host bits in them are ignored.
    ///
    /// # Errors
    /// See [`NetworksError`].
    pub fn new(v4: Ipv4Net, v6: Ipv6Net) -> Result<Self, NetworksError> {
        if !(8..=29).contains(&v4.prefix_len()) {
            return Err(NetworksError::V4Prefix);
        }
        if !(8..=111).contains(&v6.prefix_len()) {
            return Err(NetworksError::V6Prefix);
        }
        let first = v4.network();
        if first.is_loopback()
            || first.is_multicast()
            || first.is_link_local()
            || matches!(first.octets()[0], 0 | 240..)
        {
            return Err(NetworksError::Special(first.into()));
        }
        let first = v6.network();
        if first.is_loopback()
            || first.is_unspecified()
            || first.is_multicast()
            || first.is_unicast_link_local()
        {
            return Err(NetworksError::Special(first.into()));
        }
        if 128 - v6.prefix_len() < 32 - v4.prefix_len() {
            return Err(NetworksError::V6Smaller);
        }
        let half = "a network that is no single address has two halves";
        let (mut fours, mut sixes) =
            (v4.subnets(v4.prefix_len() + 1).expect(half), v6.subnets(v6.prefix_len() + 1).expect(half));
        let routes = (fours.next().expect(half), sixes.next().expect(half));
        let peers = (fours.next().expect(half), sixes.next().expect(half));
        let pools = Pools::new(routes.0, routes.1).expect("halves of what was checked above fit");
        Ok(Self { routes, peers, pools })
    }

    /// Where the addresses of routes come from.
    #[must_use]
    pub const fn routes(&self) -> Pools {
        self.pools
    }

    /// The two networks of routes and the gateway itself: what peers send into the tunnel.
    #[must_use]
    pub const fn towards_gateway(&self) -> (Ipv4Net, Ipv6Net) {
        self.routes
    }

    /// The gateway's own addresses, where it answers questions about names: the first of each network. Never a route's or
    /// a peer's.
    #[must_use]
    pub fn gateway(&self) -> Addresses {
        Addresses {
            v4: Ipv4Addr::from_bits(self.routes.0.network().to_bits() + 1),
            v6: Ipv6Addr::from_bits(self.routes.1.network().to_bits() + 1),
        }
    }

    /// Whether these can be a peer's addresses.
    #[must_use]
    pub fn is_of_peer(&self, addresses: Addresses) -> bool {
        self.peers.0.contains(&addresses.v4) && self.peers.1.contains(&addresses.v6)
    }

    /// Addresses of a peer that are not among the taken ones, looked for from a random place on; `None` when all are taken.
    #[must_use]
    pub fn free_addresses(&self, taken: &HashSet<IpAddr>, random: u32) -> Option<Addresses> {
        // Neither the network's own address nor the one of all, which some systems do not accept as a machine's.
        let count = (1_u32 << (32 - self.peers.0.prefix_len())) - 2;
        (0..count)
            .map(|step| {
                let offset = 1 + (random % count + step) % count;
                Addresses {
                    v4: Ipv4Addr::from_bits(self.peers.0.network().to_bits() + offset),
                    v6: Ipv6Addr::from_bits(self.peers.1.network().to_bits() + u128::from(offset)),
                }
            })
            .find(|both| !taken.contains(&both.v4.into()) && !taken.contains(&both.v6.into()))
    }
}

impl Default for Networks {
    /// The networks of [`Pools::default`].
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd5a, 0x1f3c, 0x8b0e, 0, 0, 0, 0, 0), 64);
        Self::new(v4, v6).expect("these are private networks of a fitting size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(v4: &str, v6: &str) -> Result<Networks, NetworksError> {
        Networks::new(v4.parse().unwrap(), v6.parse().unwrap())
    }

    #[test]
    fn an_address_is_of_a_route_or_of_a_peer_and_never_of_both() {
        let networks = networks("10.9.0.7/29", "fd00::/64").unwrap();
        let mut taken = HashSet::new();
        for expected in ["10.9.0.5", "10.9.0.6"] {
            let addresses = networks.free_addresses(&taken, 4).unwrap();
            assert_eq!(addresses.v4.to_string(), expected);
            assert!(networks.is_of_peer(addresses));
            for address in [IpAddr::from(addresses.v4), addresses.v6.into()] {
                assert!(!networks.routes().contains(address));
                taken.insert(address);
            }
        }
        assert_eq!(networks.free_addresses(&taken, 4), None);
        let gateway = networks.gateway();
        assert_eq!((gateway.v4.to_string(), gateway.v6.to_string()), ("10.9.0.1".into(), "fd00::1".into()));
        assert!(!networks.is_of_peer(gateway));
        let (v4, v6) = networks.towards_gateway();
        assert_eq!((v4.to_string(), v6.to_string()), ("10.9.0.0/30".into(), "fd00::/65".into()));
    }

    #[test]
    fn any_random_number_leads_to_an_address_of_a_peer() {
        let networks = Networks::default();
        for random in [0, 1, (1 << 21) - 2, (1 << 21) - 1, u32::MAX] {
            assert!(networks.is_of_peer(networks.free_addresses(&HashSet::new(), random).unwrap()));
        }
    }

    #[test]
    fn networks_that_do_not_fit_are_refused() {
        for (v4, v6, error) in [
            ("10.0.0.0/7", "fd00::/64", NetworksError::V4Prefix),
            ("10.0.0.0/30", "fd00::/64", NetworksError::V4Prefix),
            ("10.0.0.0/24", "fd00::/112", NetworksError::V6Prefix),
            ("10.0.0.0/8", "fd00::/111", NetworksError::V6Smaller),
            ("127.0.0.0/8", "fd00::/64", NetworksError::Special(Ipv4Addr::new(127, 0, 0, 0).into())),
            ("224.0.0.0/8", "fd00::/64", NetworksError::Special(Ipv4Addr::new(224, 0, 0, 0).into())),
            ("10.0.0.0/24", "fe80::/64", NetworksError::Special("fe80::".parse().unwrap())),
            ("10.0.0.0/24", "::/96", NetworksError::Special(Ipv6Addr::UNSPECIFIED.into())),
        ] {
            assert_eq!(networks(v4, v6), Err(error), "{v4} {v6}");
        }
    }
}
