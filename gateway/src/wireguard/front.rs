//! Sorts datagrams of anybody. Whoever is no peer can make it work no more than this: handshakes cost a look as long as there are
//! few; above that a cookie shows that their sender has its address, and each address has so many a second.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    counters::Dropped,
    tunnel::{Admitted, Identity, NotAdmitted},
};

/// Handshakes a second before cookies are asked for. Each costs about half a millisecond of a core: a sixth of one, at most.
pub const HANDSHAKES_PER_SECOND: u64 = 300;
/// Above that, from one address that has shown itself. An office of fifty comes in within a second.
pub const HANDSHAKES_PER_ADDRESS: u32 = 50;
/// Addresses that are counted in one second at most; the next ones have to come again.
const ADDRESSES_MAX: usize = 4096;
const SECOND: Duration = Duration::from_secs(1);

/// What this second has brought.
#[derive(Debug)]
pub struct Front {
    second: Instant,
    handshakes: u64,
    by_address: HashMap<IpAddr, u32>,
}

impl Front {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { second: now, handshakes: 0, by_address: HashMap::new() }
    }

    /// Says what is to be done with a datagram.
    ///
    /// # Errors
    /// See [`NotAdmitted`].
    pub fn sort<'b>(
        &mut self,
        identity: &Identity,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
        cookie: &'b mut [u8; 64],
    ) -> Result<Admitted, NotAdmitted<'b>> {
        if now.saturating_duration_since(self.second) >= SECOND {
            (self.second, self.handshakes) = (now, 0);
            self.by_address.clear();
        }
        let address = from.ip().to_canonical();
        let admitted = identity.admit(datagram, address, cookie)?;
        if admitted == Admitted::Initiation {
            self.handshakes += 1;
            if self.handshakes > HANDSHAKES_PER_SECOND && !self.has_room(address) {
                return Err(NotAdmitted::Dropped(Dropped::HandshakeRate));
            }
        }
        Ok(admitted)
    }

    /// How many addresses are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.by_address.len()
    }

    fn has_room(&mut self, address: IpAddr) -> bool {
        let network = network(address);
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&network) {
            return false;
        }
        let count = self.by_address.entry(network).or_default();
        *count += 1;
        *count <= HANDSHAKES_PER_ADDRESS
    }
}

/// What counts as one address: an IPv6 host has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into(),
    }
}
