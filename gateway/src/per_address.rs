//! What one address may take: connections, and requests that the gateway answers itself before it knows who asks. A limit for all
//! alone would let one of them use it up.
//!
//! An IPv6 host has a /64 to choose addresses from: those count as one. The machine's own addresses are not counted, so that
//! a proxy on the same machine can speak for everybody.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

/// So many seconds' worth of requests may come at once: people of one office begin their day together.
const BURST_SECONDS: u32 = 10;

/// Networks that are remembered at most. Beyond them, strangers wait.
const NETWORKS_MAX: usize = 20_000;

/// What counts as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(Ipv6Addr);

impl Network {
    /// `None` for the machine itself.
    fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            own if own.is_loopback() => None,
            IpAddr::V4(address) => Some(Self(address.to_ipv6_mapped())),
            IpAddr::V6(address) => {
                const HOST_BITS: u32 = 64;
                Some(Self(Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS)))
            }
        }
    }
}

/// Counts open connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Arc<Mutex<HashMap<Network, u32>>>,
}

/// One open connection; its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Mutex<HashMap<Network, u32>>>,
    network: Option<Network>,
}

impl Connections {
    /// A place for one more connection from there; `None` if `max` are open.
    pub(crate) fn place(&self, address: IpAddr, max: u32) -> Option<Place> {
        let network = Network::of(address);
        if let Some(network) = network {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(network).or_default();
            if *count >= max {
                return None;
            }
            *count += 1;
        }
        Some(Place { open: self.open.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Holds requests to a rate a second, with room for a rush.
#[derive(Debug)]
pub(crate) struct Rate<C: Clock = MonotonicClock> {
    limiter: RateLimiter<Network, HashMapStateStore<Network>, C, NoOpMiddleware<C::Instant>>,
}

impl Rate {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self::with_clock(per_second, MonotonicClock)
    }
}

impl<C: Clock> Rate<C> {
    fn with_clock(per_second: NonZeroU32, clock: C) -> Self {
        let burst = per_second.saturating_mul(const { NonZeroU32::new(BURST_SECONDS).unwrap() });
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock) }
    }

    /// Whether one more request from there is within the rate.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let Some(network) = Network::of(address) else { return true };
        if self.limiter.len() >= NETWORKS_MAX {
            // Those who have been quiet are as new ones.
            self.limiter.retain_recent();
            if self.limiter.len() >= NETWORKS_MAX {
                return false;
            }
        }
        self.limiter.check_key(&network).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_does_not_take_the_places_of_another() {
        let connections = Connections::default();
        let held: Vec<_> = (0..3).map(|_| connections.place(ip("203.0.113.7"), 3).unwrap()).collect();
        assert!(connections.place(ip("203.0.113.7"), 3).is_none());
        assert!(connections.place(ip("::ffff:203.0.113.7"), 3).is_none(), "the same in IPv6's writing");
        assert!(connections.place(ip("203.0.113.8"), 3).is_some());
        drop(held);
        assert!(connections.place(ip("203.0.113.7"), 3).is_some());
        assert!(connections.open.lock().unwrap().is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn an_ipv6_host_has_no_more_by_changing_its_address() {
        let connections = Connections::default();
        let _held = connections.place(ip("2001:db8::1"), 1).unwrap();
        assert!(connections.place(ip("2001:db8::ffff:1"), 1).is_none());
        assert!(connections.place(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn the_machine_itself_is_not_counted() {
        let connections = Connections::default();
        let rate = Rate::new(NonZeroU32::MIN);
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let held: Vec<_> = (0..20).map(|_| connections.place(ip(own), 1)).collect();
            assert!(held.iter().all(Option::is_some));
            assert!((0..100).all(|_| rate.admits(ip(own))));
        }
    }

    #[test]
    fn a_rush_is_let_in_and_then_the_rate_holds() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::with_clock(NonZeroU32::new(2).unwrap(), clock.clone());
        let admitted = |address| (0..100).filter(|_| rate.admits(ip(address))).count();
        assert_eq!(admitted("203.0.113.7"), 20);
        assert_eq!(admitted("203.0.113.8"), 20, "another has its own");
        clock.advance(Duration::from_secs(1));
        assert_eq!(admitted("203.0.113.7"), 2);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::with_clock(NonZeroU32::MIN, clock.clone());
        let numbered = |number: usize| IpAddr::from(Ipv6Addr::from_bits((number as u128 + 1) << 64));
        for number in 0..NETWORKS_MAX {
            assert!(rate.admits(numbered(number)));
        }
        assert!(!rate.admits(ip("203.0.113.7")), "strangers wait");
        assert_eq!(rate.limiter.len(), NETWORKS_MAX);
        clock.advance(Duration::from_secs(2));
        assert!(rate.admits(ip("203.0.113.7")));
        assert_eq!(rate.limiter.len(), 1);
    }
}
