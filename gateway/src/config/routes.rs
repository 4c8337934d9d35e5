//! `policy` and `routes`: each entry becomes a [`Route`].

mod from;
mod headers;
mod scope;
mod target;
mod upstreams;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

pub(super) use self::headers::check_response_headers;
use super::{
    Enforcement, HostPattern, Methods, PathMatch, Route, RouteFrom, Timeouts,
    downstream_mtls::{ClientAuthorities, RouteAuthority},
    identity, keys,
    section::Section,
};
use crate::{
    authorize::{Criterion, Policy, ShortForms},
    yaml::Value,
};

/// What a route takes over from the top of the file.
pub(super) struct Defaults<'a> {
    pub(super) timeouts: Timeouts,
    pub(super) unreachable_grace: Duration,
    pub(super) pass_identity_headers: bool,
    pub(super) set_response_headers: &'a [(HeaderName, HeaderValue)],
    /// Which claims apps are told, and in which headers.
    pub(super) jwt_claims_headers: &'a [(HeaderName, String)],
    pub(super) client_authorities: &'a ClientAuthorities,
    /// Whether a key that names a file of data is given.
    pub(super) has_file: &'a dyn Fn(&str) -> bool,
}

/// All routes in the order in which they are tried; broken ones are left out, and said.
pub(super) fn routes(top: &Section<'_>, defaults: &Defaults<'_>) -> Vec<Arc<Route>> {
    let mut routes: Vec<Arc<Route>> = Vec::new();
    let mut shadows = Shadows::default();
    for list in ["policy", "routes"] {
        let items = match top.node(list).map(|node| &node.value) {
            None => continue,
            Some(Value::List(items)) => items,
            Some(other) => {
                top.error(list, format!("expected a list of routes, found {}", other.kind()));
                continue;
            }
        };
        for (index, item) in items.iter().enumerate() {
            let Some(section) = Section::of(top.reading, format!("{list}[{index}]"), item) else { continue };
            if let Some(route) = route(&section, defaults) {
                shadows.check(&section, &route);
                routes.push(Arc::new(route));
            }
        }
    }
    routes
}

fn route(section: &Section<'_>, defaults: &Defaults<'_>) -> Option<Route> {
    section.check_keys(keys::Place::Route);
    let from = from::from(section);
    let target = target::target(section, from.as_ref());
    let client_authority = defaults.client_authorities.of_route(section);
    let proxy_protocol = target::proxy_protocol(section);
    let policy = policy(section, defaults, &client_authority);
    let allow_websockets = section.flag("allow_websockets").unwrap_or(false);
    let endless = allow_websockets || matches!(from, Some(RouteFrom::Tcp { .. } | RouteFrom::Udp { .. }));
    let unless_endless = |limit| if endless { None } else { limit };
    let timeout = section.duration("timeout").unwrap_or_else(|| unless_endless(defaults.timeouts.upstream));
    let idle_timeout =
        section.duration("idle_timeout").unwrap_or_else(|| unless_endless(defaults.timeouts.idle));
    let pass_identity_headers =
        section.flag("pass_identity_headers").unwrap_or(defaults.pass_identity_headers);
    let headers = headers::headers(section, defaults, pass_identity_headers);
    let logo_url = section.url("logo_url");
    let show_error_details = section.flag("show_error_details").unwrap_or(false);
    let description = section.text("description").unwrap_or_default().to_owned();
    let name = section.filled("name");
    let from_url = section.filled("from")?;
    Some(Route {
        id: route_id(section),
        name: name.map_or_else(|| made_name(from_url), str::to_owned),
        description,
        logo_url,
        from_url: from_url.to_owned(),
        from: from?,
        target: target?,
        policy: policy?,
        proxy_protocol,
        timeout,
        idle_timeout,
        allow_websockets,
        pass_identity_headers,
        set_request_headers: headers.set_request,
        remove_request_headers: headers.remove_request,
        set_response_headers: headers.set_response,
        remove_response_headers: headers.remove_response,
        rewrite_response_headers: headers.rewrite_response,
        show_error_details,
        client_authority: client_authority.authority,
        sign_in: identity::sign_in_demand(section),
        unreachable_grace: identity::unreachable_grace(section).unwrap_or(defaults.unreachable_grace),
    })
}

/// `https://grafana.corp.example/` becomes `grafana.corp.example`.
fn made_name(from_url: &str) -> String {
    let name = from_url.split_once("://").map_or(from_url, |(_, rest)| rest);
    name.trim_end_matches('/').to_owned()
}

/// Hashes what the route matches and where it leads, so that names, headers and rules may change under the same id.
fn route_id(section: &Section<'_>) -> String {
    let mut hash = Sha256::new();
    for key in ["from", "prefix", "path", "regex", "to", "redirect", "response"] {
        // The tree's own text is unambiguous: every value is quoted and typed. Places must not count.
        let value = section.node(key).map(|node| plain(&node.value));
        hash.update(format!("{key}={value:?};"));
    }
    // A route without them keeps the id that it had before there were any.
    if let Some(methods) = section.node("methods") {
        hash.update(format!("methods={:?};", plain(&methods.value)));
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(String::new(), |mut hex, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::List(items) => {
            format!("{:?}", items.iter().map(|item| plain(&item.value)).collect::<Vec<_>>())
        }
        Value::Map(entries) => {
            format!(
                "{:?}",
                entries.iter().map(|e| (&e.key, plain(&e.value.value))).collect::<BTreeMap<_, _>>()
            )
        }
        scalar => format!("{scalar:?}"),
    }
}

/// The rules in PPL and their short forms.
fn policy(
    section: &Section<'_>,
    defaults: &Defaults<'_>,
    client_authority: &RouteAuthority,
) -> Option<Policy> {
    let texts = |name: &str| -> Vec<String> {
        section.list(name).unwrap_or_default().into_iter().map(|(text, _)| text.to_owned()).collect()
    };
    let short = ShortForms {
        allow_public_unauthenticated_access: section
            .flag("allow_public_unauthenticated_access")
            .unwrap_or(false),
        cors_allow_preflight: section.flag("cors_allow_preflight").unwrap_or(false),
        allow_any_authenticated_user: section.flag("allow_any_authenticated_user").unwrap_or(false),
        allowed_domains: texts("allowed_domains"),
        allowed_idp_claims: idp_claims(section),
        allowed_users: texts("allowed_users"),
    };
    let has_list = !(short.allowed_domains.is_empty()
        && short.allowed_idp_claims.is_empty()
        && short.allowed_users.is_empty());
    for (name, set) in [
        ("allow_public_unauthenticated_access", short.allow_public_unauthenticated_access),
        ("allow_any_authenticated_user", short.allow_any_authenticated_user),
    ] {
        if set && has_list {
            section
                .error(name, "contradicts allowed_users, allowed_domains and allowed_idp_claims: choose one");
        }
    }
    if short.allow_public_unauthenticated_access && short.allow_any_authenticated_user {
        section.error(
            "allow_any_authenticated_user",
            "contradicts allow_public_unauthenticated_access: choose one",
        );
    }
    let ppl = section.node("policy");
    let anybody = has_list || short.allow_public_unauthenticated_access || short.allow_any_authenticated_user;
    if ppl.is_none() && !anybody && !section.has("sub_policies") {
        section.warn("policy", "is missing: nobody may use this route");
    }
    match Policy::build(ppl, &short) {
        Ok(mut policy) => {
            check_criteria(section, &policy, defaults.has_file);
            if client_authority.is_named {
                let denies = defaults.client_authorities.enforcement != Enforcement::Policy;
                policy.hold_to_client_authority(denies);
            } else {
                check_names(section, &policy);
            }
            add_rego(section, &mut policy);
            Some(policy)
        }
        Err(errors) => {
            for error in errors {
                section.error_at(error.at, "policy", error.to_string());
            }
            None
        }
    }
}

/// Says what a criterion needs that this configuration does not give it.
fn check_criteria(section: &Section<'_>, policy: &Policy, has_file: &dyn Fn(&str) -> bool) {
    let missing = |criterion: &Criterion| criterion.needs_file().filter(|key| !has_file(key));
    let said: BTreeSet<(&str, Option<&str>)> = policy
        .criteria()
        .filter(|criterion| criterion.is_never_true() || missing(criterion).is_some())
        .map(|criterion| (criterion.name(), missing(criterion)))
        .collect();
    for (name, file) in said {
        let why = file.map_or_else(
            || "of any request to this gateway yet".to_owned(),
            |file| format!("without `{file}`"),
        );
        section.warn("policy", format!("`{name}` is never true {why}: a `deny` with it refuses nobody"));
    }
}

/// Anybody can write a name into a certificate of their own.
fn check_names(section: &Section<'_>, policy: &Policy) {
    if policy.criteria().any(Criterion::needs_authority) {
        section.error(
            "policy",
            "names in client certificates (san_...) prove nothing without an authority: set `downstream_mtls` with \
             `ca_file`, or use `fingerprint` or `spki_hash`",
        );
    }
}

/// Keys of a sub-policy, of which those about who is allowed are refused with words of their own.
const SUB_POLICY: [&str; 9] = [
    "allowed_domains",
    "allowed_idp_claims",
    "allowed_users",
    "explanation",
    "id",
    "name",
    "rego",
    "remediation",
    "source_ppl",
];

/// `sub_policies`: modules in Rego, each with its say after the rules in PPL.
fn add_rego(section: &Section<'_>, policy: &mut Policy) {
    let name = "sub_policies";
    let items = match section.node(name).map(|node| &node.value) {
        None => return,
        Some(Value::List(items)) => items,
        Some(other) => return section.error(name, format!("expected a list, found {}", other.kind())),
    };
    for (index, item) in items.iter().enumerate() {
        let path = section.key(&format!("{name}[{index}]"));
        let Some(inner) = Section::of(section.reading, path, item) else { continue };
        for known in ["allowed_domains", "allowed_idp_claims", "allowed_users", "source_ppl"] {
            if inner.has(known) {
                inner.error(known, "is known but not built yet in this gateway: write it under policy");
            }
        }
        inner.allow_only(&SUB_POLICY);
        let Some(Value::List(modules)) = inner.node("rego").map(|node| &node.value) else {
            inner.error("rego", "expected a list of Rego modules");
            continue;
        };
        for (index, module) in modules.iter().enumerate() {
            let key = format!("rego[{index}]");
            match &module.value {
                Value::String(text) => {
                    if let Err(error) = policy.add_rego(text) {
                        inner.error_at(module.at, &key, error.to_string());
                    }
                }
                other => inner.error_at(module.at, &key, format!("expected text, found {}", other.kind())),
            }
        }
    }
}

fn idp_claims(section: &Section<'_>) -> Vec<(String, Vec<String>)> {
    let name = "allowed_idp_claims";
    let Some(node) = section.node(name) else { return Vec::new() };
    let Some(inner) = Section::of(section.reading, section.key(name), node) else { return Vec::new() };
    let claim = |entry: &crate::yaml::Entry| {
        let values = inner.list(&entry.key)?;
        Some((entry.key.clone(), values.into_iter().map(|(value, _)| value.to_owned()).collect()))
    };
    inner.entries.iter().filter_map(claim).collect()
}

/// Finds routes that are never reached because an earlier one takes all their requests.
#[derive(Default)]
struct Shadows {
    /// Host with port, or destination, to the paths and methods (if any) and routes before.
    seen: BTreeMap<String, Vec<(Option<Taken>, String)>>,
}

/// What an HTTP route takes of its host.
type Taken = (PathMatch, Methods);

impl Shadows {
    fn check(&mut self, section: &Section<'_>, route: &Route) {
        let (places, taken) = match &route.from {
            RouteFrom::Http { host, port, path, methods } => {
                let host = match host {
                    HostPattern::Exact(host) => host.clone(),
                    HostPattern::Wildcard(regex) => regex.as_str().to_owned(),
                };
                (vec![format!("https {host} {port:?}")], Some((path.clone(), methods.clone())))
            }
            RouteFrom::Tcp { destinations } => {
                (destinations.iter().map(|d| format!("tcp {d}")).collect(), None)
            }
            RouteFrom::Udp { destinations } => {
                (destinations.iter().map(|d| format!("udp {d}")).collect(), None)
            }
        };
        for place in places {
            let before = self.seen.entry(place).or_default();
            let by = before.iter().find(|(earlier, _)| match (earlier, &taken) {
                (Some((earlier, their)), Some((path, methods))) => {
                    covers(earlier, path) && their.covers(methods)
                }
                _ => true,
            });
            if let Some((_, name)) = by {
                section.warn("from", format!("is never reached: {name} before it takes the same requests"));
            }
            before.push((taken.clone(), section.path.clone()));
        }
    }
}

/// Whether each path of `later` is also one of `earlier`.
fn covers(earlier: &PathMatch, later: &PathMatch) -> bool {
    match (earlier, later) {
        (PathMatch::Any, _) => true,
        (PathMatch::Prefix(prefix), _) if prefix == "/" => true,
        (PathMatch::Prefix(prefix), PathMatch::Prefix(path) | PathMatch::Exact(path)) => {
            path.starts_with(prefix)
        }
        (PathMatch::Exact(earlier), PathMatch::Exact(later)) => earlier == later,
        (PathMatch::Regex(earlier), PathMatch::Regex(later)) => earlier.as_str() == later.as_str(),
        (PathMatch::Regex(earlier), PathMatch::Exact(later)) => earlier.is_match(later),
        _ => false,
    }
}
