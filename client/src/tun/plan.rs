//! Which address is which host, and which of its ports are routes. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pomerium_shared::{
    destination::Destination,
    names::{AddressBook, Addresses, Host, Pools, dns},
};

use crate::forward::chosen::Chosen;

/// The kernel's end of the device.
pub(crate) const DEVICE_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(crate) const DEVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd5a, 0x1f3c, 0x8b0e, 0, 0, 0, 0, 1);
/// Where names are asked for.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
pub(crate) const RESOLVER_PORT: u16 = 53;

/// What a route carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Carries {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where a packet's destination leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// The app.
    pub(crate) to: Destination,
    /// Its row on the board.
    pub(crate) row: usize,
}

/// The addresses of all routes.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    book: AddressBook,
    rows: HashMap<(Host, u16, Carries), usize>,
}

impl Default for Plan {
    /// Of no route.
    fn default() -> Self {
        let reserved = [DEVICE_V4.into(), DEVICE_V6.into(), RESOLVER.into()];
        Self { book: AddressBook::new(Pools::default(), &reserved), rows: HashMap::new() }
    }
}

impl Plan {
    /// The plan after this one, for what is chosen now, in the order of its rows. A host that stays keeps its addresses. A route
    /// to a bare address has no name to look up, and no place.
    pub(crate) fn next(&self, chosen: &[Chosen]) -> Self {
        let carries = |route: &Chosen| if route.is_udp { Carries::Udp } else { Carries::Tcp };
        self.after(chosen.iter().map(|route| (carries(route), &route.target.destination)))
    }

    fn after<'a>(&self, routes: impl IntoIterator<Item = (Carries, &'a Destination)>) -> Self {
        let routes = routes.into_iter().enumerate();
        let routes: Vec<(usize, Carries, u16, Host)> = routes
            .filter_map(|(row, (carries, to))| Some((row, carries, to.port(), to.host().parse().ok()?)))
            .collect();
        let mut plan = Self::default();
        // First of all: what is new gets what is free then.
        for (.., host) in &routes {
            if let Some(addresses) = self.book.addresses_of(host) {
                // It may be in the book already, by another of its routes.
                _ = plan.book.restore(host, addresses);
            }
        }
        for (row, carries, port, host) in routes {
            // Four million addresses are more than a gateway has routes.
            if plan.book.allocate(&host).is_ok() {
                plan.rows.insert((host, port, carries), row);
            }
        }
        plan
    }

    /// The addresses of hosts that the other one does not have.
    pub(crate) fn beside(&self, other: &Self) -> Vec<Addresses> {
        let all = self.book.entries();
        all.filter(|(host, _)| other.book.addresses_of(host).is_none())
            .map(|(_, addresses)| addresses)
            .collect()
    }

    /// The addresses of a destination's host.
    pub(crate) fn addresses_of(&self, to: &Destination) -> Option<Addresses> {
        self.book.addresses_of(&to.host().parse().ok()?)
    }

    /// The names of all hosts.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.book.entries().map(|(host, _)| host.to_string()).collect()
    }

    /// All hosts' addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Addresses> {
        self.book.entries().map(|(_, addresses)| addresses)
    }

    /// Whether packets to this address are for us.
    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        address == IpAddr::from(RESOLVER) || self.book.host_of(address).is_some()
    }

    /// The route of a flow; `None` is a port that no route has.
    pub(crate) fn way(&self, carries: Carries, to: SocketAddr) -> Option<Way> {
        let host = self.book.host_of(to.ip())?;
        let row = *self.rows.get(&(host.clone(), to.port(), carries))?;
        Some(Way { to: Destination::new(host.as_str(), to.port()).ok()?, row })
    }

    /// The answer to a DNS question; `None`: it deserves none.
    pub(crate) fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        dns::answer(question, &self.book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Destination {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_of_a_host_is_its_route_and_every_other_is_none() {
        let (db, ssh, dns) = ("DB.corp.example:5432", "db.corp.example:22", "dns.corp.example:53");
        let routes =
            [(Carries::Tcp, db), (Carries::Tcp, ssh), (Carries::Udp, dns)].map(|(c, t)| (c, destination(t)));
        let plan = Plan::default().after(routes.iter().map(|(carries, to)| (*carries, to)));
        let addresses = plan.addresses_of(&destination(db)).unwrap();
        assert_eq!(plan.addresses().count(), 2, "one host, one pair");
        for ip in [IpAddr::from(addresses.v4), addresses.v6.into()] {
            let way =
                |port| plan.way(Carries::Tcp, (ip, port).into()).map(|way| (way.to.to_string(), way.row));
            assert_eq!(way(5432), Some(("db.corp.example:5432".to_owned(), 0)));
            assert_eq!(way(22), Some(("db.corp.example:22".to_owned(), 1)));
            assert_eq!(way(23), None);
            assert_eq!(plan.way(Carries::Udp, (ip, 22).into()), None);
        }
        assert!(plan.is_ours(addresses.v4.into()) && plan.is_ours(RESOLVER.into()));
        for foreign in [DEVICE_V4, Ipv4Addr::new(100, 64, 0, 3), Ipv4Addr::new(192, 0, 2, 1)] {
            assert!(!plan.is_ours(foreign.into()), "{foreign}");
        }
    }

    #[test]
    fn a_route_to_a_bare_address_has_no_name_to_ask_for() {
        let to = destination("10.0.0.7:22");
        let plan = Plan::default().after([(Carries::Tcp, &to)]);
        assert_eq!((plan.addresses_of(&to), plan.addresses().count()), (None, 0));
    }

    #[test]
    fn hosts_that_stay_keep_their_addresses_and_those_that_come_and_go_are_told() {
        let all = ["a.example:1", "b.example:2", "b.example:3", "c.example:4"].map(destination);
        let of =
            |plan: &Plan, routes: &[&Destination]| plan.after(routes.iter().map(|to| (Carries::Tcp, *to)));
        let [a, b, b_too, c] = &all;
        let first = of(&Plan::default(), &[a, b, b_too]);
        let later = of(&first, &[c, b_too]);
        assert_eq!(later.addresses_of(b), first.addresses_of(b));
        assert_eq!(later.beside(&first), [later.addresses_of(c).unwrap()]);
        assert_eq!(first.beside(&later), [first.addresses_of(a).unwrap()]);
        let gone = first.addresses_of(a).unwrap();
        assert!(!later.is_ours(gone.v4.into()) && !later.is_ours(gone.v6.into()));
        let kept = SocketAddr::from((first.addresses_of(b).unwrap().v4, 2));
        assert!(first.way(Carries::Tcp, kept).is_some() && later.way(Carries::Tcp, kept).is_none());
        assert!(first.beside(&first).is_empty());
    }
}
