//! HTTP/3 by hand: what a well-behaved client never sends, and what the listener answers (RFC 9114, RFC 9204); and what no client
//! in a library asks for (RFC 9220).

use std::fmt;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    protocols::{accept, socket_app},
    refused::PATHS,
    wire::{ANSWER, PATIENCE, Witness, running},
    *,
};

const DATA: u64 = 0;
const HEADERS: u64 = 1;
const SETTINGS: u8 = 4;

/// RFC 9114, 8.1.
const EXCESSIVE_LOAD: u64 = 0x107;
const CANCELLED: u64 = 0x10c;
const MESSAGE: u64 = 0x10e;

/// An integer whose last `bits` are in the first octet (RFC 7541, 5.1).
fn integer(flags: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![flags | u8::try_from(value).unwrap()];
    }
    let (mut octets, mut left) = (vec![flags | u8::try_from(most).unwrap()], value - most);
    while left >= 0x80 {
        octets.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    octets.push(u8::try_from(left).unwrap());
    octets
}

/// A field, written out (RFC 9204, 4.5.6).
fn field(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [&integer(0x20, 3, name.len()), name.as_bytes(), &integer(0, 7, value.len()), value].concat()
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let length = 0x8000_0000 | u32::try_from(payload.len()).unwrap();
    [&[u8::try_from(kind).unwrap()], &length.to_be_bytes()[..], payload].concat()
}

/// A request's head, with these pseudo-header fields and more.
fn head(method: &str, authority: &str, path: impl AsRef<[u8]>, more: &[Vec<u8>]) -> Vec<u8> {
    let pseudo = [
        field(":method", method),
        field(":scheme", "https"),
        field(":authority", authority),
        field(":path", path),
    ];
    frame(HEADERS, &[&[0, 0][..], &pseudo.concat(), &more.concat()].concat())
}

fn get(path: impl AsRef<[u8]>, more: &[Vec<u8>]) -> Vec<u8> {
    head("GET", OPEN, path, more)
}

fn extended(protocols: &[&str], more: &[Vec<u8>]) -> Vec<u8> {
    let protocols = protocols.iter().map(|protocol| field(":protocol", protocol));
    let fields: Vec<_> =
        protocols.chain([field("sec-websocket-version", "13")]).chain(more.iter().cloned()).collect();
    head("CONNECT", OPEN, "/socket", &fields)
}

/// How the listener takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The request is answered.
    Status(u16),
    /// The stream alone is reset, with this code.
    Reset(u64),
    /// The connection ends.
    Connection,
}

/// A connection on which frames are written by hand.
struct Peer {
    quic: quinn::Connection,
    _control: quinn::SendStream,
    _endpoint: quinn::Endpoint,
}

struct Stream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    pending: Vec<u8>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.recv.id()).finish()
    }
}

impl Peer {
    async fn connect(doors: &Doors) -> Self {
        Self::connect_as(doors, pomerium_shared::quic::client_config(doors.tls(&[b"h3"], None)).unwrap())
            .await
    }

    /// One that has room for the gateway's settings on a stream, and for no head of an answer.
    async fn connect_without_room(doors: &Doors) -> Self {
        let mut config = pomerium_shared::quic::client_config(doors.tls(&[b"h3"], None)).unwrap();
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(60_u32.into());
        config.transport_config(Arc::new(transport));
        Self::connect_as(doors, config).await
    }

    async fn connect_as(doors: &Doors, config: quinn::ClientConfig) -> Self {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let quic = endpoint.connect_with(config, doors.address, OPEN).unwrap().await.unwrap();
        let mut control = quic.open_uni().await.unwrap();
        control.write_all(&[0, SETTINGS, 0]).await.unwrap();
        Self { quic, _control: control, _endpoint: endpoint }
    }

    /// Whom it displeases stops listening meanwhile.
    async fn send(&self, octets: &[u8]) -> Stream {
        let (mut send, recv) = self.quic.open_bi().await.unwrap();
        _ = send.write_all(octets).await;
        Stream { send, recv, pending: Vec::new() }
    }

    /// What becomes of a whole request.
    async fn ask(&self, octets: &[u8]) -> End {
        let mut stream = self.send(octets).await;
        _ = stream.send.finish();
        stream.end().await
    }
}

impl Stream {
    /// The next frame; `None`: the stream ends. It is waited for without a limit.
    async fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, quinn::ReadError> {
        loop {
            if let Some(frame) = whole_frame(&mut self.pending) {
                return Ok(Some(frame));
            }
            match self.recv.read_chunk(64 * 1024, true).await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }

    async fn end(&mut self) -> End {
        match tokio::time::timeout(PATIENCE, self.next()).await.expect("an answer, or the end") {
            Ok(Some((HEADERS, section))) => End::Status(status(&section)),
            Err(quinn::ReadError::Reset(code)) => End::Reset(code.into_inner()),
            Err(quinn::ReadError::ConnectionLost(_)) => End::Connection,
            other => panic!("{other:?}"),
        }
    }
}

fn whole_frame(octets: &mut Vec<u8>) -> Option<(u64, Vec<u8>)> {
    let varint = |at: usize| {
        let first = *octets.get(at)?;
        let len = 1_usize << (first >> 6);
        let rest = octets.get(at + 1..at + len)?.iter();
        Some((rest.fold(u64::from(first & 0x3f), |value, octet| value << 8 | u64::from(*octet)), at + len))
    };
    let (kind, at) = varint(0)?;
    let (len, at) = varint(at)?;
    let end = at + usize::try_from(len).unwrap();
    let payload = octets.get(at..end)?.to_vec();
    octets.drain(..end);
    Some((kind, payload))
}

/// `:status`, which comes first: from the static table (RFC 9204, A), or by its name there.
fn status(section: &[u8]) -> u16 {
    const LATER: [u16; 9] = [100, 204, 206, 302, 400, 403, 421, 425, 500];
    match section[2..] {
        [first @ 0xd8..=0xdc, ..] => [103, 200, 304, 404, 503][usize::from(first - 0xd8)],
        [0xff, later, ..] => LATER[usize::from(later)],
        [0x5f, 0x09, len, ref value @ ..] => {
            let (mut digits, len) = (Vec::new(), usize::from(len & 0x7f));
            httlib_huffman::decode(&value[..len], &mut digits, httlib_huffman::DecoderSpeed::OneBit).unwrap();
            String::from_utf8(digits).unwrap().parse().unwrap()
        }
        _ => panic!("no status: {section:x?}"),
    }
}

fn echo_app(doors: &Doors) -> tokio::task::JoinSet<()> {
    socket_app(doors, |key| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept(key)
        )
    })
}

#[tokio::test]
async fn a_websocket_on_a_stream_of_http3_is_one_to_the_app_and_ends_when_either_side_does() {
    let doors = Doors::open().await;
    let _app = echo_app(&doors);
    let peer = Peer::connect(&doors).await;
    let mut socket =
        peer.send(&extended(&["websocket"], &[field("origin", format!("https://{OPEN}"))])).await;
    assert_eq!(socket.end().await, End::Status(200));
    let hello = b"\x81\x85\0\0\0\0hello";
    socket.send.write_all(&frame(DATA, hello)).await.unwrap();
    let mut echo = Vec::new();
    while echo.len() < hello.len() {
        let (kind, piece) = socket.next().await.unwrap().unwrap();
        assert_eq!(kind, DATA);
        echo.extend(piece);
    }
    assert_eq!(echo, hello);
    socket.send.finish().unwrap();
    assert_eq!(socket.next().await, Ok(None), "the app's end comes back");

    let mut cut = peer.send(&extended(&["websocket"], &[])).await;
    assert_eq!(cut.end().await, End::Status(200));
    doors.lifetime.cut.cancel();
    assert!(cut.next().await.is_err(), "what is cut does not look finished");
}

#[tokio::test]
async fn what_is_no_websocket_or_not_from_here_opens_no_stream_of_http3() {
    let doors = Doors::open().await;
    let app = echo_app(&doors);
    let peer = Peer::connect(&doors).await;
    let from_elsewhere = [field("origin", "https://evil.test")];
    for (request, end) in [
        (extended(&["websocket"], &from_elsewhere), End::Status(400)),
        (extended(&["websocket"], &[field("connection", "upgrade")]), End::Status(400)),
        (extended(&["webtransport"], &[]), End::Status(501)),
        (extended(&["tls"], &[]), End::Status(501)),
        (extended(&["websocket", "websocket"], &[]), End::Status(501)),
        (extended(&["connect-udp", "websocket"], &[]), End::Status(501)),
        (get("/socket", &[field(":protocol", "websocket")]), End::Status(400)),
    ] {
        assert_eq!(peer.send(&request).await.end().await, end);
    }
    drop(app);
    for (answer, end) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", End::Status(403)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", End::Status(502)),
    ] {
        let app = socket_app(&doors, move |_| answer.to_owned());
        assert_eq!(peer.send(&extended(&["websocket"], &[])).await.end().await, end);
        drop(app);
    }
}

#[tokio::test]
async fn policy_and_app_see_one_path_over_http3_or_there_is_no_answer() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let peer = Peer::connect(&doors).await;
    for (path, expected) in PATHS {
        let before = app.requests().len();
        let end = peer.ask(&get(path, &[])).await;
        let seen = app.lines().split_off(before);
        let path = String::from_utf8_lossy(path);
        match expected {
            Some(expected) => {
                assert_eq!(seen, [format!("GET {expected} HTTP/1.1")], "{path}");
                assert_eq!(end, End::Status(200), "{path}");
            }
            None => {
                assert!(matches!(end, End::Status(400) | End::Reset(MESSAGE)), "{path}: {end:?}");
                assert_eq!(seen, Vec::<String>::new(), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn fields_that_would_be_several_in_http1_reach_no_app_from_http3() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let peer = Peer::connect(&doors).await;
    for more in [
        field("x", "a\r\nx-smuggled: 1"),
        field("x", "a\nx-smuggled: 1"),
        field("x", "a\rb"),
        field("x", "a\0b"),
        field("x: y", "a"),
        field("x\r\ny", "a"),
        field("X-Upper", "a"),
        field("", "a"),
        field(":smuggled", "a"),
        field(":status", "20"),
        field("host", "app.corp.test"),
    ] {
        let end = peer.ask(&get("/", std::slice::from_ref(&more))).await;
        assert_eq!(end, End::Reset(MESSAGE), "{:?}", String::from_utf8_lossy(&more));
    }
    for method in ["GET /smuggled HTTP/1.1\r\n", "GET\0", ""] {
        let end = peer.ask(&head(method, OPEN, "/", &[])).await;
        assert_eq!(end, End::Reset(MESSAGE), "{method:?}");
    }
    assert_eq!(peer.ask(&get("/", &[])).await, End::Status(200), "the connection goes on");
    assert_eq!(app.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_of_http3_serves_the_host_that_it_was_opened_for_and_no_other() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let peer = Peer::connect(&doors).await;
    for (authority, end) in [
        ("app.corp.test", End::Status(421)),
        ("app.corp.test:443", End::Status(421)),
        ("open.corp.test.", End::Status(421)),
        ("", End::Reset(MESSAGE)),
    ] {
        assert_eq!(peer.ask(&head("GET", authority, "/", &[])).await, end, "{authority}");
    }
    for authority in ["open.corp.test@app.corp.test", "app.corp.test@open.corp.test", "open.corp.test:port"] {
        let end = peer.ask(&head("GET", authority, "/", &[])).await;
        assert!(matches!(end, End::Status(400) | End::Reset(MESSAGE)), "{authority}: {end:?}");
    }
    assert_eq!(peer.ask(&head("GET", "OPEN.corp.TEST:443", "/", &[])).await, End::Status(200));
    assert_eq!(app.lines(), ["GET / HTTP/1.1"]);
}

#[tokio::test]
async fn heads_have_an_end_over_http3() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let peer = Peer::connect(&doors).await;
    // Announced too long: not one octet of it is kept.
    let long = frame(HEADERS, &[0; 64 * 1024 + 1]);
    let mut stream = peer.send(&long[..16]).await;
    assert_eq!(stream.end().await, End::Reset(CANCELLED));
    let stopped = stream.send.stopped().await.unwrap();
    assert_eq!(stopped.map(quinn::VarInt::into_inner), Some(EXCESSIVE_LOAD));
    // More fields than one may have, and as many.
    let fields = vec![field("x", "a"); super::super::HEADERS_MAX + 1];
    assert_eq!(peer.ask(&get("/", &fields)).await, End::Status(431));
    assert_eq!(peer.ask(&get("/", &fields[1..])).await, End::Status(200));
    // Short on the wire, and long when unpacked: `x-frame-options: sameorigin` by its number (RFC 9204, A), 57 octets each.
    let packed = get("/", &[[0xff, 98 - 63].repeat(1_200)]);
    assert_eq!(peer.ask(&packed).await, End::Reset(CANCELLED));
    let peer = Peer::connect(&doors).await;
    assert_eq!(peer.ask(&get("/", &[])).await, End::Status(200), "others are served");
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn a_body_over_http3_that_does_not_come_is_not_waited_for() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "timeout_read: 500ms\n").await;
    let app = Witness::behind(&doors, ANSWER);
    let peer = Peer::connect(&doors).await;
    let request = head("POST", OPEN, "/", &[field("content-length", "3")]);
    let mut stream = peer.send(&[request, frame(DATA, b"ab")].concat()).await;
    assert_eq!(stream.end().await, End::Status(408));
    assert_eq!(app.requests(), Vec::<String>::new());
}

/// At the doors, which have little patience, in time as it is: the other test of this has a clock of its own and no door.
#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_ends_its_connection_or_stream() {
    let waits = Waits { header: Duration::from_secs(1), ..Waits::USUAL };
    let doors = Doors::open_for(tempfile::tempdir().unwrap(), "", waits).await;
    let app = Witness::behind(&doors, ANSWER);
    let mut tcp = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let peer = Peer::connect(&doors).await;
    let mut stream = peer.send(&get("/", &[])[..16]).await;
    let mut rest = Vec::new();
    _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.expect("the end");
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    assert_eq!(stream.end().await, End::Reset(CANCELLED));
    assert_eq!(peer.ask(&get("/", &[])).await, End::Status(200), "the connection goes on");
    assert_eq!(app.requests().len(), 1);
}

/// CVE-2023-44487 over QUIC: a request that is taken back holds its place until the gateway is done with it.
#[tokio::test]
async fn requests_over_http3_that_are_taken_back_at_once_are_never_more_than_a_client_may_have() {
    let doors = Doors::open().await;
    // It takes requests, and answers none.
    let (app, taken) = (doors.app.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let kept = taken.clone();
    let _app = running(async move {
        while let Ok((stream, _)) = app.accept().await {
            kept.lock().unwrap().push(stream);
        }
    });
    let peer = Peer::connect(&doors).await;
    let request = get("/", &[]);
    let flood = async {
        for _ in 0..20_000 {
            let mut stream = peer.send(&request).await;
            _ = stream.send.reset(quinn::VarInt::from_u64(CANCELLED).unwrap());
            _ = stream.recv.stop(quinn::VarInt::from_u64(CANCELLED).unwrap());
        }
    };
    // It stands still, or goes on no faster than requests end.
    _ = tokio::time::timeout(Duration::from_secs(3), flood).await;
    assert!(taken.lock().unwrap().len() <= 100, "{} at once", taken.lock().unwrap().len());
    let served = doors.ask(Way::Http3, None, Method::GET, "/ping", "", "").await;
    assert_eq!(served.0, StatusCode::OK, "others are served");
}

#[tokio::test]
async fn a_refusal_that_a_client_has_no_room_for_is_given_up() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "timeout_idle: 500ms\n").await;
    let peer = Peer::connect_without_room(&doors).await;
    let (mut send, mut recv) = peer.quic.open_bi().await.unwrap();
    let target = [field(":method", "CONNECT"), field(":authority", "nowhere.corp.test:22")].concat();
    send.write_all(&frame(HEADERS, &[&[0, 0][..], &target].concat())).await.unwrap();
    let reset = tokio::time::timeout(PATIENCE, recv.received_reset()).await.expect("it is held");
    assert!(reset.unwrap().is_some());
}
