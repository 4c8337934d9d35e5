use proptest::prelude::*;

use super::*;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

const FORWARDED: [(&str, &str); 5] = [
    ("x-forwarded-method", "POST"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.example:8443"),
    ("x-forwarded-uri", "/a?b=c"),
    ("x-forwarded-for", "10.0.0.9, 192.0.2.7"),
];

const ORIGINAL: [(&str, &str); 3] = [
    ("x-original-url", "https://app.example/a?b=c"),
    ("x-original-method", "GET"),
    ("x-forwarded-for", "192.0.2.7"),
];

#[test]
fn both_dialects_say_method_url_and_client() {
    let said = read(Dialect::Forwarded, &map(&FORWARDED)).unwrap();
    assert_eq!((said.method, said.uri.to_string()), (Method::POST, "https://app.example:8443/a?b=c".into()));
    assert_eq!(
        (said.host.to_str().unwrap(), said.client.to_string()),
        ("app.example:8443", "192.0.2.7".into())
    );
    let said = read(Dialect::Original, &map(&ORIGINAL)).unwrap();
    assert_eq!((said.method, said.uri.to_string()), (Method::GET, "https://app.example/a?b=c".into()));
}

#[test]
fn the_headers_of_one_dialect_say_nothing_in_the_other() {
    let forged = map(&[ORIGINAL.as_slice(), &[("x-forwarded-host", "other.example")]].concat());
    assert_eq!(read(Dialect::Original, &forged).unwrap().uri.host(), Some("app.example"));
    let forged = map(&[FORWARDED.as_slice(), &[("x-original-url", "https://other.example/")]].concat());
    assert_eq!(read(Dialect::Forwarded, &forged).unwrap().uri.host(), Some("app.example"));
}

#[test]
fn what_is_missing_is_never_guessed() {
    for (dialect, all) in [(Dialect::Forwarded, &FORWARDED[..]), (Dialect::Original, &ORIGINAL[..])] {
        for (index, (name, _)) in all.iter().enumerate() {
            let mut rest = all.to_vec();
            rest.remove(index);
            let expected = AssertionError::Missing(name.parse().unwrap());
            assert_eq!(read(dialect, &map(&rest)), Err(expected), "without {name}");
        }
    }
}

#[test]
fn what_is_doubled_is_refused() {
    for (dialect, all) in [(Dialect::Forwarded, &FORWARDED[..]), (Dialect::Original, &ORIGINAL[..])] {
        for entry in all.iter().filter(|(name, _)| *name != "x-forwarded-for") {
            let expected = AssertionError::Doubled(entry.0.parse().unwrap());
            assert_eq!(read(dialect, &map(&[all, &[*entry]].concat())), Err(expected));
        }
    }
}

#[test]
fn what_is_malformed_is_refused() {
    for (name, value) in [
        ("x-forwarded-method", "G T"),
        ("x-forwarded-method", "CONNECT"),
        ("x-forwarded-host", "a.example, b.example"),
        ("x-forwarded-host", "a.example,b.example"),
        ("x-forwarded-host", ""),
        ("x-forwarded-uri", "https://other.example/"),
        ("x-forwarded-uri", "*"),
        ("x-forwarded-uri", "/public#/../admin"),
        ("x-forwarded-for", "unknown"),
        ("x-forwarded-for", "192.0.2.7, "),
    ] {
        let mut headers = map(&FORWARDED);
        headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let expected = AssertionError::Malformed(name.parse().unwrap());
        assert_eq!(read(Dialect::Forwarded, &headers), Err(expected), "{name}: {value}");
    }
    for url in
        ["https://a.example,b.example/", "https://app.example/a#b", "/a", "app.example", "https://", ""]
    {
        let mut headers = map(&ORIGINAL);
        headers.insert(ORIGINAL_URL, url.parse().unwrap());
        assert_eq!(read(Dialect::Original, &headers), Err(AssertionError::Malformed(ORIGINAL_URL)), "{url}");
    }
}

#[test]
fn a_request_without_tls_is_refused() {
    let mut headers = map(&FORWARDED);
    headers.insert(FORWARDED_PROTO, "http".parse().unwrap());
    assert_eq!(read(Dialect::Forwarded, &headers), Err(AssertionError::NotHttps));
    headers.insert(FORWARDED_PROTO, "wss".parse().unwrap());
    assert!(read(Dialect::Forwarded, &headers).is_ok());
}

#[test]
fn the_client_is_whom_the_asking_proxy_saw() {
    let mut headers = map(&FORWARDED);
    headers.append(FORWARDED_FOR, "10.0.0.1, ::ffff:192.0.2.8".parse().unwrap());
    assert_eq!(read(Dialect::Forwarded, &headers).unwrap().client.to_string(), "192.0.2.8");
}

#[test]
fn nothing_of_it_is_left_for_later_steps() {
    let mut headers = map(&[FORWARDED.as_slice(), &ORIGINAL, &[("accept", "*/*")]].concat());
    remove(&mut headers);
    assert_eq!(headers, map(&[("accept", "*/*")]));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        host in proptest::collection::vec(32_u8..=255, 0..40),
        uri in proptest::collection::vec(32_u8..=255, 0..40),
        client in proptest::collection::vec(32_u8..=255, 0..40),
    ) {
        let mut headers = map(&FORWARDED);
        for (name, bytes) in [(FORWARDED_HOST, host), (FORWARDED_URI, uri.clone()), (FORWARDED_FOR, client), (ORIGINAL_URL, uri)] {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            headers.insert(name, value);
        }
        headers.insert(ORIGINAL_METHOD, HeaderValue::from_static("GET"));
        for dialect in [Dialect::Forwarded, Dialect::Original] {
            if let Ok(said) = read(dialect, &headers) {
                prop_assert_eq!(said.uri.scheme_str(), Some("https"));
                prop_assert!(said.uri.path().starts_with('/'));
            }
        }
    }
}
