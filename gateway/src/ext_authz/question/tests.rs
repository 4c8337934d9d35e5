use proptest::prelude::*;
use prost::Message as _;

use super::{
    super::messages::{
        Address, HeaderMap as WireHeaders, HeaderValue as WireHeader, Peer, Request as WireRequest,
        SocketAddress, TlsSession,
    },
    *,
};

fn check() -> CheckRequest {
    let address = SocketAddress { address: "::ffff:192.0.2.7".to_owned(), port_value: 40_000 };
    let headers = [(":path", "/a?b=c"), ("accept", "text/html"), ("cookie", "a=1; _pomerium=x")];
    let http = HttpRequest {
        method: "POST".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        path: "/a?b=c".to_owned(),
        host: "app.example:8443".to_owned(),
        scheme: "https".to_owned(),
        body: "form".to_owned(),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(Address { socket_address: Some(address) }) }),
            request: Some(WireRequest { http: Some(http) }),
            tls_session: Some(TlsSession { sni: "App.Example".to_owned() }),
        }),
    }
}

fn with(change: impl FnOnce(&mut HttpRequest)) -> Result<Question, QuestionError> {
    let mut check = check();
    change(check.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap());
    read(check)
}

#[test]
fn the_attributes_become_the_request() {
    let Question { request, client, server_name } = read(check()).unwrap();
    assert_eq!(
        (request.method(), request.uri().to_string().as_str()),
        (&Method::POST, "https://app.example:8443/a?b=c")
    );
    assert_eq!((client.to_string().as_str(), server_name.as_deref()), ("192.0.2.7", Some("app.example")));
    assert_eq!(request.headers()["host"], "app.example:8443");
    assert_eq!(request.headers()["cookie"], "a=1; _pomerium=x");
    assert_eq!(request.headers().len(), 3, "no pseudo-header");
    assert_eq!(request.body(), "form");
}

#[test]
fn raw_headers_and_bodies_are_read_as_well() {
    let question = with(|http| {
        http.headers.clear();
        let header = |key: &str, raw: &[u8]| WireHeader {
            key: key.to_owned(),
            value: String::new(),
            raw_value: raw.to_vec(),
        };
        let headers = vec![header(":method", b"POST"), header("x-a", b"\xe9"), header("x-a", b"2")];
        http.header_map = Some(WireHeaders { headers });
        http.body.clear();
        http.raw_body = vec![0xff];
    })
    .unwrap();
    let values: Vec<_> =
        question.request.headers().get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(values, [&b"\xe9"[..], b"2"]);
    assert_eq!(question.request.body(), &[0xff][..]);
}

#[test]
fn what_is_missing_or_unclear_is_refused() {
    use QuestionError::{Malformed, Missing, NotHttps, Tunnel};
    assert_eq!(read(CheckRequest::default()).unwrap_err(), Missing("attributes"));
    let mut unknown = check();
    unknown.attributes.as_mut().unwrap().source = None;
    assert_eq!(read(unknown).unwrap_err(), Missing("source.address.socket_address"));
    let mut nothing = check();
    nothing.attributes.as_mut().unwrap().request = None;
    assert_eq!(read(nothing).unwrap_err(), Missing("request.http"));
    assert_eq!(with(|http| http.scheme = "http".to_owned()).unwrap_err(), NotHttps);
    assert_eq!(with(|http| http.method = "CONNECT".to_owned()).unwrap_err(), Tunnel);
    assert_eq!(with(|http| http.method = "G T".to_owned()).unwrap_err(), Malformed("request.http.method"));
    for path in ["", "*", "https://other.example/", "a", "/ b", "/public#/../admin"] {
        let result = with(|http| http.path = path.to_owned());
        assert_eq!(result.unwrap_err(), Malformed("request.http.path"), "{path}");
    }
    for host in ["", "a b", "a,b", "a/b"] {
        let result = with(|http| http.host = host.to_owned());
        assert_eq!(result.unwrap_err(), Malformed("request.http.host"), "{host}");
    }
    let result = with(|http| _ = http.headers.insert("a b".to_owned(), String::new()));
    assert_eq!(result.unwrap_err(), Malformed("request.http.headers"));
}

#[test]
fn tls_that_ended_before_envoy_counts_where_envoy_says_so() {
    let question = with(|http| {
        http.scheme = "http".to_owned();
        http.headers.insert("x-forwarded-proto".to_owned(), "https".to_owned());
    });
    assert_eq!(question.unwrap().request.uri().scheme_str(), Some("https"));
}

proptest! {
    #[test]
    fn any_octets_are_read_without_a_panic(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..200,
        host in ".{0,40}",
        path in ".{0,40}",
    ) {
        if let Ok(check) = CheckRequest::decode(octets.as_slice()) {
            let _ = read(check);
        }
        let mut encoded = check().encode_to_vec();
        let place = at % encoded.len();
        encoded[place] = octets.first().copied().unwrap_or_default();
        if let Ok(check) = CheckRequest::decode(encoded.as_slice()) {
            let _ = read(check);
        }
        if let Ok(question) = with(|http| { http.host = host; http.path = path; }) {
            prop_assert!(question.request.uri().path().starts_with('/'));
            prop_assert!(question.request.uri().host().is_some());
        }
    }
}
