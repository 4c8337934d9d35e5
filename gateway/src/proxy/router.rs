//! Which route a request or stream belongs to: the first in config order that matches.
//!
//! A request looks only at the routes that can match: those of its very host, found by its name, and those with a
//! wildcard. Both lists are in config order, and the earlier match of the two wins.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, iter, sync::Arc};

use http::Method;
use pomerium_shared::destination::Destination;

use super::authority::Authority;
use crate::config::{HostPattern, PathMatch, Route, RouteFrom};
use crate::path::CanonicalPath;

/// The routes of one configuration.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    /// Places in `routes`, ascending, of the HTTP routes with this exact host.
    by_host: HashMap<String, Vec<usize>>,
    /// Places in `routes`, ascending, of the HTTP routes whose host is a pattern.
    by_wildcard: Vec<usize>,
    /// The place in `routes` of the first TCP route to each destination.
    by_tcp: HashMap<Destination, usize>,
    /// The same for UDP.
    by_udp: HashMap<Destination, usize>,
}

impl Router {
    /// Sorts the routes, which are in config order, by what leads to them.
    #[must_use]
    pub fn new(routes: Vec<Arc<Route>>) -> Self {
        let mut by_host: HashMap<_, Vec<_>> = HashMap::new();
        let (mut by_wildcard, mut by_tcp, mut by_udp) = (Vec::new(), HashMap::new(), HashMap::new());
        for (place, route) in routes.iter().enumerate() {
            match &route.from {
                RouteFrom::Http { host: HostPattern::Exact(host), .. } => {
                    by_host.entry(host.clone()).or_default().push(place);
                }
                RouteFrom::Http { host: HostPattern::Wildcard(_), .. } => by_wildcard.push(place),
                from @ (RouteFrom::Tcp { destinations } | RouteFrom::Udp { destinations }) => {
                    let is_udp = matches!(from, RouteFrom::Udp { .. });
                    let by_destination = if is_udp { &mut by_udp } else { &mut by_tcp };
                    for destination in destinations {
                        by_destination.entry(destination.clone()).or_insert(place);
                    }
                }
            }
        }
        Self { routes, by_host, by_wildcard, by_tcp, by_udp }
    }

    /// All routes in config order.
    pub(crate) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route of an HTTP request.
    #[must_use]
    pub fn http(&self, authority: &Authority, path: &CanonicalPath, method: &Method) -> Option<&Arc<Route>> {
        let exact = self.by_host.get(authority.host()).map_or(&[][..], Vec::as_slice);
        merged(exact, &self.by_wildcard)
            .map(|place| &self.routes[place])
            .find(|route| takes(route, authority.host(), authority.port(), path.as_str(), method))
    }

    /// Whether it matters to somebody that app servers may leave a path's parameters (`/admin;x/secret`) out of account:
    /// without them another route would take the request, or `route` judge it otherwise.
    pub(crate) fn depends_on_parameters(
        &self,
        route: &Arc<Route>,
        authority: &Authority,
        path: &CanonicalPath,
        method: &Method,
    ) -> bool {
        path.without_parameters().is_some_and(|plain| {
            let taker = self.http(authority, &plain, method);
            !taker.is_some_and(|taker| Arc::ptr_eq(taker, route))
                || route.policy.tells_apart(path.as_str(), plain.as_str())
        })
    }

    /// The route of a `CONNECT`: exact authorities only, so that a stranger's host is never dialled.
    pub(crate) fn tcp(&self, to: &Destination) -> Option<&Arc<Route>> {
        self.by_tcp.get(to).map(|place| &self.routes[*place])
    }

    /// The route of a CONNECT-UDP, likewise.
    pub(crate) fn udp(&self, to: &Destination) -> Option<&Arc<Route>> {
        self.by_udp.get(to).map(|place| &self.routes[*place])
    }
}

/// Two ascending lists as one.
fn merged<'a>(mut left: &'a [usize], mut right: &'a [usize]) -> impl Iterator<Item = usize> + use<'a> {
    iter::from_fn(move || {
        let list = match (left.first(), right.first()) {
            (Some(l), Some(r)) if r < l => &mut right,
            (Some(_), _) => &mut left,
            (None, _) => &mut right,
        };
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some(*first)
    })
}

/// Whether a route takes HTTP requests of this host, port, canonical path and method, if none before it does.
pub(crate) fn takes(route: &Route, host: &str, port: Option<u16>, path: &str, method: &Method) -> bool {
    match &route.from {
        RouteFrom::Http { host: pattern, port: own, path: paths, methods } => {
            host_matches(pattern, host)
                && port_matches(*own, port)
                && path_matches(paths, path)
                && methods.has(method)
        }
        RouteFrom::Tcp { .. } | RouteFrom::Udp { .. } => false,
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
