//! The virtual addresses that routes have, and the names they answer to.
//!
//! Each TCP or UDP route host gets an IPv4 and an IPv6 address once, and keeps them: saved connections, host keys and firewall
//! rules stay good. [`AddressBook`] says which; [`dns`] answers questions about them and about nothing else. What must not
//! live here: the store that keeps the book, sockets, and the question who may reach a host.
//!
//! ```
//! use pomerium_shared::names::{AddressBook, Host, Pools};
//!
//! let mut book = AddressBook::new(Pools::default(), &["100.64.0.1".parse().unwrap()]);
//! let db: Host = "DB.corp.example".parse().unwrap();
//! let addresses = book.allocate(&db).unwrap();
//! assert_eq!(book.host_of(addresses.v4.into()), Some(&db));
//! assert_eq!(book.allocate(&db).unwrap(), addresses);
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};

pub mod dns;
#[cfg(test)]
mod tests;

/// Octets of a name at most, without the last dot (RFC 1035, 2.3.4).
const NAME_LEN_MAX: usize = 253;
/// Octets of a label at most (RFC 1035, 2.3.4).
const LABEL_LEN_MAX: usize = 63;

/// The name of a route host: lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

/// Why a text is no [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host name has labels of 1 to 63 letters, digits, '-' and '_', and 253 octets at most")]
pub struct BadHost;

impl Host {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LABEL_LEN_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_name = name.len() <= NAME_LEN_MAX && name.split('.').all(is_label);
        // What reads as an address is looked up by nobody.
        if !is_name || name.parse::<Ipv4Addr>().is_ok() {
            return Err(BadHost);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where virtual addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pools {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

/// Why two networks are no [`Pools`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolsError {
    /// Not /8 to /30.
    #[error("the IPv4 network for virtual addresses must have a prefix of 8 to 30 bits")]
    V4Prefix,
    /// Not /8 to /112.
    #[error("the IPv6 network for virtual addresses must have a prefix of 8 to 112 bits")]
    V6Prefix,
}

impl Pools {
    /// Two networks to allocate from; host bits in them are ignored.
    ///
    /// # Errors
    /// See [`PoolsError`].
    pub fn new(v4: Ipv4Net, v6: Ipv6Net) -> Result<Self, PoolsError> {
        if !(8..=30).contains(&v4.prefix_len()) {
            return Err(PoolsError::V4Prefix);
        }
        if !(8..=112).contains(&v6.prefix_len()) {
            return Err(PoolsError::V6Prefix);
        }
        Ok(Self { v4: v4.trunc(), v6: v6.trunc() })
    }

    /// Whether a virtual address can be this one.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.contains(&address),
        }
    }
}

impl Default for Pools {
    /// 100.64.0.0/10, which nobody's own network uses (RFC 6598), and a prefix of our own (RFC 4193), the same in each
    /// installation: an organisation that joins two of them sets its own.
    fn default() -> Self {
        Self {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
            v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd5a, 0x1f3c, 0x8b0e, 0, 0, 0, 0, 0), 64),
        }
    }
}

/// A host's two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// From the IPv4 pool.
    pub v4: Ipv4Addr,
    /// From the IPv6 pool.
    pub v6: Ipv6Addr,
}

/// Why a host gets no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// All of one kind are taken.
    #[error("all virtual addresses are taken: configure larger networks")]
    Exhausted,
}

/// Why a kept entry is not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Outside of the pools, or reserved: the configuration has changed. The host may be given new addresses.
    #[error("the address cannot be given to a host any more")]
    NotAllocatable,
    /// Another host has it, or the host has others.
    #[error("the address or the host is in the book already")]
    Taken,
}

/// Which host has which addresses. Same hosts in the same order, same addresses; nearly always in any order.
#[derive(Debug, Clone)]
pub struct AddressBook {
    pools: Pools,
    reserved: BTreeSet<IpAddr>,
    addresses: BTreeMap<Host, Addresses>,
    hosts: HashMap<IpAddr, Host>,
}

impl AddressBook {
    /// An empty book. `reserved` are the gateway's own addresses in the pools: its DNS server's, its peers'.
    #[must_use]
    pub fn new(pools: Pools, reserved: &[IpAddr]) -> Self {
        let mut reserved: BTreeSet<IpAddr> = reserved.iter().copied().collect();
        reserved.extend([
            IpAddr::V4(pools.v4.network()),
            pools.v4.broadcast().into(),
            pools.v6.network().into(),
        ]);
        Self { pools, reserved, addresses: BTreeMap::new(), hosts: HashMap::new() }
    }

    /// Takes over what was allocated before.
    ///
    /// # Errors
    /// See [`RestoreError`]; the book is then as before.
    pub fn restore(&mut self, host: &Host, addresses: Addresses) -> Result<(), RestoreError> {
        let both = [IpAddr::V4(addresses.v4), IpAddr::V6(addresses.v6)];
        if both.iter().any(|address| !self.pools.contains(*address) || self.reserved.contains(address)) {
            return Err(RestoreError::NotAllocatable);
        }
        if self.addresses.contains_key(host) || both.iter().any(|address| self.hosts.contains_key(address)) {
            return Err(RestoreError::Taken);
        }
        self.insert(host, addresses);
        Ok(())
    }

    /// The host's addresses, new ones if it has none.
    ///
    /// Where they begin to be looked for follows from the name alone.
    ///
    /// # Errors
    /// See [`AllocateError`].
    pub fn allocate(&mut self, host: &Host) -> Result<Addresses, AllocateError> {
        if let Some(addresses) = self.addresses.get(host) {
            return Ok(*addresses);
        }
        let start = mixed(host.as_str());
        let size = 1_u64 << (32 - self.pools.v4.prefix_len());
        let v4 = (0..size)
            .map(|step| self.v4_at(start.wrapping_add(step) % size))
            .find(|address| self.is_free((*address).into()))
            .ok_or(AllocateError::Exhausted)?;
        let size = 1_u128 << (128 - self.pools.v6.prefix_len()).min(64);
        let v6 = (0..size)
            .map(|step| self.v6_at(u128::from(start).wrapping_add(step) % size))
            .find(|address| self.is_free((*address).into()))
            .ok_or(AllocateError::Exhausted)?;
        let addresses = Addresses { v4, v6 };
        self.insert(host, addresses);
        Ok(addresses)
    }

    /// Gives a host's addresses back. They may go to another: only for hosts that nobody has saved.
    pub fn release(&mut self, host: &Host) {
        if let Some(addresses) = self.addresses.remove(host) {
            self.hosts.remove(&addresses.v4.into());
            self.hosts.remove(&addresses.v6.into());
        }
    }

    /// The addresses of a host that has some.
    #[must_use]
    pub fn addresses_of(&self, host: &Host) -> Option<Addresses> {
        self.addresses.get(host).copied()
    }

    /// The host that has the address.
    #[must_use]
    pub fn host_of(&self, address: IpAddr) -> Option<&Host> {
        self.hosts.get(&address)
    }

    /// All entries, in the order of the names: what a store keeps.
    pub fn entries(&self) -> impl Iterator<Item = (&Host, Addresses)> {
        self.addresses.iter().map(|(host, addresses)| (host, *addresses))
    }

    /// Where addresses come from.
    #[must_use]
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    fn insert(&mut self, host: &Host, addresses: Addresses) {
        self.addresses.insert(host.clone(), addresses);
        self.hosts.insert(addresses.v4.into(), host.clone());
        self.hosts.insert(addresses.v6.into(), host.clone());
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.hosts.contains_key(&address) && !self.reserved.contains(&address)
    }

    fn v4_at(&self, offset: u64) -> Ipv4Addr {
        let offset = u32::try_from(offset).unwrap_or(0);
        Ipv4Addr::from_bits(self.pools.v4.network().to_bits() | offset)
    }

    fn v6_at(&self, offset: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.pools.v6.network().to_bits() | offset)
    }
}

/// FNV-1a with a last mixing: the same in every version of the program, which the standard library's hash does not promise. It
/// need not resist an enemy, for the operator names the hosts.
fn mixed(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}
