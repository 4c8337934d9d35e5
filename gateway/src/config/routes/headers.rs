//! What a route changes in the headers of requests and answers, and which headers it may not.

use http::{HeaderName, HeaderValue};

use super::Defaults;
use crate::{
    config::{HeaderRewrite, HeaderTemplate, section::Section},
    yaml::Value,
};

/// Headers that say how a message is framed, or that belong to one connection (RFC 9110, 7.6.1): what a route said of them
/// would be untrue.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// What a route changes in headers.
pub(super) struct Headers {
    pub(super) set_request: Vec<(HeaderName, HeaderTemplate)>,
    pub(super) remove_request: Vec<HeaderName>,
    pub(super) set_response: Vec<(HeaderName, HeaderTemplate)>,
    pub(super) remove_response: Vec<HeaderName>,
    pub(super) rewrite_response: Vec<HeaderRewrite>,
}

/// Reads all keys about headers. `passes_identity` is whether the route tells its app who asks.
pub(super) fn headers(section: &Section<'_>, defaults: &Defaults<'_>, passes_identity: bool) -> Headers {
    let set_request = section.header_templates("set_request_headers").unwrap_or_default();
    let remove_request = names(section, "remove_request_headers");
    let tells_who = |name: &HeaderName| {
        let is_claim = defaults.jwt_claims_headers.iter().any(|(claimed, _)| claimed == name);
        passes_identity && (is_claim || name == "x-pomerium-jwt-assertion")
    };
    for (name, _) in &set_request {
        let reason = match name.as_str() {
            "host" => Some("is set by host_rewrite, host_rewrite_header or preserve_host_header"),
            "x-request-id" | "x-envoy-external-address" => Some("is set by the gateway"),
            text if text.starts_with("x-forwarded-") => Some("is set by the gateway, or removed"),
            _ => of_request(name, tells_who(name)),
        };
        refuse(section, "set_request_headers", name, reason);
    }
    for name in &remove_request {
        let reason = match name.as_str() {
            "host" => Some("is what every request needs: see host_rewrite"),
            _ => of_request(name, tells_who(name)),
        };
        refuse(section, "remove_request_headers", name, reason);
    }
    Headers {
        set_request,
        remove_request,
        set_response: set_response(section, defaults),
        remove_response: remove_response(section, defaults),
        rewrite_response: rewrites(section),
    }
}

/// Why a route may neither set nor remove a request's header, if it may not.
fn of_request(name: &HeaderName, tells_who: bool) -> Option<&'static str> {
    if FRAMING.contains(&name.as_str()) {
        return Some("says how the request is framed, which the gateway does");
    }
    let reason = "is set from the session: see pass_identity_headers and jwt_claims_headers";
    tells_who.then_some(reason)
}

/// `set_response_headers` over the general ones; `disable` takes all away, as it does at the top.
fn set_response(section: &Section<'_>, defaults: &Defaults<'_>) -> Vec<(HeaderName, HeaderTemplate)> {
    let key = "set_response_headers";
    let own = section.header_templates(key).unwrap_or_default();
    if own.iter().any(|(name, _)| name == "disable") {
        return Vec::new();
    }
    check_response_headers(section, key, own.iter().map(|(name, _)| name));
    for (name, value) in &own {
        if value.facts().any(|fact| !fact.may_be_answered()) {
            let message = format!(
                "{name} would tell pages what stands for a person: claims and certificates may be told"
            );
            section.error(key, message);
        }
    }
    let general = defaults.set_response_headers.iter();
    let general = general.filter(|(name, _)| !own.iter().any(|(known, _)| known == name));
    general
        .map(|(name, value)| (name.clone(), HeaderTemplate::fixed(value.clone())))
        .chain(own.clone())
        .collect()
}

/// `remove_response_headers`: what an app says. What the file sets for all hosts is the operator's.
fn remove_response(section: &Section<'_>, defaults: &Defaults<'_>) -> Vec<HeaderName> {
    let key = "remove_response_headers";
    let removed = names(section, key);
    check_response_headers(section, key, removed.iter());
    for name in &removed {
        let is_general = defaults.set_response_headers.iter().any(|(known, _)| known == name);
        let reason =
            "is set by set_response_headers at the top: a route sets another value, or disables them";
        refuse(section, key, name, is_general.then_some(reason));
    }
    removed
}

/// Refuses headers of answers that are not the operator's to change.
pub(in crate::config) fn check_response_headers<'n>(
    section: &Section<'_>,
    key: &str,
    names: impl Iterator<Item = &'n HeaderName>,
) {
    for name in names {
        let reason = match name.as_str() {
            text if FRAMING.contains(&text) => Some("says how the answer is framed, which the gateway does"),
            "x-request-id" => Some("is set by the gateway"),
            text if text.starts_with("x-pomerium-") => Some("is the gateway's own"),
            _ => None,
        };
        refuse(section, key, name, reason);
    }
}

fn refuse(section: &Section<'_>, key: &str, name: &HeaderName, reason: Option<&str>) {
    if let Some(reason) = reason {
        section.error(key, format!("{name} {reason}"));
    }
}

fn names(section: &Section<'_>, key: &str) -> Vec<HeaderName> {
    let texts = section.list(key).unwrap_or_default().into_iter();
    texts.filter_map(|(name, at)| section.header_name(at, key, name)).collect()
}

/// `rewrite_response_headers`: all three keys are needed.
fn rewrites(section: &Section<'_>) -> Vec<HeaderRewrite> {
    let name = "rewrite_response_headers";
    let items = match section.node(name).map(|node| &node.value) {
        None => return Vec::new(),
        Some(Value::List(items)) => items,
        Some(other) => {
            section.error(name, format!("expected a list, found {}", other.kind()));
            return Vec::new();
        }
    };
    let rewrite = |(index, item)| {
        let inner = Section::of(section.reading, section.key(&format!("{name}[{index}]")), item)?;
        inner.allow_only(&["header", "prefix", "value"]);
        let Some(header) = inner.filled("header") else {
            inner.error("header", "is missing");
            return None;
        };
        let Some(prefix) = inner.filled("prefix") else {
            inner.error("prefix", "is missing: it says which part of the value is replaced");
            return None;
        };
        let value = inner.text("value").unwrap_or_default();
        if HeaderValue::from_str(value).is_err() {
            inner.error("value", "this is not a valid header value");
        }
        let header = inner.header_name(inner.at, "header", header)?;
        Some(HeaderRewrite { header, prefix: prefix.to_owned(), value: value.to_owned() })
    };
    items.iter().enumerate().filter_map(rewrite).collect()
}
