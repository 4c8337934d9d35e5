//! What clients are told unasked, as those read it who do not care, and whose time is over.

use pomerium_shared::events::PATH;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{
    wire::{PATIENCE, end},
    *,
};

/// An answer of HTTP/1.1 with events.
async fn events(doors: &Doors, token: &str) -> BufReader<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut stream = doors.tcp(&[b"http/1.1"], None).await;
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Pomerium {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream)
}

/// The next line with an event in it.
async fn event(lines: &mut (impl AsyncBufRead + Unpin)) -> String {
    let next = async {
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).await.unwrap(), 0, "the answer has ended");
            if line.starts_with('{') {
                return line.trim_end().to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("an event")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_time_is_over_is_told_as_expired_and_its_streams_end_with_it() {
    let doors = Doors::open().await;
    let (life, began) = (Duration::from_secs(2), Now::read().wall);
    let token = doors.token_for("alice", "s", None, life).await;
    let client = doors.quic(None).await;
    let mut headers = http::HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    let Connected::Open { leg, .. } = client.connect(&PLACE.parse().unwrap(), headers).await.unwrap() else {
        panic!("the session is not over");
    };
    let (_app, _) = doors.app.accept().await.unwrap();
    let (local, _person) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(local);
    let carried = relay::run(Leg::io(reader, writer), leg, RelayOptions::default(), std::future::pending());
    let listening = async {
        let mut lines = events(&doors, &token).await;
        assert!(event(&mut lines).await.starts_with("{\"event\":\"session\""));
        assert_eq!(event(&mut lines).await, "{\"event\":\"ended\",\"reason\":\"expired\"}");
    };
    let (carried, ()) = tokio::join!(tokio::time::timeout(PATIENCE, carried), listening);
    assert_eq!(carried.unwrap().reason, EndReason::Session);
    assert!(Now::read().wall >= began + life);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_events_is_let_go_and_others_hear_them_all_the_same() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "timeout_idle: 500ms\n").await;
    let token = doors.token("s", None).await;
    let mut reads = events(&doors, &token).await;
    event(&mut reads).await;
    // As many as one person may have, and none of them grants room for an octet: their seats are free again after a while.
    let mut silent = Vec::new();
    for _ in 0..15 {
        let request = Request::get(format!("https://{HOST}{PATH}"))
            .header(header::AUTHORIZATION, format!("Pomerium {token}"))
            .body(protocols::body(vec![]))
            .unwrap();
        silent.push(backpressure::without_room(&doors, HOST, Way::Http2, request).await);
    }
    let seated = async {
        loop {
            let mut answer = events(&doors, &token).await;
            let mut head = String::new();
            answer.read_line(&mut head).await.unwrap();
            if head.contains("200") {
                return;
            }
            assert!(head.contains("429"), "{head}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seated).await.expect("a seat");
    doors.store.end_session(&SessionId::new("s")).await.unwrap();
    assert_eq!(event(&mut reads).await, "{\"event\":\"ended\",\"reason\":\"revoked\"}");
    end(&mut reads).await;
}

#[tokio::test]
async fn a_browsers_cookie_opens_neither_events_nor_the_list_of_routes() {
    let doors = Doors::open().await;
    let token = doors.token("s", None).await;
    for (path, status) in
        [("/.pomerium/user", "200"), (PATH, "401"), (ROUTES, "401"), ("/.pomerium/routes?q=a", "302")]
    {
        let mut stream = doors.tcp(&[b"http/1.1"], None).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: _pomerium={token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        let reading = BufReader::new(stream).read_line(&mut head).await;
        assert!(reading.is_ok() && head.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {head}");
    }
}
