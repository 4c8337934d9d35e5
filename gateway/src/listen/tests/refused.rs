//! Requests by which gateway and app could come to read different things in the same bytes (RFC 9112, 11), sent raw.

use proptest::test_runner::TestRunner;
use tokio::io::AsyncWriteExt as _;

use super::{
    wire::{ANSWER, Witness, end, statuses},
    *,
};

/// What would be smuggled.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: open.corp.test\r\n\r\n";

/// What comes after, and must get its own answer.
const CANARY: &str = "GET /canary HTTP/1.1\r\nHost: open.corp.test\r\n\r\n";

async fn send(doors: &Doors, octets: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    // Who has been refused closes while it is still being written to.
    _ = stream.write_all(octets).await;
    _ = stream.flush().await;
    stream
}

#[tokio::test]
async fn a_head_that_two_programs_may_read_in_two_ways_is_refused_and_ends_the_connection() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let with = |field: &str| format!("POST / HTTP/1.1\r\nHost: {OPEN}\r\n{field}\r\n\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: {OPEN}\r\n\r\n").into_bytes();
    let heads = [
        with("Content-Length: 3\r\nContent-Length: 4"),
        with("Content-Length: 3, 4"),
        with("Content-Length: +3"),
        with("Content-Length: -1"),
        with("Content-Length: 0x3"),
        with("Content-Length: "),
        with("Content-Length: 18446744073709551616"),
        with("Content-Length : 3"),
        with("Transfer-Encoding : chunked"),
        with("Transfer-Encoding: xchunked"),
        with("Transfer-Encoding: identity"),
        with("Transfer-Encoding: chunked, identity"),
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        with("Transfer-Encoding: \x0bchunked"),
        with("Transfer-Encoding:\r\n chunked"),
        with("X: a\r\n b"),
        with(" X: a"),
        with("X: a\rTransfer-Encoding: chunked"),
        with("X: a\0b"),
        with("X\0: a"),
        with("X(: a"),
        with(": a"),
        with("no colon"),
        line("GET /\0 HTTP/1.1"),
        line("GET / x HTTP/1.1"),
        line("GET / HTTP/1.2"),
        line("GET / HTTP/2.0"),
        line("GET /"),
        line("G(T / HTTP/1.1"),
        b"POST / HTTP/1.0\r\nHost: open.corp.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ];
    for head in heads {
        let mut stream = send(&doors, &[&head, SMUGGLED.as_bytes()].concat()).await;
        let (statuses, text) = statuses(&mut stream, 2).await;
        let head = String::from_utf8_lossy(&head);
        assert!(matches!(statuses[..], [400 | 505] | []), "{head:?}: {text}");
    }
    assert_eq!(app.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_is_not_what_its_head_says_is_never_a_whole_request_to_the_app() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let endless = format!("3;{}", "a".repeat(64 * 1024));
    let trailers = format!("0\r\n{}\r\n", "X: a\r\n".repeat(20_000));
    for body in [
        "FFFFFFFFFFFFFFFFF\r\nabc",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        &endless,
        &trailers,
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: {OPEN}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut stream = send(&doors, format!("{head}{body}{SMUGGLED}").as_bytes()).await;
        let (statuses, text) = statuses(&mut stream, 2).await;
        let body = &body[..body.len().min(40)];
        assert!(!statuses.contains(&200) && statuses.len() < 2, "{body:?}: {text}");
    }
    assert_eq!(app.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_let_through_reaches_the_app_in_one_spelling_only() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let post =
        |fields: &str, body: &str| format!("POST /it HTTP/1.1\r\nHost: {OPEN}\r\n{fields}\r\n\r\n{body}");
    for request in [
        // RFC 9112, 6.3: the chunks count, and the connection ends (6.1).
        post("Content-Length: 4\r\nTransfer-Encoding: chunked", "5\r\nabcde\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 4", "5\r\nabcde\r\n0\r\n\r\n"),
        post("Transfer-Encoding: cHuNkEd", "5;ext=1\r\nabcde\r\n0\r\n\r\n"),
        post("Content-Length: 5\r\nContent-Length: 5", "abcde"),
        post("Content-Length: 5", "abcde").replace("\r\n", "\n"),
    ] {
        let before = app.requests().len();
        let mut stream = send(&doors, format!("{request}{CANARY}").as_bytes()).await;
        let (statuses, text) = statuses(&mut stream, 2).await;
        let ends = request.contains("Content-Length") && request.contains("Transfer-Encoding");
        assert_eq!(statuses, if ends { vec![200] } else { vec![200, 200] }, "{request:?}: {text}");
        let seen = app.requests().split_off(before);
        assert!(seen[0].starts_with("POST /it HTTP/1.1\r\n") && seen[0].contains("abcde"), "{seen:?}");
        assert_eq!(seen.len(), statuses.len(), "{request:?}: {seen:?}");
        let head = seen[0].split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        let lengths =
            head.matches("\r\ncontent-length:").count() + head.matches("\r\ntransfer-encoding:").count();
        assert_eq!(lengths, 1, "{head}");
        assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
    }
}

#[tokio::test]
async fn heads_have_an_end() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let long = "a".repeat(2 * HEADER_LEN_MAX_BYTES);
    for head in [
        format!("GET /{long} HTTP/1.1\r\nHost: {OPEN}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n{}\r\n", "X: a\r\n".repeat(1_000)),
        format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n{}", "X: a\r\n".repeat(HEADER_LEN_MAX_BYTES)),
    ] {
        let mut stream = send(&doors, head.as_bytes()).await;
        let (statuses, text) = statuses(&mut stream, 1).await;
        assert!(matches!(statuses[..], [400 | 414 | 431] | []), "{}: {text}", &head[..40]);
        end(&mut stream).await;
    }
    assert_eq!(app.requests(), Vec::<String>::new());
}

const HEADER_LEN_MAX_BYTES: usize = super::super::HEADER_LEN_MAX as usize;

/// Paths as a client may write them, and as the app sees them, if it sees them at all.
pub(super) const PATHS: [(&[u8], Option<&str>); 17] = [
    (b"/a//b", Some("/a/b")),
    (b"/a/./b", Some("/a/b")),
    (b"/x/../a/b", Some("/a/b")),
    (b"/x/%2e%2E/a/b", Some("/a/b")),
    (b"/%61/b", Some("/a/b")),
    (b"/a/b#/public", Some("/a/b")),
    (b"/a/b?x=/../y#z", Some("/a/b?x=/../y")),
    (b"/a%2fb", None),
    (b"/a%5cb", None),
    (b"/a\\b", None),
    (b"/a%00b", None),
    (b"/a/..;/b", None),
    (b"/a/%2e%2e%3b/b", None),
    (b"/a%zzb", None),
    // Overlong: a slash in two and three octets, raw and escaped; no text, and never one to us.
    (b"/a\xc0\xafb", None),
    (b"/a%C0%AFb", None),
    (b"/a%E0%80%AFb", None),
];

#[tokio::test]
async fn policy_and_app_see_one_path_or_there_is_no_answer() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let absolute: (&[u8], _) = (b"https://open.corp.test/a/b", Some("/a/b"));
    for (path, expected) in PATHS.into_iter().chain([absolute]) {
        let before = app.requests().len();
        let head = format!(" HTTP/1.1\r\nHost: {OPEN}\r\n\r\n");
        let mut stream = send(&doors, &[b"GET ", path, head.as_bytes()].concat()).await;
        let (statuses, text) = statuses(&mut stream, 1).await;
        let seen = app.lines().split_off(before);
        let path = String::from_utf8_lossy(path);
        match expected {
            Some(expected) => {
                assert_eq!(seen, [format!("GET {expected} HTTP/1.1")], "{path}");
                assert_eq!(statuses, [200], "{path}: {text}");
            }
            None => {
                assert_eq!((statuses, seen), (vec![400], vec![]), "{path}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn nobody_speaks_for_the_gateway_in_any_spelling() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let fields = [
        "X-Pomerium-Jwt-Assertion: forged",
        "x-pomerium-JWT-assertion: forged",
        "X_Pomerium_Jwt_Assertion: forged",
        "X-Pomerium_Jwt-Assertion: forged",
        "X-Pomerium-Claim-Email: forged",
        "X-Forwarded-For: forged",
        "X-Forwarded-Host: forged",
        "Forwarded: for=forged",
        "X-Real-Ip: forged",
        "X-Original-Url: /forged",
        "X-HTTP-Method-Override: forged",
        "Proxy: forged",
        "Connection: X-Pomerium-Jwt-Assertion, X-Forwarded-For, Host, forged",
        "Keep-Alive: forged",
        "Proxy-Authorization: forged",
        "Cookie: _pomerium=forged; __Host-_pomerium_csrf=forged; own=1",
        "Cookie: _pomerium =forged",
    ];
    let request = format!(
        "GET /?pomerium_session=forged&a=1 HTTP/1.1\r\nHost: {OPEN}\r\n{}\r\n\r\n",
        fields.join("\r\n")
    );
    let mut stream = send(&doors, request.as_bytes()).await;
    assert_eq!(statuses(&mut stream, 1).await.0, [200]);
    let seen = app.requests().remove(0);
    assert!(!seen.contains("forged"), "{seen}");
    let lower = seen.to_ascii_lowercase();
    assert!(lower.starts_with("get /?a=1 http/1.1\r\n") && lower.contains("\r\ncookie: own=1\r\n"), "{seen}");
    assert!(lower.contains("\r\nx-forwarded-for: 127.0.0.1\r\n") && lower.contains("\r\nhost: "), "{seen}");
}

#[tokio::test]
async fn an_app_sets_no_cookie_of_the_gateways_and_says_nothing_in_its_name() {
    let doors = Doors::open().await;
    let answers: [(&'static str, &str, u16); 2] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "", 200),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            101,
        ),
    ];
    for (head, fields, status) in answers {
        let answer = format!(
            "{head}Set-Cookie: _pomerium=tossed\r\nset-cookie:  __Host-_pomerium_csrf =tossed\r\n\
             X-Pomerium-Intercepted-Response: tossed\r\nKeep-Alive: tossed\r\nSet-Cookie: own=1\r\n\r\n"
        );
        let app = Witness::behind(&doors, answer.leak());
        let request = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n{fields}\r\n");
        let mut stream = send(&doors, request.as_bytes()).await;
        let (statuses, text) = statuses(&mut stream, 1).await;
        assert_eq!(statuses, [status], "{text}");
        assert!(
            !text.contains("tossed") && text.to_ascii_lowercase().contains("set-cookie: own=1"),
            "{text}"
        );
        drop(app);
    }
}

#[tokio::test]
async fn a_connection_serves_the_host_that_it_was_opened_for_and_no_other() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    for (target, hosts, status) in [
        ("/", &["app.corp.test"][..], 421),
        ("https://app.corp.test/", &[OPEN], 400),
        ("https://open.corp.test@app.corp.test/", &[OPEN], 400),
        ("/", &["open.corp.test@app.corp.test"], 400),
        ("/", &["open.corp.test", "app.corp.test"], 400),
        ("/", &["open.corp.test, app.corp.test"], 400),
        ("/", &["open.corp.test/app"], 400),
        ("/", &["open.corp.test:port"], 400),
        ("/", &["open.corp.test."], 421),
        ("/", &[""], 400),
        ("/", &[], 400),
        ("*", &[OPEN], 400),
        ("open.corp.test:443", &[OPEN], 400),
        ("/", &["OPEN.corp.TEST:443"], 200),
    ] {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        let mut stream = send(&doors, format!("GET {target} HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await;
        let (statuses, text) = statuses(&mut stream, 1).await;
        assert_eq!(statuses, [status], "{target} {hosts}: {text}");
    }
    assert_eq!(app.lines(), ["GET / HTTP/1.1"]);
}

/// Whatever stands in a request line, the app sees a path in its one form, or nothing.
#[tokio::test]
async fn no_request_line_leads_out_of_the_one_form_of_a_path() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let mut runner = TestRunner::deterministic();
    for _ in 0..64 {
        use proptest::strategy::{Strategy as _, ValueTree as _};
        let path = "/[a-c./%250-9EF;\\\\\\x01-\\xff]{0,24}".new_tree(&mut runner).unwrap().current();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {OPEN}\r\nConnection: close\r\n\r\n");
        let mut stream = send(&doors, request.as_bytes()).await;
        let (statuses, text) = statuses(&mut stream, 1).await;
        assert!(matches!(statuses[..], [200 | 400]), "{path:?}: {text}");
    }
    for line in app.lines() {
        let path = line.split(' ').nth(1).unwrap().split('?').next().unwrap();
        assert_eq!(crate::path::CanonicalPath::parse(path).unwrap().as_str(), path);
    }
}
