//! What a proxy in front says of the request that it holds, in the headers of its question.
//!
//! Each dialect reads its own headers and no other: a proxy overwrites those that it knows and passes on the rest, which
//! come from a stranger. Whatever is missing, doubled or unclear refuses the question; nothing is guessed.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

pub(super) const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");

/// How a proxy speaks of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri` and `-For`.
    Forwarded,
    /// `X-Original-URL`, `X-Original-Method` and `X-Forwarded-For`.
    Original,
}

/// The request that a proxy in front holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asserted {
    pub(super) method: Method,
    /// Absolute, with the scheme `https`.
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    pub(super) client: IpAddr,
}

/// Why a question cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssertionError {
    /// A header that the dialect needs.
    #[error("the header {0} is missing")]
    Missing(HeaderName),
    /// More than one, of which one may be a stranger's.
    #[error("the header {0} is there more than once")]
    Doubled(HeaderName),
    /// Something that is no method, host, path or address.
    #[error("the header {0} cannot be read")]
    Malformed(HeaderName),
    /// Credentials are for TLS alone.
    #[error("the request did not come over https")]
    NotHttps,
}

/// Reads what the headers of a question say.
pub(super) fn read(dialect: Dialect, headers: &HeaderMap) -> Result<Asserted, AssertionError> {
    let (method, scheme, authority, path) = match dialect {
        Dialect::Forwarded => {
            let path = one(headers, FORWARDED_URI)?;
            let path: Option<PathAndQuery> = is_path(path).then(|| path.parse().ok()).flatten();
            let authority = one(headers, FORWARDED_HOST)?.parse::<Authority>();
            (
                parsed_method(headers, FORWARDED_METHOD)?,
                one(headers, FORWARDED_PROTO)?.to_owned(),
                authority.map_err(|_| AssertionError::Malformed(FORWARDED_HOST))?,
                path.ok_or(AssertionError::Malformed(FORWARDED_URI))?,
            )
        }
        Dialect::Original => {
            let malformed = || AssertionError::Malformed(ORIGINAL_URL);
            let url = one(headers, ORIGINAL_URL)?;
            if url.contains('#') {
                return Err(malformed());
            }
            let parts = url.parse::<Uri>().map_err(|_| malformed())?.into_parts();
            (
                parsed_method(headers, ORIGINAL_METHOD)?,
                parts.scheme.ok_or_else(malformed)?.to_string(),
                parts.authority.ok_or_else(malformed)?,
                parts.path_and_query.ok_or_else(malformed)?,
            )
        }
    };
    // Some call the scheme of a WebSocket by its own name.
    if scheme != "https" && scheme != "wss" {
        return Err(AssertionError::NotHttps);
    }
    let named_by = match dialect {
        Dialect::Forwarded => FORWARDED_HOST,
        Dialect::Original => ORIGINAL_URL,
    };
    // A comma is a list of hosts, of which one may be a stranger's.
    if authority.as_str().contains(',') {
        return Err(AssertionError::Malformed(named_by));
    }
    let host = authority.as_str();
    let host = HeaderValue::from_str(host).map_err(|_| AssertionError::Malformed(named_by))?;
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(path).build();
    let uri = uri.map_err(|_| AssertionError::Malformed(FORWARDED_URI))?;
    Ok(Asserted { method, uri, host, client: client(headers)? })
}

/// Takes out what was for us: no later step may read it again.
pub(super) fn remove(headers: &mut HeaderMap) {
    for name in [
        FORWARDED_METHOD,
        FORWARDED_PROTO,
        FORWARDED_HOST,
        FORWARDED_URI,
        FORWARDED_FOR,
        ORIGINAL_URL,
        ORIGINAL_METHOD,
    ] {
        headers.remove(name);
    }
}

/// A `#` would end the path for us, and perhaps not for the app.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains('#')
}

fn one(headers: &HeaderMap, name: HeaderName) -> Result<&str, AssertionError> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(AssertionError::Missing(name)),
        (_, Some(_)) => Err(AssertionError::Doubled(name)),
        (Some(value), None) => value.to_str().map_err(|_| AssertionError::Malformed(name)),
    }
}

fn parsed_method(headers: &HeaderMap, name: HeaderName) -> Result<Method, AssertionError> {
    let method = one(headers, name.clone())?.parse().ok().filter(|method| *method != Method::CONNECT);
    method.ok_or(AssertionError::Malformed(name))
}

/// The last address of `X-Forwarded-For`, which is the one that the asking proxy saw itself.
fn client(headers: &HeaderMap) -> Result<IpAddr, AssertionError> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back();
    let last = last.ok_or(AssertionError::Missing(FORWARDED_FOR))?;
    let last = last.to_str().ok().and_then(|list| list.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    last.map(|address| address.to_canonical()).ok_or(AssertionError::Malformed(FORWARDED_FOR))
}

#[cfg(test)]
mod tests;
