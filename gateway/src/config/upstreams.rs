//! The apps behind one route: where they are, how they share the work, and how they are known to be well.

use std::{ops::Range, path::PathBuf, time::Duration};

use http::uri::Authority;
use url::Url;

/// All that one route's requests may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstreams {
    /// `to`, in its order; never empty.
    pub members: Vec<Upstream>,
    /// `load_balancing_policy`.
    pub balancing: Balancing,
    /// `health_checks`: an upstream is in when it passes all of them.
    pub health_checks: Vec<HealthCheck>,
    /// `outlier_detection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `healthy_panic_threshold`, per cent; 0: an upstream that is out gets no requests, whatever becomes of the others.
    pub panic_threshold: u8,
    /// `circuit_breaker_thresholds`.
    pub limits: CircuitBreakers,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// As written in `to`, without path and weight: for logs, and to find it again after a reload.
    pub name: String,
    /// Scheme, host and port (`http` or `https`), without a path.
    pub origin: Url,
    /// `unix://` and `https+unix://`: the socket that is dialled instead of the origin.
    pub socket: Option<PathBuf>,
    /// `h2c://`: HTTP/2 without TLS and without asking.
    pub is_h2c: bool,
    /// Its share of the requests; at least 1.
    pub weight: u32,
}

impl Upstream {
    /// Host and port as a `Host` header has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.origin.host_str().unwrap_or_default();
        self.origin.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// `load_balancing_policy`: how the next upstream is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balancing {
    /// In turns.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastRequest,
    /// By chance.
    Random,
    /// By who asks, on a hash ring.
    RingHash,
    /// By who asks, with Maglev's table.
    Maglev,
}

/// One entry of `health_checks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `timeout`: longer than this is a failure.
    pub timeout: Duration,
    /// `interval`: between two checks of one upstream.
    pub interval: Duration,
    /// `unhealthy_threshold`: failures in a row that take an upstream out.
    pub unhealthy_threshold: u32,
    /// `healthy_threshold`: successes in a row that take it in again.
    pub healthy_threshold: u32,
    /// What is asked.
    pub probe: Probe,
}

/// What a health check asks an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `http_health_check`: a GET.
    Http {
        /// `host`; the upstream's own if not set.
        host: Option<Authority>,
        /// `path`, with a query if need be.
        path: String,
        /// `expected_statuses`: first and one past the last.
        expected: Vec<Range<u16>>,
    },
    /// `grpc_health_check`: gRPC's own health checking protocol.
    Grpc {
        /// `service_name`; empty for the server as a whole.
        service: String,
        /// `authority`; the upstream's own if not set.
        authority: Option<Authority>,
    },
    /// `tcp_health_check`: a connection, and what is said on it.
    Tcp {
        /// `send`.
        send: Vec<u8>,
        /// `receive`: each must come, in this order.
        receive: Vec<Vec<u8>>,
    },
}

/// `outlier_detection`: when answers to real requests take an upstream out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `consecutive_5xx`: failures of any kind in a row; `None` if written as 0.
    pub consecutive_5xx: Option<u32>,
    /// `consecutive_gateway_failure`: 502, 503, 504, or no answer, in a row; `None` unless set.
    pub consecutive_gateway_failure: Option<u32>,
    /// `base_ejection_time`: multiplied by how often it was ejected.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`: no longer than this.
    pub max_ejection_time: Duration,
    /// `max_ejection_percent`: of all upstreams at once; one may always be.
    pub max_ejection_percent: u8,
}

/// `circuit_breaker_thresholds`; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CircuitBreakers {
    /// `max_connections`: to each upstream; a request that needs one more waits for it.
    pub max_connections: Option<u32>,
    /// `max_requests`: under way over the route; more are answered with 503.
    pub max_requests: Option<u32>,
    /// `max_retries`: under way over the route; beyond, a failure is final.
    pub max_retries: Option<u32>,
}
