//! A refusal as the status of a call, for clients of gRPC and gRPC-web, which read nothing else.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::body::{self, Body};

/// Which of the two a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-web, which browsers speak.
    Web,
}

impl Dialect {
    /// What a request is by its content type; `None` if it is no call.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = text.split([';', '+']).next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/grpc" => Some(Self::Grpc),
            "application/grpc-web" | "application/grpc-web-text" => Some(Self::Web),
            _ => None,
        }
    }
}

/// An answer without a body, whose header says how the call ended.
pub(super) fn failed(dialect: Dialect, status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(body::empty());
    let headers = response.headers_mut();
    let content_type = match dialect {
        Dialect::Grpc => "application/grpc+json",
        Dialect::Web => "application/grpc-web+json",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("grpc-status", HeaderValue::from_static(code(status)));
    if let Ok(message) = HeaderValue::from_str(&escaped(message)) {
        headers.insert("grpc-message", message);
    }
    response
}

/// The code of a call for a status of HTTP.
const fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// A message as its header has it: what is not printable ASCII, and `%`, by its octets.
fn escaped(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for octet in message.bytes() {
        match octet {
            b'%' | ..=0x1f | 0x7f.. => {
                // Writing to a string does not fail.
                _ = write!(text, "%{octet:02X}");
            }
            octet => text.push(char::from(octet)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_content_type() {
        let of = |text: &'static str| {
            Dialect::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]))
        };
        for text in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
            assert_eq!(of(text), Some(Dialect::Grpc), "{text}");
        }
        for text in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
        ] {
            assert_eq!(of(text), Some(Dialect::Web), "{text}");
        }
        for text in ["application/json", "application/grpcx", "text/html", "application/grpc-webby"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(Dialect::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_status_of_http_is_one_of_a_call() {
        for (status, expected) in
            [(400, "13"), (401, "16"), (403, "7"), (404, "12"), (503, "14"), (450, "2"), (500, "2")]
        {
            let response = failed(Dialect::Grpc, StatusCode::from_u16(status).unwrap(), "x");
            assert_eq!(response.headers()["grpc-status"], expected, "{status}");
        }
    }

    #[test]
    fn a_message_stays_one_header() {
        let response = failed(Dialect::Web, StatusCode::FORBIDDEN, "100% n\u{f6}\r\nx: y");
        assert_eq!(response.headers()["grpc-message"], "100%25 n%C3%B6%0D%0Ax: y");
        assert_eq!(response.headers()["content-type"], "application/grpc-web+json");
    }
}
