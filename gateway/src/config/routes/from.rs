//! `from` with `prefix`, `path` and `regex`: what a route matches.

use http::Method;
use pomerium_shared::destination::Destination;
use regex::{Regex, RegexBuilder};
use url::Url;

use crate::{
    config::{HostPattern, Methods, PathMatch, RouteFrom, section::Section},
    path::CanonicalPath,
};

/// Bytes of a compiled expression at most; an ordinary one takes a few thousand.
const REGEX_SIZE_MAX: usize = 1024 * 1024;

/// Reads what the route matches.
pub(super) fn from(section: &Section<'_>) -> Option<RouteFrom> {
    let path = path_match(section);
    let methods = methods(section);
    let Some(text) = section.filled("from") else {
        if !section.has("from") {
            section.error("from", "is missing: what is asked for, like https://app.corp.example");
        }
        return None;
    };
    let from = match text.split_once("://") {
        Some(("https" | "http", _)) => http(text, path?, methods?),
        Some(("tcp+https", rest)) => {
            destinations(section, rest).map(|destinations| RouteFrom::Tcp { destinations })
        }
        Some(("udp+https", rest)) => {
            destinations(section, rest).map(|destinations| RouteFrom::Udp { destinations })
        }
        Some(("ssh" | "tcp+http", _)) => {
            Err("this scheme is known but not built yet in this gateway".to_owned())
        }
        _ => Err("must begin with https://, tcp+https:// or udp+https://".to_owned()),
    };
    if text.starts_with("http://") {
        section.warn("from", "is served over https only; write https://");
    }
    from.map_err(|message| section.error("from", message)).ok()
}

fn http(text: &str, path: PathMatch, methods: Methods) -> Result<RouteFrom, String> {
    let url =
        Url::parse(text).map_err(|error| format!("expected a URL like https://app.corp.example: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not hold credentials".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("must be a host without a path: use prefix, path or regex".to_owned());
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'*' | b'[' | b']' | b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err("the host must be a name, possibly with *".to_owned());
    }
    let host = if host.contains('*') {
        let parts: Vec<String> = host.split('*').map(regex::escape).collect();
        let pattern = Regex::new(&format!("^{}$", parts.join(".*")));
        HostPattern::Wildcard(pattern.map_err(|_| "this host pattern is too large".to_owned())?)
    } else {
        HostPattern::Exact(host)
    };
    Ok(RouteFrom::Http { host, port: url.port(), path, methods })
}

/// `host:port`, or a gateway with the destinations that it stands before.
fn destinations(section: &Section<'_>, rest: &str) -> Result<Vec<Destination>, String> {
    if let Some(name) = ["prefix", "path", "regex"].into_iter().find(|name| section.has(name)) {
        section.error(name, "a TCP or UDP route has no paths");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let destination =
        |text: &str| text.parse::<Destination>().map_err(|error| format!("\"{text}\": {error}"));
    let mut destinations = Vec::new();
    if path.is_empty() {
        destinations.push(destination(authority)?);
    } else {
        // The gateway's own port may be left out; it is checked all the same.
        let bracketed_only = authority.ends_with(']');
        let with_port = if bracketed_only || !authority.contains(':') {
            format!("{authority}:443")
        } else {
            authority.to_owned()
        };
        destination(&with_port)?;
        for segment in path.trim_end_matches('/').split('/') {
            destinations.push(destination(segment)?);
        }
    }
    Ok(destinations)
}

/// Methods as requests name them; `None`, which was said, if one of them is none.
fn methods(section: &Section<'_>) -> Option<Methods> {
    let name = "methods";
    if !section.has(name) {
        return Some(Methods::Any);
    }
    let texts = section.list(name)?;
    if texts.is_empty() {
        section.error(name, "the list is empty: leave the key out for all methods");
        return None;
    }
    let method = |(text, at): (&str, _)| {
        let method = text.parse().ok().filter(|method| *method != Method::CONNECT);
        // Methods are told apart by case (RFC 9110, 9.1), and hardly anybody means `get`.
        let method = method.filter(|_| !text.bytes().any(|octet| octet.is_ascii_lowercase()));
        if method.is_none() {
            section.error_at(at, name, format!("\"{text}\" is no method like GET or POST, in capitals"));
        }
        method
    };
    texts.into_iter().map(method).collect::<Option<Vec<Method>>>().map(Methods::Only)
}

fn path_match(section: &Section<'_>) -> Option<PathMatch> {
    let (regex, path, prefix) = (section.filled("regex"), section.filled("path"), section.filled("prefix"));
    if [regex, path, prefix].iter().flatten().count() > 1 {
        section.warn(
            if path.is_some() && regex.is_some() { "path" } else { "prefix" },
            "is ignored: regex goes before path, and path before prefix",
        );
    }
    let absolute = |name: &str, text: &str| {
        let said = if !text.starts_with('/') {
            "must begin with /".to_owned()
        } else if let Some(normal) = other_spelling(text) {
            format!("no request has this path: write it in its normal form, {normal}")
        } else {
            return Some(text.to_owned());
        };
        section.error(name, said);
        None
    };
    match (regex, path, prefix) {
        (Some(text), ..) => {
            whole(text).map(PathMatch::Regex).map_err(|message| section.error("regex", message)).ok()
        }
        (None, Some(text), _) => absolute("path", text).map(PathMatch::Exact),
        (None, None, Some(text)) => absolute("prefix", text).map(PathMatch::Prefix),
        (None, None, None) => Some(PathMatch::Any),
    }
}

/// How requests spell a path that is written otherwise here: `/b%C3%BCro` for `/büro`. `None` if it is the same.
fn other_spelling(text: &str) -> Option<String> {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            c if c.is_ascii_graphic() => c.to_string(),
            c => url::form_urlencoded::byte_serialize(c.to_string().as_bytes())
                .collect::<String>()
                .replace('+', "%20"),
        })
        .collect();
    match CanonicalPath::parse(&escaped) {
        Ok(normal) if normal.as_str() == text => None,
        Ok(normal) => Some(normal.as_str().to_owned()),
        Err(_) => Some("without escaped slashes, backslashes and control characters".to_owned()),
    }
}

/// Compiles an expression as it is written.
pub(super) fn expression(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(REGEX_SIZE_MAX)
        .build()
        .map_err(|error| format!("this is no valid expression: {error}"))
}

/// Compiles an expression that must match the whole path.
fn whole(text: &str) -> Result<Regex, String> {
    // `a)|(?:b` would be valid only inside the group, and not anchored there: it has to stand alone first.
    expression(text)?;
    expression(&format!("^(?:{text})$"))
}
