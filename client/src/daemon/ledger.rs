//! Counts what goes to each destination. No I/O.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pomerium_shared::relay::Counters;

use crate::local_api::wire::RouteStatus;

/// Destinations that are counted at most; a command may ask for any.
const DESTINATIONS_MAX: usize = 512;

/// The accounts of one gateway.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Mutex<BTreeMap<String, Account>>,
}

#[derive(Debug, Default)]
struct Account {
    route: RouteStatus,
    /// What its streams have moved, also those that live.
    counters: Arc<Counters>,
}

impl Ledger {
    /// A stream was asked for.
    pub(super) fn began(&self, destination: &str) {
        self.change(destination, |route| {
            route.streams += 1;
            route.streams_total += 1;
        });
    }

    /// What the streams of a destination count while they go on; what is not counted any more has counters that nobody reads.
    pub(super) fn counters(&self, destination: &str) -> Arc<Counters> {
        self.lock().get(destination).map(|account| Arc::clone(&account.counters)).unwrap_or_default()
    }

    /// A stream ended, or was not opened.
    pub(super) fn ended(&self, destination: &str, how: &str) {
        self.change(destination, |route| {
            route.streams = route.streams.saturating_sub(1);
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

    /// All accounts, as of now.
    pub(super) fn routes(&self) -> Vec<RouteStatus> {
        let of = |Account { route, counters }: &Account| RouteStatus {
            bytes_up: counters.from_client(),
            bytes_down: counters.from_app(),
            ..route.clone()
        };
        self.lock().values().map(of).collect()
    }

    fn change(&self, destination: &str, change: impl FnOnce(&mut RouteStatus)) {
        let mut accounts = self.lock();
        if accounts.len() >= DESTINATIONS_MAX && !accounts.contains_key(destination) {
            // What is idle and no forward makes room.
            accounts.retain(|_, Account { route, .. }| route.streams > 0 || route.name.is_some());
            if accounts.len() >= DESTINATIONS_MAX {
                return;
            }
        }
        let account = accounts.entry(destination.to_owned()).or_insert_with(|| Account {
            route: RouteStatus { destination: destination.to_owned(), ..RouteStatus::default() },
            ..Account::default()
        });
        change(&mut account.route);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        // A panic of another holder leaves at worst a wrong count.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use pomerium_shared::relay::{self, Leg, RelayOptions};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split},
        time::timeout,
    };

    use super::*;

    #[test]
    fn streams_are_counted_by_destination() {
        let ledger = Ledger::default();
        ledger.began("db:5432");
        ledger.began("db:5432");
        ledger.ended("db:5432", "stream ended: app");
        ledger.forward("db:5432", "db", Ok("127.70.1.2:5432".to_owned()));
        let routes = ledger.routes();
        assert_eq!((routes[0].streams, routes[0].streams_total), (1, 2));
        assert_eq!(routes[0].listen.as_deref(), Some("127.70.1.2:5432"));
        ledger.no_forward("db:5432");
        assert_eq!(ledger.routes()[0].name, None);
    }

    #[tokio::test]
    async fn bytes_are_counted_while_the_stream_lives() {
        let ledger = Ledger::default();
        ledger.began("db:5432");
        let ((mut program, near), (mut app, far)) = (duplex(64), duplex(64));
        let [near, far] = [near, far].map(|end| {
            let (reader, writer) = split(end);
            Leg::io(reader, writer)
        });
        let counters = ledger.counters("db:5432");
        let talk = async {
            program.write_all(b"select").await.unwrap();
            app.read_exact(&mut [0; 6]).await.unwrap();
            app.write_all(b"1").await.unwrap();
            program.read_exact(&mut [0; 1]).await.unwrap();
            // What has come through is counted a moment later.
            loop {
                let route = ledger.routes().remove(0);
                if (route.streams, route.bytes_up, route.bytes_down) == (1, 6, 1) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            end = relay::run_counted(near, far, RelayOptions::default(), pending(), &counters) => panic!("{end:?}"),
            told = timeout(Duration::from_secs(10), talk) => told.unwrap(),
        }
        ledger.ended("db:5432", "stream ended: app");
        ledger.began("db:5432");
        assert_eq!(ledger.routes()[0].bytes_up, 6, "the next one adds to it");
        assert_eq!(ledger.counters("unknown:1").from_app(), 0);
    }

    #[test]
    fn destinations_without_end_take_no_memory_without_end() {
        let ledger = Ledger::default();
        ledger.forward("kept:1", "kept", Ok("127.70.1.2:1".to_owned()));
        for port in 1..=u16::try_from(DESTINATIONS_MAX * 3).unwrap() {
            let destination = format!("host:{port}");
            ledger.began(&destination);
            ledger.ended(&destination, "");
        }
        let routes = ledger.routes();
        assert!(routes.len() <= DESTINATIONS_MAX && routes.iter().any(|route| route.destination == "kept:1"));
    }
}
