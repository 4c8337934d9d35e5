//! What crosses the gateway in a header, and what never does.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::authority::Authority;
use crate::{config::HeaderRewrite, session::credentials};

/// Headers that speak of one connection only (RFC 9110, 7.6.1), and what some clients send beside them.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Headers by which some apps believe that a request is another one, or somebody else's.
const FORGEABLE: [&str; 9] = [
    "forwarded",
    "proxy",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
];

/// Removes the hop-by-hop headers, and those that `Connection` names. `te: trailers` is kept: gRPC needs it.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    let wants_trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes() == b"trailers");
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes everything that only the gateway may say: `X-Pomerium-*`, the claim headers of the config, forwarding
/// headers, and the gateway's own credentials (its cookie, `Authorization: Pomerium`, `Bearer Pomerium-`).
pub(crate) fn strip_gateway_headers(
    headers: &mut HeaderMap,
    cookie_name: &str,
    claim_headers: &[(HeaderName, String)],
) {
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-pomerium-") || name.starts_with("x-forwarded-") || name.starts_with("x-envoy-")
                || FORGEABLE.contains(&name)
                // Many app servers read `X_Pomerium_…` as `X-Pomerium-…`: an underscore is a forged hyphen.
                || name.contains('_')
        })
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
    for (name, _) in claim_headers {
        headers.remove(name);
    }
    let authorization: Vec<HeaderValue> = headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
    headers.remove(header::AUTHORIZATION);
    for value in authorization {
        if credentials::in_authorization(&value).is_none() {
            headers.append(header::AUTHORIZATION, value);
        }
    }
    strip_cookie(headers, cookie_name);
}

/// Headers that mean what they say at a message's beginning only (RFC 9110, 6.5.1): how it is framed, routed, allowed,
/// or to be read. Beside those that begin with `content-` or `if-`.
const NEVER_TRAILERS: [&str; 17] = [
    "accept",
    "age",
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "set-cookie",
    "trailer",
    "www-authenticate",
];

/// Removes what has no place after a body, so that nothing which is checked at its beginning comes in at its end.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    let misplaced: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("content-") || name.starts_with("if-") || NEVER_TRAILERS.contains(&name)
        })
        .cloned()
        .collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

/// Removes from an app's answer what only the gateway may say to a browser: its headers and its cookies.
pub(crate) fn strip_from_app(headers: &mut HeaderMap, cookie_name: &str) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-pomerium-")).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        if !is_gateway_cookie(cookie.as_bytes(), cookie_name) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

/// Whether `name=value` is a cookie of the gateway's: its session, or what it keeps during a sign-in.
fn is_gateway_cookie(pair: &[u8], cookie_name: &str) -> bool {
    let name = pair.split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default().trim_ascii();
    let name = name.strip_prefix(b"__Host-").unwrap_or(name);
    let of_session = name.strip_prefix(cookie_name.as_bytes());
    of_session.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"_")) || name.starts_with(b"_pomerium")
}

/// Takes the gateway's cookies out of `Cookie`, keeping the others in order.
fn strip_cookie(headers: &mut HeaderMap, cookie_name: &str) {
    let kept: Vec<Vec<u8>> = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !is_gateway_cookie(pair, cookie_name))
        .map(<[u8]>::to_vec)
        .collect();
    headers.remove(header::COOKIE);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(&kept.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, value);
    }
}

/// `rewrite_response_headers`: replaces the beginning of values, of each header by the first entry that fits.
pub(crate) fn rewrite(headers: &mut HeaderMap, rewrites: &[HeaderRewrite]) {
    let mut done: Vec<&HeaderName> = Vec::new();
    for name in rewrites.iter().map(|rewrite| &rewrite.header) {
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        let header::Entry::Occupied(mut values) = headers.entry(name) else { continue };
        for value in values.iter_mut() {
            let fits = |rewrite: &&HeaderRewrite| {
                rewrite.header == *name && value.as_bytes().starts_with(rewrite.prefix.as_bytes())
            };
            let Some(rewrite) = rewrites.iter().find(fits) else { continue };
            let rest = &value.as_bytes()[rewrite.prefix.len()..];
            if let Ok(rewritten) = HeaderValue::from_bytes(&[rewrite.value.as_bytes(), rest].concat()) {
                *value = rewritten;
            }
        }
    }
}

/// Removes `pomerium_session` from a query, however it is spelt, so that the credential does not reach the app or its log.
pub(crate) fn strip_query_credential(query: &str) -> String {
    let is_credential = |pair: &&str| {
        let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
        !pairs.any(|(name, _)| name == credentials::SESSION_QUERY)
    };
    query.split('&').filter(is_credential).collect::<Vec<_>>().join("&")
}

/// Says who asked, for what host, and under which request id.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, peer: IpAddr, authority: &Authority, request_id: &str) {
    let peer = peer.to_string();
    for (name, value) in [
        ("x-forwarded-for", peer.as_str()),
        ("x-envoy-external-address", peer.as_str()),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", &authority.to_host_port()),
        ("x-request-id", request_id),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn forged_identity_never_reaches_the_app() {
        let claims = [("x-email".parse().unwrap(), "email".to_owned())];
        let mut headers = map(&[
            ("x-pomerium-jwt-assertion", "forged"),
            ("x-pomerium-jwt-assertion-for", "forged"),
            ("x_pomerium_jwt_assertion", "forged"),
            ("x-pomerium-authorization", "token"),
            ("x-email", "root@corp.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("authorization", "bearer Pomerium-token"),
            ("accept", "*/*"),
        ]);
        strip_gateway_headers(&mut headers, "_pomerium", &claims);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn only_our_cookies_are_taken_out() {
        let mut headers = map(&[
            ("cookie", "a=1; _pomerium=x=y; b=_pomerium=1"),
            ("cookie", "__Host-_pomerium_login=z; __Host-b=2; c"),
        ]);
        strip_gateway_headers(&mut headers, "_pomerium", &[]);
        assert_eq!(headers, map(&[("cookie", "a=1; b=_pomerium=1; __Host-b=2; c")]));
    }

    #[test]
    fn a_credential_is_taken_out_wherever_it_would_be_found() {
        let mut headers = map(&[
            ("authorization", "Basic app"),
            ("authorization", "Pomerium token"),
            ("authorization", "Bearer  Pomerium-token"),
            ("cookie", "corp=1; corp_authenticate=2; corporate=3"),
        ]);
        strip_gateway_headers(&mut headers, "corp", &[]);
        assert_eq!(headers, map(&[("authorization", "Basic app"), ("cookie", "corporate=3")]));
    }

    #[test]
    fn an_app_cannot_speak_for_the_gateway() {
        let mut headers = map(&[
            ("set-cookie", "_pomerium=junk; Domain=corp.example"),
            ("set-cookie", " _pomerium_csrf =known"),
            ("set-cookie", "own=1; Path=/"),
            ("x-pomerium-intercepted-response", "true"),
            ("etag", "1"),
        ]);
        strip_from_app(&mut headers, "_pomerium");
        assert_eq!(headers, map(&[("set-cookie", "own=1; Path=/"), ("etag", "1")]));
    }

    #[test]
    fn an_apps_own_bearer_token_is_kept() {
        let mut headers = map(&[("authorization", "Bearer app-token")]);
        strip_gateway_headers(&mut headers, "_pomerium", &[]);
        assert_eq!(headers, map(&[("authorization", "Bearer app-token")]));
    }

    #[test]
    fn hop_by_hop_headers_stop_here() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-end", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("x-end", "1")]));
    }

    #[test]
    fn what_counts_at_a_messages_beginning_does_not_come_at_its_end() {
        let mut trailers = map(&[
            ("content-length", "1"),
            ("if-match", "1"),
            ("host", "x"),
            ("authorization", "x"),
            ("te", "gzip"),
            ("set-cookie", "x=1"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-status", "0")]));
    }

    #[test]
    fn the_beginning_of_an_apps_headers_is_rewritten_by_the_first_that_fits() {
        let rewrite = |header: &str, prefix: &str, value: &str| HeaderRewrite {
            header: header.parse().unwrap(),
            prefix: prefix.to_owned(),
            value: value.to_owned(),
        };
        let rewrites = [
            rewrite("location", "http://app:8080/", "https://app.corp.example/"),
            rewrite("location", "https://", "never://"),
            rewrite("x-none", "", "x"),
        ];
        for (before, after) in [
            ("http://app:8080/a?b", "https://app.corp.example/a?b"),
            ("/a http://app:8080/", "/a http://app:8080/"),
            ("https://else", "never://else"),
        ] {
            let mut headers = map(&[("location", before), ("x-url", "http://app:8080/")]);
            super::rewrite(&mut headers, &rewrites);
            assert_eq!(headers, map(&[("location", after), ("x-url", "http://app:8080/")]));
        }
    }

    #[test]
    fn a_session_in_the_query_is_taken_out() {
        assert_eq!(strip_query_credential("a=1&pomerium_session=x&b=2"), "a=1&b=2");
        assert_eq!(strip_query_credential("pomerium_session=x"), "");
        assert_eq!(strip_query_credential("pomerium%5Fsession=x&c=%20"), "c=%20");
    }
}
