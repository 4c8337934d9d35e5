//! WebSockets over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220) in the words of HTTP/1.1, so that one way leads to policy and app.

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::ext::Protocol;

use crate::body::{self, Body};

/// RFC 6455, 1.3.
const ID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the app must answer to show that it speaks WebSocket.
pub(super) struct Accept(String);

/// Whether an extended `CONNECT` asks for a WebSocket.
pub(super) fn is_meant(protocol: &Protocol) -> bool {
    protocol.as_str().eq_ignore_ascii_case("websocket")
}

/// The answer to an extended `CONNECT` for anything else.
pub(super) fn unknown_protocol() -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    response
}

/// The request as a client of HTTP/1.1 would have made it (RFC 8441, 5).
pub(super) fn as_http1<B>(mut request: Request<B>) -> (Request<B>, Accept) {
    let mut nonce = [0; 16];
    // It proves nothing about us: without randomness one nonce does as well as another.
    _ = rand::fill(&mut nonce);
    let key = STANDARD.encode(nonce);
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    (request, Accept::of(&key))
}

impl Accept {
    /// RFC 6455, 4.2.2.
    fn of(key: &str) -> Self {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{ID}").as_bytes());
        Self(STANDARD.encode(hash))
    }
}

/// The answer as HTTP/2 and HTTP/3 have it: a 200 opens the stream, and so no other answer may be a success.
pub(super) fn as_http2(mut response: Response<Body>, accept: &Accept) -> Response<Body> {
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS && !status.is_success() {
        return response;
    }
    let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if status.is_success() || accepted.is_none_or(|accepted| accepted.as_bytes() != accept.0.as_bytes()) {
        let mut refusal = Response::new(body::full("The app behind this route did not open a WebSocket.\n"));
        *refusal.status_mut() = StatusCode::BAD_GATEWAY;
        return refusal;
    }
    *response.status_mut() = StatusCode::OK;
    for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, accept: &str) -> StatusCode {
        let response = Response::builder().status(status).header(header::SEC_WEBSOCKET_ACCEPT, accept);
        as_http2(response.body(body::empty()).unwrap(), &Accept::of("dGhlIHNhbXBsZSBub25jZQ==")).status()
    }

    #[test]
    fn only_an_app_that_speaks_websocket_opens_a_stream() {
        // The example of RFC 6455, 1.3.
        assert_eq!(answer(101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), StatusCode::OK);
        for (status, accept) in [(101, "x"), (101, ""), (200, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), (204, "")] {
            assert_eq!(answer(status, accept), StatusCode::BAD_GATEWAY, "{status} {accept}");
        }
        assert_eq!(answer(403, ""), StatusCode::FORBIDDEN);
    }
}
