//! The routes that somebody could use now, as a page and as the client lists them: a hint, not an access check.

use http::{HeaderValue, Response, header};
use pomerium_shared::clock::Now;
use serde_json::json;
use url::Url;

use super::super::{Connection, Live, caller::Caller, question::Question, respond};
use crate::{
    authorize::Verdict,
    body::Body,
    config::{Route, RouteFrom},
    portal::{self, Entry, Kind},
};

/// Characters of a search at most.
const SEARCH_LEN_MAX: usize = 100;

/// For people.
pub(super) fn page(
    live: &Live,
    caller: &Caller,
    connection: &Connection,
    url: &Url,
    now: Now,
) -> Response<Body> {
    let asked = url.query_pairs().find(|(name, _)| name == "q").map(|(_, text)| text).unwrap_or_default();
    let search: String = asked.chars().take(SEARCH_LEN_MAX).collect();
    let usable: Vec<_> = usable(live, caller, connection, now).map(|route| (route, command(route))).collect();
    let entries: Vec<Entry<'_>> = usable
        .iter()
        .map(|(route, command)| Entry {
            name: &route.name,
            description: &route.description,
            logo_url: route.logo_url.as_ref().map(Url::as_str),
            from: &route.from_url,
            kind: command.as_deref().map_or(Kind::Page, Kind::Command),
        })
        .collect();
    respond::page(portal::routes(&live.settings.look, &entries, &search))
}

/// For programs.
pub(super) fn document(live: &Live, caller: &Caller, connection: &Connection, now: Now) -> Response<Body> {
    let mut response = respond::plain("application/json", list(live, caller, connection, now));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// That document's text.
pub(super) fn list(live: &Live, caller: &Caller, connection: &Connection, now: Now) -> String {
    let routes: Vec<serde_json::Value> = usable(live, caller, connection, now)
        .map(|route| {
            let kind = match &route.from {
                RouteFrom::Http { .. } => "http",
                RouteFrom::Tcp { .. } => "tcp",
                RouteFrom::Udp { .. } => "udp",
            };
            let mut element = json!({
                "id": route.id, "name": route.name, "type": kind, "from": route.from_url,
                "description": route.description, "logo_url": route.logo_url.as_ref().map_or("", Url::as_str),
            });
            if let Some(command) = command(route) {
                element["connect_command"] = json!(command);
            }
            element
        })
        .collect();
    json!({ "routes": routes }).to_string()
}

/// What opens a route that is no web page.
fn command(route: &Route) -> Option<String> {
    match &route.from {
        RouteFrom::Http { .. } => None,
        RouteFrom::Tcp { destinations } => destinations.first().map(|to| format!("pomerium-cli tcp {to}")),
        RouteFrom::Udp { destinations } => destinations.first().map(|to| format!("pomerium-cli udp {to}")),
    }
}

fn usable<'a>(
    live: &'a Live,
    caller: &'a Caller,
    connection: &'a Connection,
    now: Now,
) -> impl Iterator<Item = &'a Route> {
    let routes = live.router.routes().iter().map(AsRef::as_ref);
    routes.filter(move |route| is_usable(live, route, caller, connection, now))
}

fn is_usable(live: &Live, route: &Route, caller: &Caller, connection: &Connection, now: Now) -> bool {
    let question = match &route.from {
        RouteFrom::Tcp { destinations } => {
            let Some(to) = destinations.first() else { return false };
            Question::stream(to.clone(), connection)
        }
        RouteFrom::Udp { destinations } => {
            let Some(to) = destinations.first() else { return false };
            Question::flow(to.clone(), connection)
        }
        RouteFrom::Http { host, methods, .. } => Question::opening(host, methods, connection),
    };
    let shown = question.shown(route, now);
    let check = caller.asks(live, question.facts(shown.as_ref()), now);
    route.policy.evaluate(&check).verdict() == Verdict::Allow
}
