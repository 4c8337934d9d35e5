//! Which route a request or stream belongs to: the first in config order that matches.

use std::sync::Arc;

use pomerium_shared::destination::Destination;

use super::authority::Authority;
use crate::config::{HostPattern, PathMatch, Route, RouteFrom};
use crate::path::CanonicalPath;

/// The routes of one configuration.
#[derive(Debug)]
pub(crate) struct Router {
    routes: Vec<Arc<Route>>,
}

impl Router {
    pub(crate) fn new(routes: Vec<Arc<Route>>) -> Self {
        Self { routes }
    }

    /// All routes in config order.
    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of an HTTP request.
    pub(crate) fn http(&self, authority: &Authority, path: &CanonicalPath) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| takes(route, authority.host(), authority.port(), path.as_str()))
    }

    /// Whether some route has this host.
    pub(crate) fn has_host(&self, authority: &Authority) -> bool {
        self.routes.iter().any(|route| match &route.from {
            RouteFrom::Http { host, .. } => host_matches(host, authority.host()),
            RouteFrom::Tcp { .. } => false,
        })
    }

    /// The route of a `CONNECT`: exact authorities only, so that a stranger's host is never dialled.
    pub(crate) fn tcp(&self, to: &Destination) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| match &route.from {
            RouteFrom::Tcp { destinations } => destinations.contains(to),
            RouteFrom::Http { .. } => false,
        })
    }
}

/// Whether a route takes HTTP requests of this host, port and canonical path, if none before it does.
pub(crate) fn takes(route: &Route, host: &str, port: Option<u16>, path: &str) -> bool {
    match &route.from {
        RouteFrom::Http { host: pattern, port: own, path: paths } => {
            host_matches(pattern, host) && port_matches(*own, port) && path_matches(paths, path)
        }
        RouteFrom::Tcp { .. } => false,
    }
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name == host,
        HostPattern::Wildcard(regex) => regex.is_match(host),
    }
}

/// A route without a port of its own answers on whatever port the listener is reached by.
fn port_matches(route: Option<u16>, request: Option<u16>) -> bool {
    route.is_none() || route == request
}

fn path_matches(pattern: &PathMatch, path: &str) -> bool {
    match pattern {
        PathMatch::Any => true,
        PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Regex(regex) => regex.find(path).is_some_and(|found| found.range() == (0..path.len())),
    }
}
