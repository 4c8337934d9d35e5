//! The last line of the log about a stream or flow.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pomerium_shared::{clock::Now, destination::Destination, relay::RelayEnd};
use serde::{Deserialize, Serialize};

use super::Connection;
use crate::config::Route;

/// What is said of it, beside how it ended.
#[derive(Debug)]
pub(super) struct Account {
    /// The name of the route.
    route: String,
    user: String,
    to: Destination,
    ip: IpAddr,
    protocol: String,
    /// The route's limit for a stream on which nothing moves.
    pub(super) idle: Option<Duration>,
    began: Instant,
    /// What was before this process.
    past: Past,
    /// How often its client came back to it since.
    resumed: Arc<AtomicU32>,
}

/// What went on in other processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    open: Duration,
    resumed: u32,
    bytes_from_client: u64,
    bytes_from_app: u64,
}

/// An account between two processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccountSoFar {
    route: String,
    user: String,
    ip: IpAddr,
    protocol: String,
    idle: Option<Duration>,
    past: Past,
}

impl Account {
    pub(super) fn new(
        route: &Route,
        user: String,
        to: Destination,
        connection: &Connection,
        began: Now,
    ) -> Self {
        Self {
            route: route.name.clone(),
            user,
            to,
            ip: connection.peer.ip(),
            protocol: connection.protocol.to_owned(),
            idle: route.idle_timeout,
            began: began.monotonic,
            past: Past::default(),
            resumed: Arc::default(),
        }
    }

    /// Goes on with one of another process.
    pub(super) fn going_on(so_far: AccountSoFar, to: Destination, now: Now) -> Self {
        let AccountSoFar { route, user, ip, protocol, idle, past } = so_far;
        Self { route, user, to, ip, protocol, idle, began: now.monotonic, past, resumed: Arc::default() }
    }

    /// Where it is counted how often its client came back.
    pub(super) fn counting(mut self, resumed: Arc<AtomicU32>) -> Self {
        self.resumed = resumed;
        self
    }

    /// For the process after this one, with all octets that the stream has ever carried.
    pub(super) fn so_far(&self, bytes_from_client: u64, bytes_from_app: u64, now: Now) -> AccountSoFar {
        AccountSoFar {
            route: self.route.clone(),
            user: self.user.clone(),
            ip: self.ip,
            protocol: self.protocol.clone(),
            idle: self.idle,
            past: Past { open: self.open(now), resumed: self.resumed(), bytes_from_client, bytes_from_app },
        }
    }

    /// Writes the line.
    pub(super) fn close(self, request_id: &str, end: RelayEnd) {
        tracing::info!(
            "request-id" = request_id,
            route = self.route,
            destination = %self.to,
            user = self.user,
            ip = %self.ip,
            protocol = self.protocol,
            reason = end.reason.as_str(),
            "bytes-from-client" = self.past.bytes_from_client + end.bytes_from_client,
            "bytes-from-app" = self.past.bytes_from_app + end.bytes_from_app,
            "resumed" = self.resumed(),
            "duration" = u64::try_from(self.open(Now::read()).as_millis()).unwrap_or(u64::MAX),
            "stream ended"
        );
    }

    fn resumed(&self) -> u32 {
        self.past.resumed.saturating_add(self.resumed.load(Ordering::Relaxed))
    }

    fn open(&self, now: Now) -> Duration {
        self.past.open.saturating_add(now.monotonic.duration_since(self.began))
    }
}
