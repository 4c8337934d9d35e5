//! From Envoy's attributes to the request that they speak of. Whatever is missing or unclear refuses it; nothing is guessed.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};

use super::messages::{AttributeContext, CheckRequest, HttpRequest};

/// A request that Envoy holds.
#[derive(Debug)]
pub(super) struct Question {
    /// With an absolute URI of scheme `https`, and as much of the body as Envoy was told to send.
    pub(super) request: Request<Bytes>,
    pub(super) client: IpAddr,
    /// The server name of the client's TLS connection, lower case, where Envoy is told to include it.
    pub(super) server_name: Option<String>,
}

/// Why a question cannot be answered with anything but no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum QuestionError {
    /// An attribute that every HTTP check carries.
    #[error("the attribute {0} is missing")]
    Missing(&'static str),
    /// Something that is no method, host, path, header or address.
    #[error("the attribute {0} cannot be read")]
    Malformed(&'static str),
    /// Credentials are for TLS alone.
    #[error("the request did not come over https")]
    NotHttps,
    /// A tunnel would go on after the session has ended.
    #[error("a tunnel (CONNECT) is not carried this way")]
    Tunnel,
}

/// Reads a check.
pub(super) fn read(check: CheckRequest) -> Result<Question, QuestionError> {
    use QuestionError::{Malformed, Missing};
    let AttributeContext { source, request, tls_session } = check.attributes.ok_or(Missing("attributes"))?;
    let address = source.and_then(|peer| peer.address).and_then(|address| address.socket_address);
    let address = address.ok_or(Missing("source.address.socket_address"))?.address;
    let client: IpAddr = address.parse().map_err(|_| Malformed("source.address.socket_address"))?;
    let http = request.and_then(|request| request.http).ok_or(Missing("request.http"))?;
    let method: Method = http.method.parse().map_err(|_| Malformed("request.http.method"))?;
    if method == Method::CONNECT {
        return Err(QuestionError::Tunnel);
    }
    let mut headers = headers(&http)?;
    let forwarded_proto = headers.get("x-forwarded-proto").map(HeaderValue::as_bytes);
    if http.scheme != "https" && forwarded_proto != Some(b"https") {
        return Err(QuestionError::NotHttps);
    }
    // A `#` would end the path for us, and perhaps not for the app.
    let is_path = http.path.starts_with('/') && !http.path.contains('#');
    let path: Option<PathAndQuery> = is_path.then(|| http.path.parse().ok()).flatten();
    let path = path.ok_or(Malformed("request.http.path"))?;
    // A comma is a list of hosts, of which one may be a stranger's.
    if http.host.contains(',') {
        return Err(Malformed("request.http.host"));
    }
    let host = HeaderValue::from_str(&http.host).map_err(|_| Malformed("request.http.host"))?;
    let uri = Uri::builder().scheme("https").authority(http.host.as_str()).path_and_query(path).build();
    let uri = uri.map_err(|_| Malformed("request.http.host"))?;
    headers.insert(header::HOST, host);
    let body = if http.raw_body.is_empty() { http.body.into() } else { http.raw_body.into() };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let server_name = tls_session.map(|tls| tls.sni.to_ascii_lowercase()).filter(|name| !name.is_empty());
    Ok(Question { request, client: client.to_canonical(), server_name })
}

/// The headers in either encoding, without the pseudo-headers that Envoy lists among them.
fn headers(http: &HttpRequest) -> Result<HeaderMap, QuestionError> {
    let raw = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        (header.key.as_str(), value)
    });
    let merged = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut headers = HeaderMap::new();
    for (name, value) in raw.chain(merged).filter(|(name, _)| !name.starts_with(':')) {
        let malformed = || QuestionError::Malformed("request.http.headers");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| malformed())?;
        headers.try_append(name, value).map_err(|_| malformed())?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
