//! Counts what goes to each destination. No I/O.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::local_api::wire::RouteStatus;

/// Destinations that are counted at most; a command may ask for any.
const DESTINATIONS_MAX: usize = 512;

/// The accounts of one gateway.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    routes: Mutex<BTreeMap<String, RouteStatus>>,
}

impl Ledger {
    /// A stream was asked for.
    pub(super) fn began(&self, destination: &str) {
        self.change(destination, |route| {
            route.streams += 1;
            route.streams_total += 1;
        });
    }

    /// A stream ended, or was not opened.
    pub(super) fn ended(&self, destination: &str, up: u64, down: u64, how: &str) {
        self.change(destination, |route| {
            route.streams = route.streams.saturating_sub(1);
            route.bytes_up = route.bytes_up.saturating_add(up);
            route.bytes_down = route.bytes_down.saturating_add(down);
            route.last_end = Some(how.to_owned());
        });
    }

    /// A forward listens, or could not, and why.
    pub(super) fn forward(&self, destination: &str, name: &str, listen: Result<String, String>) {
        self.change(destination, |route| {
            route.name = Some(name.to_owned());
            match listen {
                Ok(at) => route.listen = Some(at),
                Err(why) => (route.listen, route.last_end) = (None, Some(why)),
            }
        });
    }

    /// A forward is no more.
    pub(super) fn no_forward(&self, destination: &str) {
        self.change(destination, |route| (route.name, route.listen) = (None, None));
    }

    /// All accounts.
    pub(super) fn routes(&self) -> Vec<RouteStatus> {
        self.lock().values().cloned().collect()
    }

    fn change(&self, destination: &str, change: impl FnOnce(&mut RouteStatus)) {
        let mut routes = self.lock();
        if routes.len() >= DESTINATIONS_MAX && !routes.contains_key(destination) {
            // What is idle and no forward makes room.
            routes.retain(|_, route| route.streams > 0 || route.name.is_some());
            if routes.len() >= DESTINATIONS_MAX {
                return;
            }
        }
        let route = routes
            .entry(destination.to_owned())
            .or_insert_with(|| RouteStatus { destination: destination.to_owned(), ..RouteStatus::default() });
        change(route);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RouteStatus>> {
        // A panic of another holder leaves at worst a wrong count.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_bytes_are_counted_by_destination() {
        let ledger = Ledger::default();
        ledger.began("db:5432");
        ledger.began("db:5432");
        ledger.ended("db:5432", 10, 20, "stream ended: app");
        ledger.forward("db:5432", "db", Ok("127.70.1.2:5432".to_owned()));
        let routes = ledger.routes();
        assert_eq!((routes[0].streams, routes[0].streams_total), (1, 2));
        assert_eq!((routes[0].bytes_up, routes[0].bytes_down), (10, 20));
        assert_eq!(routes[0].listen.as_deref(), Some("127.70.1.2:5432"));
        ledger.no_forward("db:5432");
        assert_eq!(ledger.routes()[0].name, None);
    }

    #[test]
    fn destinations_without_end_take_no_memory_without_end() {
        let ledger = Ledger::default();
        ledger.forward("kept:1", "kept", Ok("127.70.1.2:1".to_owned()));
        for port in 1..=u16::try_from(DESTINATIONS_MAX * 3).unwrap() {
            let destination = format!("host:{port}");
            ledger.began(&destination);
            ledger.ended(&destination, 1, 1, "");
        }
        let routes = ledger.routes();
        assert!(routes.len() <= DESTINATIONS_MAX && routes.iter().any(|route| route.destination == "kept:1"));
    }
}
