//! `to`, `redirect` or `response`: where a route leads.

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use pomerium_shared::destination::Destination;
use url::{Origin, Url};

use super::{from::expression, scope, upstreams};
use crate::config::{
    HttpTarget, PathRewrite, ProxyProtocol, Redirect, RedirectPath, RequestLimits, RouteFrom, Target,
    UpstreamHost, UpstreamTls, section::Section,
};

/// Bytes of a fixed answer at most: it stays in memory and goes out whole.
const RESPONSE_LEN_MAX: usize = 64 * 1024;

/// Reads where the route leads: exactly one of the three keys.
pub(super) fn target(section: &Section<'_>, from: Option<&RouteFrom>) -> Option<Target> {
    let given: Vec<&str> =
        ["to", "redirect", "response"].into_iter().filter(|name| section.has(name)).collect();
    if let [first, second, ..] = given.as_slice() {
        let message = format!("contradicts {first}: a route needs exactly one of to, redirect and response");
        section.error(second, message);
        return None;
    }
    let target = match given.first() {
        Some(&"to") => to(section),
        Some(&"redirect") => redirect(section).map(Target::Redirect),
        Some(_) => response(section),
        None => {
            section.error("to", "is missing: a route needs exactly one of to, redirect and response");
            None
        }
    }?;
    scope::check(section, &target);
    let (key, message) = match (from, &target) {
        (Some(RouteFrom::Tcp { .. }), Target::Tcp(_)) | (None, _) => return Some(target),
        (Some(RouteFrom::Udp { .. }), Target::Udp(_)) => return Some(target),
        (Some(RouteFrom::Tcp { .. }), _) => (given[0], "a tcp+https route leads to tcp://host:port"),
        (Some(RouteFrom::Udp { .. }), _) => (given[0], "a udp+https route leads to udp://host:port"),
        (Some(RouteFrom::Http { .. }), Target::Tcp(_)) => ("to", "tcp:// needs a from of tcp+https://"),
        (Some(RouteFrom::Http { .. }), Target::Udp(_)) => ("to", "udp:// needs a from of udp+https://"),
        (Some(RouteFrom::Http { .. }), _) => return Some(target),
    };
    section.error(key, message);
    None
}

fn to(section: &Section<'_>) -> Option<Target> {
    let entries = upstreams::entries(section)?;
    let is_of = |scheme: &&str| entries.iter().any(|entry| entry.url.starts_with(scheme));
    let Some(scheme) = ["tcp://", "udp://"].into_iter().find(is_of) else { return http(section, &entries) };
    let [entry] = entries.as_slice() else {
        section
            .error("to", format!("several targets are known but not built yet for {scheme} in this gateway"));
        return None;
    };
    let destination = entry.url.strip_prefix(scheme).unwrap_or_default();
    let parsed: Result<Destination, _> = destination.trim_end_matches('/').parse();
    let target = |to| if scheme == "udp://" { Target::Udp(to) } else { Target::Tcp(to) };
    parsed.map(target).map_err(|error| section.error("to", error.to_string())).ok()
}

fn http(section: &Section<'_>, entries: &[upstreams::Entry<'_>]) -> Option<Target> {
    let rewrite = rewrite(section);
    let host = upstream_host(section);
    let tls = upstream_tls(section);
    let (upstreams, path) = upstreams::upstreams(section, entries)?;
    if upstreams.members.iter().all(|upstream| upstream.origin.scheme() == "http")
        && (tls.skip_verify
            || tls.server_name.is_some()
            || tls.custom_roots.is_some()
            || tls.client_certificate.is_some())
    {
        section.warn("to", "is http://, so that the tls_* keys have no effect");
    }
    let rewrite = match (rewrite?, path) {
        (PathRewrite::Keep, Some(path)) => PathRewrite::Prefix(path),
        (rewrite, _) => rewrite,
    };
    let request_limits = request_limits(section);
    let websocket_origins = websocket_origins(section);
    let host = host?;
    Some(Target::Http(Box::new(HttpTarget {
        upstreams,
        rewrite,
        host,
        tls,
        request_limits,
        websocket_origins,
    })))
}

/// Origins as browsers name them: a scheme, a host and a port that differs from the scheme's.
fn websocket_origins(section: &Section<'_>) -> Vec<Origin> {
    let name = "websocket_origins";
    if section.has(name) && section.flag("allow_websockets") != Some(true) {
        section.error(name, "needs allow_websockets: true beside it");
    }
    let origin = |(text, at)| {
        let url = Url::parse(text).ok().filter(|url| {
            let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            let is_named = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "https" | "http") && is_bare && is_named
        });
        if url.is_none() {
            section.error_at(at, name, format!("\"{text}\" is no origin like https://portal.corp.example"));
        }
        url.map(|url| url.origin())
    };
    section.list(name).unwrap_or_default().into_iter().filter_map(origin).collect()
}

fn request_limits(section: &Section<'_>) -> RequestLimits {
    let octets = |name| {
        let count = section.whole(name)?;
        u64::try_from(count).ok().filter(|count| *count > 0).or_else(|| {
            section.error(name, "expected a number of 1 or more");
            None
        })
    };
    RequestLimits {
        header: octets("max_request_header_bytes").and_then(|count| usize::try_from(count).ok()),
        body: octets("max_request_body_bytes"),
    }
}

/// Whether a TCP app is told whose connection it is. A connection to an HTTP app carries the requests of many people.
pub(super) fn proxy_protocol(section: &Section<'_>) -> Option<ProxyProtocol> {
    let words = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    section.one_of("upstream_proxy_protocol", &words)
}

fn rewrite(section: &Section<'_>) -> Option<PathRewrite> {
    let prefix = section.filled("prefix_rewrite");
    let pattern = section.filled("regex_rewrite_pattern");
    let substitution = section.text("regex_rewrite_substitution");
    match (prefix, pattern, substitution) {
        (None, None, None) => Some(PathRewrite::Keep),
        (Some(prefix), None, None) if prefix.starts_with('/') => Some(PathRewrite::Prefix(prefix.to_owned())),
        (Some(_), None, None) => {
            section.error("prefix_rewrite", "must begin with /");
            None
        }
        (None, Some(pattern), substitution) => match expression(pattern) {
            Ok(pattern) => Some(PathRewrite::Regex {
                pattern,
                substitution: substitution_of(substitution.unwrap_or_default()),
            }),
            Err(message) => {
                section.error("regex_rewrite_pattern", message);
                None
            }
        },
        (None, None, Some(_)) => {
            section.error("regex_rewrite_substitution", "needs regex_rewrite_pattern beside it");
            None
        }
        (Some(_), ..) => {
            section.error("prefix_rewrite", "contradicts regex_rewrite_pattern: choose one");
            None
        }
    }
}

/// RE2's `\1` and `\\` in the words of our library, for which `$` is special instead.
fn substitution_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match rest.next() {
                Some(digit) if digit.is_ascii_digit() => out.push_str(&format!("${{{digit}}}")),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn upstream_host(section: &Section<'_>) -> Option<UpstreamHost> {
    let names =
        ["preserve_host_header", "host_rewrite", "host_rewrite_header", "host_path_regex_rewrite_pattern"];
    let is_given = |name: &&str| match *name {
        "preserve_host_header" => section.flag(name).unwrap_or(false),
        name => section.has(name),
    };
    let given: Vec<&str> = names.into_iter().filter(is_given).collect();
    if let [_, second, ..] = given.as_slice() {
        section.error(second, format!("set one of {}", names.join(", ")));
        return None;
    }
    let substitution = section.text("host_path_regex_rewrite_substitution");
    if substitution.is_some() && !section.has("host_path_regex_rewrite_pattern") {
        let message = "needs host_path_regex_rewrite_pattern beside it";
        section.error("host_path_regex_rewrite_substitution", message);
    }
    let Some(name) = given.first().copied() else { return Some(UpstreamHost::Target) };
    let read = match name {
        "preserve_host_header" => return Some(UpstreamHost::Preserve),
        "host_rewrite" => section.filled(name).map(|host| {
            let valid =
                host.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
            let host = valid.then(|| UpstreamHost::Literal(host.to_owned()));
            host.ok_or_else(|| "expected a host, with a port if need be".to_owned())
        }),
        "host_rewrite_header" => section.filled(name).map(|header| {
            let header = HeaderName::from_bytes(header.as_bytes()).map(UpstreamHost::FromHeader);
            header.map_err(|_| "this is not a valid header name".to_owned())
        }),
        _ => section.filled(name).map(|pattern| {
            let substitution = substitution_of(substitution.unwrap_or_default());
            expression(pattern).map(|pattern| UpstreamHost::FromPath { pattern, substitution })
        }),
    };
    read?.map_err(|message| section.error(name, message)).ok()
}

fn upstream_tls(section: &Section<'_>) -> UpstreamTls {
    let server_name =
        section.filled("tls_upstream_server_name").or_else(|| section.filled("tls_server_name"));
    if server_name.is_some_and(|name| rustls_pki_types::ServerName::try_from(name).is_err()) {
        section.error("tls_server_name", "expected a host name or address, without a port");
    }
    let client = ["tls_client_cert", "tls_client_cert_file", "tls_client_key", "tls_client_key_file"];
    let client_certificate = if client.iter().any(|name| section.has(name)) {
        section.certificate("tls_client_cert", "tls_client_key").map(Arc::new)
    } else {
        None
    };
    let skip_verify = section.flag("tls_skip_verify").unwrap_or(false);
    if skip_verify {
        section.warn(
            "tls_skip_verify",
            "trusts anyone who answers in the app's place; use tls_custom_ca instead",
        );
    }
    UpstreamTls {
        skip_verify,
        server_name: server_name.map(str::to_owned),
        custom_roots: section.roots("tls_custom_ca"),
        client_certificate,
    }
}

fn status(
    section: &Section<'_>,
    name: &str,
    allowed: impl Fn(u16) -> bool,
    expected: &str,
) -> Option<StatusCode> {
    let code = section.whole(name)?;
    let code = u16::try_from(code)
        .ok()
        .filter(|code| allowed(*code))
        .and_then(|code| StatusCode::from_u16(code).ok());
    if code.is_none() {
        section.error(name, format!("expected {expected}"));
    }
    code
}

fn redirect(route: &Section<'_>) -> Option<Redirect> {
    let section = Section::of(route.reading, route.key("redirect"), route.node("redirect")?)?;
    section.allow_only(&[
        "https_redirect",
        "scheme_redirect",
        "host_redirect",
        "port_redirect",
        "path_redirect",
        "prefix_rewrite",
        "response_code",
        "strip_query",
    ]);
    let https = section.flag("https_redirect").unwrap_or(false);
    let scheme = section.one_of("scheme_redirect", &[("https", "https"), ("http", "http")]);
    if https && scheme.is_some() {
        section.error("scheme_redirect", "contradicts https_redirect: choose one");
    }
    let host = section.filled("host_redirect");
    if host.is_some_and(|host| url::Host::parse(host).is_err()) {
        section.error("host_redirect", "expected a host name");
    }
    let port = section.whole("port_redirect").and_then(|port| {
        let port = u16::try_from(port).ok().filter(|port| *port != 0);
        if port.is_none() {
            section.error("port_redirect", "expected a number from 1 to 65535");
        }
        port
    });
    let absolute = |name: &str, text: &str| {
        if !text.starts_with('/') {
            section.error(name, "must begin with /");
        }
        text.to_owned()
    };
    let path = match (section.filled("path_redirect"), section.filled("prefix_rewrite")) {
        (None, None) => RedirectPath::Keep,
        (Some(path), None) => RedirectPath::Replace(absolute("path_redirect", path)),
        (None, Some(prefix)) => RedirectPath::Prefix(absolute("prefix_rewrite", prefix)),
        (Some(_), Some(_)) => {
            section.error("prefix_rewrite", "contradicts path_redirect: choose one");
            RedirectPath::Keep
        }
    };
    let codes = |code| matches!(code, 301 | 302 | 303 | 307 | 308);
    let code = status(&section, "response_code", codes, "301, 302, 303, 307 or 308");
    Some(Redirect {
        scheme: if https { Some("https".to_owned()) } else { scheme.map(str::to_owned) },
        host: host.map(str::to_owned),
        port,
        path,
        status: code.unwrap_or(StatusCode::MOVED_PERMANENTLY),
        strip_query: section.flag("strip_query").unwrap_or(false),
    })
}

fn response(route: &Section<'_>) -> Option<Target> {
    let section = Section::of(route.reading, route.key("response"), route.node("response")?)?;
    section.allow_only(&["status", "body"]);
    if !section.has("status") {
        section.error("status", "is missing");
    }
    let status = status(&section, "status", |code| (200..=599).contains(&code), "a status from 200 to 599");
    let body = section.text("body").unwrap_or_default();
    if body.len() > RESPONSE_LEN_MAX {
        section.error("body", "is larger than 64 KiB");
    }
    Some(Target::Response { status: status?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_substitution_refers_to_groups_as_re2_does() {
        let pattern = regex::Regex::new("^/api/(.*)$").unwrap();
        for (text, expected) in
            [(r"/v1/\1", "/v1/x"), (r"/$1/\1", "/$1/x"), (r"/\0", "//api/x"), (r"/a\\b\", r"/a\b\")]
        {
            assert_eq!(pattern.replace_all("/api/x", substitution_of(text)), expected, "{text}");
        }
    }
}
