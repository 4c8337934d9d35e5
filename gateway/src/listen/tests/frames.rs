//! HTTP/2 by hand: frames that a well-behaved client never sends, and what the listener answers (RFC 9113, RFC 7541).

use std::fmt;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    wire::{ANSWER, PATIENCE, Witness, end},
    *,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113, 7.
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One field, written out (RFC 7541, 6.2.2).
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length =
        |text: &[u8]| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
    [&[0, length(name)], name, &[length(value)], value].concat()
}

fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", OPEN), (":path", "/it")];

/// A request's head with more fields.
fn head(more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[&PSEUDO, more].concat())
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(&[]))
}

/// A request whose body still has to come.
fn upload(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(&[]))
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// How the listener takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The stream is answered.
    Answer,
    /// The stream alone is reset, or its request answered with 400; the connection goes on.
    Stream,
    /// The connection ends; with GOAWAY and this code, if there is time to say so.
    Connection(u32),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer => f.write_str("an answer"),
            Self::Stream => f.write_str("the stream's end"),
            Self::Connection(code) => write!(f, "the connection's end with {code}"),
        }
    }
}

/// A connection on which frames are written by hand.
struct Peer(tokio_rustls::client::TlsStream<TcpStream>);

impl Peer {
    async fn connect(doors: &Doors) -> Self {
        let mut peer = Self(doors.tcp_to(OPEN, &[b"h2"], None).await);
        peer.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        peer
    }

    /// Whom it displeases closes meanwhile.
    async fn write(&mut self, octets: &[u8]) {
        _ = self.0.write_all(octets).await;
        _ = self.0.flush().await;
    }

    /// The next frame that is no matter of course; `None` at the end.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let reading = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.ok()?;
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.0.read_exact(&mut payload).await.ok()?;
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                match head[3] {
                    SETTINGS if head[4] & ACK == 0 => self.write(&frame(SETTINGS, ACK, 0, &[])).await,
                    SETTINGS | WINDOW_UPDATE => {}
                    kind => return Some((kind, head[4], stream, payload)),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a frame, or the end")
    }

    /// What becomes of `stream`.
    async fn end(&mut self, stream: u32) -> End {
        let mut code = None;
        loop {
            match self.next().await {
                Some((HEADERS, _, id, block)) if id == stream => {
                    // 400 stands in the static table (RFC 7541, A).
                    return if block.first() == Some(&0x8c) { End::Stream } else { End::Answer };
                }
                Some((RST_STREAM, _, id, _)) if id == stream => return End::Stream,
                Some((GOAWAY, _, _, payload)) => {
                    code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
                Some(_) => {}
                None => return End::Connection(code.unwrap_or(0)),
            }
        }
    }
}

/// What is said after the settings, about stream 1, and how that ends.
type Case = (&'static str, Vec<u8>, End);

#[expect(clippy::too_many_lines, reason = "a table")]
fn connection_cases() -> Vec<Case> {
    let long = frame(DATA, 0, 1, &[0; 16_385]);
    let window = |stream, size: u32| frame(WINDOW_UPDATE, 0, stream, &size.to_be_bytes());
    let mut cases = vec![
        ("4.2: DATA above the frame size", [upload(1), long].concat(), End::Connection(SIZE)),
        (
            "4.2: HEADERS above the frame size",
            frame(HEADERS, END_HEADERS, 1, &[0; 16_385]),
            End::Connection(SIZE),
        ),
        (
            "4.3: a block that ends too early",
            frame(HEADERS, 5, 1, &[0x40, 5, b'a']),
            End::Connection(COMPRESSION),
        ),
        (
            "4.3: another frame within a block",
            [frame(HEADERS, 1, 1, &head(&[])), frame(PING, 0, 0, &[0; 8])].concat(),
            End::Connection(PROTOCOL),
        ),
        (
            "4.3: another stream's CONTINUATION",
            [frame(HEADERS, 1, 1, &head(&[])), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            End::Connection(PROTOCOL),
        ),
        (
            "4.3: an unknown frame within a block",
            [frame(HEADERS, 1, 1, &head(&[])), frame(0xee, 0, 1, &[])].concat(),
            End::Connection(PROTOCOL),
        ),
        ("5.1: DATA on an idle stream", frame(DATA, 0, 1, b"x"), End::Connection(PROTOCOL)),
        ("5.1: RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), End::Connection(PROTOCOL)),
        ("5.1: WINDOW_UPDATE on an idle stream", window(1, 1), End::Connection(PROTOCOL)),
        ("5.1.1: a stream of the server's", request(2), End::Connection(PROTOCOL)),
        ("5.1.1: an older stream", [request(5), request(3)].concat(), End::Connection(PROTOCOL)),
        ("6.1: DATA on stream 0", frame(DATA, 0, 0, b"x"), End::Connection(PROTOCOL)),
        (
            "6.1: more padding than payload",
            [upload(1), frame(DATA, PADDED, 1, &[5, 0])].concat(),
            End::Connection(PROTOCOL),
        ),
        ("6.2: HEADERS on stream 0", frame(HEADERS, 5, 0, &head(&[])), End::Connection(PROTOCOL)),
        (
            "6.2: more padding than payload",
            frame(HEADERS, 5 | PADDED, 1, &[200, 0x82]),
            End::Connection(PROTOCOL),
        ),
        ("6.3: PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), End::Connection(PROTOCOL)),
        ("6.4: RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), End::Connection(PROTOCOL)),
        (
            "6.4: a short RST_STREAM",
            [upload(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            End::Connection(SIZE),
        ),
        ("6.5: SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), End::Connection(PROTOCOL)),
        ("6.5: an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0; 6]), End::Connection(SIZE)),
        ("6.5: half a setting", frame(SETTINGS, 0, 0, &[0; 3]), End::Connection(SIZE)),
        ("6.5.2: ENABLE_PUSH of 2", setting(2, 2), End::Connection(PROTOCOL)),
        ("6.5.2: INITIAL_WINDOW_SIZE above the maximum", setting(4, 1 << 31), End::Connection(FLOW)),
        ("6.5.2: MAX_FRAME_SIZE below the minimum", setting(5, 16_383), End::Connection(PROTOCOL)),
        ("6.5.2: MAX_FRAME_SIZE above the maximum", setting(5, 1 << 24), End::Connection(PROTOCOL)),
        (
            "6.6: PUSH_PROMISE of a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            End::Connection(PROTOCOL),
        ),
        ("6.7: PING on a stream", frame(PING, 0, 1, &[0; 8]), End::Connection(PROTOCOL)),
        ("6.7: a short PING", frame(PING, 0, 0, &[0; 6]), End::Connection(SIZE)),
        ("6.8: GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), End::Connection(PROTOCOL)),
        ("6.9: WINDOW_UPDATE of nothing", window(0, 0), End::Connection(PROTOCOL)),
        ("6.9: a short WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), End::Connection(SIZE)),
        (
            "6.9.1: a window above the maximum",
            [window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)].concat(),
            End::Connection(FLOW),
        ),
        (
            "6.10: CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            End::Connection(PROTOCOL),
        ),
        (
            "6.10: CONTINUATION on stream 0",
            frame(CONTINUATION, END_HEADERS, 0, &[]),
            End::Connection(PROTOCOL),
        ),
        ("RFC 7541, 2.3.3: an index of nothing", frame(HEADERS, 5, 1, &[0xc0]), End::Connection(COMPRESSION)),
        ("RFC 7541, 6.1: index 0", frame(HEADERS, 5, 1, &[0x80]), End::Connection(COMPRESSION)),
        (
            "RFC 7541, 6.3: a table above the limit",
            frame(HEADERS, 5, 1, &[0x3f, 0xe2, 0x1f]),
            End::Connection(COMPRESSION),
        ),
        (
            "RFC 7541, 5.1: a number without end",
            frame(HEADERS, 5, 1, &[0xff; 12]),
            End::Connection(COMPRESSION),
        ),
        (
            "RFC 7541, 5.2: padding of a whole octet",
            frame(HEADERS, 5, 1, &[0, 0x81, 0xff, 0x81, 0xff]),
            End::Connection(COMPRESSION),
        ),
    ];
    cases.push((
        "5.1: DATA after the end",
        [request(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
        End::Connection(CLOSED),
    ));
    cases
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn stream_cases() -> Vec<Case> {
    let with = |more: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(more));
    let only = |pairs: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(pairs));
    let window = |size: u32| frame(WINDOW_UPDATE, 0, 1, &size.to_be_bytes());
    let without = |name: &str| {
        let left: Vec<_> = PSEUDO.into_iter().filter(|(pseudo, _)| *pseudo != name).collect();
        only(&left)
    };
    let late = [&PSEUDO[..3], &[("x", "y"), PSEUDO[3]]].concat();
    let body = |length: &str, body: &[u8]| {
        [
            frame(HEADERS, END_HEADERS, 1, &head(&[("content-length", length)])),
            frame(DATA, END_STREAM, 1, body),
        ]
        .concat()
    };
    vec![
        (
            "5.3.1: a stream that depends on itself",
            frame(HEADERS, 5 | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 0], &head(&[])[..]].concat()),
            End::Stream,
        ),
        ("6.9: a stream's WINDOW_UPDATE of nothing", [upload(1), window(0)].concat(), End::Stream),
        (
            "6.9.1: a stream's window above the maximum",
            [upload(1), window(0x7fff_ffff)].concat(),
            End::Stream,
        ),
        (
            "8.1: trailers that do not end the stream",
            [upload(1), frame(HEADERS, END_HEADERS, 1, &fields(&[("x", "y")]))].concat(),
            End::Stream,
        ),
        ("8.1.1: a body shorter than announced", body("2", b"x"), End::Stream),
        ("8.1.1: a body longer than announced", body("1", b"xyz"), End::Stream),
        ("8.1.1: a length and no body", with(&[("content-length", "1")]), End::Stream),
        ("8.2: CR and LF in a value", with(&[("x", "a\r\nx-forged: b")]), End::Stream),
        ("8.2: LF in a value", with(&[("x", "a\nb")]), End::Stream),
        ("8.2: NUL in a value", with(&[("x", "a\0b")]), End::Stream),
        ("8.2: CR and LF in a name", with(&[("x\r\nx-forged", "b")]), End::Stream),
        ("8.2: a colon in a name", with(&[("x:forged", "b")]), End::Stream),
        ("8.2: a blank in a name", with(&[("x forged", "b")]), End::Stream),
        ("8.2: no name", with(&[("", "b")]), End::Stream),
        ("8.2.1: capitals in a name", with(&[("X-Forged", "b")]), End::Stream),
        ("8.2.2: connection", with(&[("connection", "x")]), End::Stream),
        ("8.2.2: transfer-encoding", with(&[("transfer-encoding", "chunked")]), End::Stream),
        ("8.2.2: upgrade", with(&[("upgrade", "websocket")]), End::Stream),
        ("8.2.2: keep-alive", with(&[("keep-alive", "1")]), End::Stream),
        ("8.2.2: proxy-connection", with(&[("proxy-connection", "x")]), End::Stream),
        ("8.2.2: te other than trailers", with(&[("te", "gzip")]), End::Stream),
        ("8.3: an unknown pseudo field", with(&[(":forged", "x")]), End::Stream),
        ("8.3: a pseudo field of answers", only(&[&[(":status", "200")], &PSEUDO[..]].concat()), End::Stream),
        ("8.3: a late pseudo field", only(&late), End::Stream),
        ("8.3: a second path", only(&[&PSEUDO[..], &[(":path", "/other")]].concat()), End::Stream),
        ("8.3: a second method", only(&[&[(":method", "POST")], &PSEUDO[..]].concat()), End::Stream),
        (
            "8.3: a second authority",
            only(&[&[(":authority", "app.corp.test")], &PSEUDO[..]].concat()),
            End::Stream,
        ),
        ("8.3.1: no method", without(":method"), End::Stream),
        ("8.3.1: no scheme", without(":scheme"), End::Stream),
        ("8.3.1: no path", without(":path"), End::Stream),
        ("8.3.1: no authority", without(":authority"), End::Stream),
        ("8.3.1: an empty path", only(&[&PSEUDO[..3], &[(":path", "")]].concat()), End::Stream),
        (
            "8.3.1: a path with a blank",
            only(&[&PSEUDO[..3], &[(":path", "/a HTTP/1.1")]].concat()),
            End::Stream,
        ),
        (
            "8.3.1: a path with CR and LF",
            only(&[&PSEUDO[..3], &[(":path", "/\r\nx: y")]].concat()),
            End::Stream,
        ),
        ("8.3.1: a path without a slash", only(&[&PSEUDO[..3], &[(":path", "it")]].concat()), End::Stream),
        ("8.3.1: another host", with(&[("host", "app.corp.test")]), End::Stream),
        ("8.3: a method that is none", only(&[&[(":method", "G T")], &PSEUDO[1..]].concat()), End::Stream),
        (
            "8.3: an authority with a user",
            only(&[PSEUDO[0], PSEUDO[1], (":authority", "a@open.corp.test"), PSEUDO[3]]),
            End::Stream,
        ),
    ]
}

fn fine_cases() -> Vec<Case> {
    let block = head(&[]);
    let (one, two) = block.split_at(block.len() / 2);
    let split = [frame(HEADERS, END_STREAM, 1, one), frame(CONTINUATION, END_HEADERS, 1, two)].concat();
    let with = |more: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(more));
    vec![
        ("a request", request(1), End::Answer),
        ("4.1: reserved bits and unknown flags", frame(HEADERS, 5 | 0xc2, 1, &block), End::Answer),
        ("4.1: an unknown frame", [frame(0xee, 0xff, 1, b"x"), request(1)].concat(), End::Answer),
        ("4.3: a block in two frames", split, End::Answer),
        (
            "6.1: padding",
            [upload(1), frame(DATA, PADDED | END_STREAM, 1, &[2, b'x', 0, 0])].concat(),
            End::Answer,
        ),
        ("6.2: padding", frame(HEADERS, 5 | PADDED, 1, &[&[1], &block[..], &[0]].concat()), End::Answer),
        ("6.3: a priority", [frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]), request(1)].concat(), End::Answer),
        ("6.5: an unknown setting", [setting(0xfe, 7), request(1)].concat(), End::Answer),
        ("6.5: no header table", [setting(1, 0), request(1)].concat(), End::Answer),
        ("8.1: trailers", [upload(1), frame(HEADERS, 5, 1, &fields(&[("x", "y")]))].concat(), End::Answer),
        (
            "8.1: pseudo fields in trailers change nothing",
            [upload(1), frame(HEADERS, 5, 1, &fields(&[(":path", "/forged")]))].concat(),
            End::Answer,
        ),
        (
            "RFC 8441, 4: an extended CONNECT for nothing known",
            frame(
                HEADERS,
                5,
                1,
                &fields(&[(":method", "CONNECT"), (":protocol", "forged"), PSEUDO[1], PSEUDO[2], PSEUDO[3]]),
            ),
            End::Answer,
        ),
        ("8.2.2: te: trailers", with(&[("te", "trailers")]), End::Answer),
        ("8.2.3: cookies one by one", with(&[("cookie", "a=1"), ("cookie", "b=2")]), End::Answer),
        ("8.3.1: the same host", with(&[("host", OPEN)]), End::Answer),
    ]
}

#[tokio::test]
async fn frames_that_break_the_rules_end_what_they_belong_to_and_reach_no_app() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let mut wrong = Vec::new();
    for (what, octets, expected) in [connection_cases(), stream_cases(), fine_cases()].concat() {
        let before = app.requests().len();
        let mut peer = Peer::connect(&doors).await;
        peer.write(&octets).await;
        let end = peer.end(1).await;
        let fits = match (expected, end) {
            // RFC 9113, 5.4.1: who errs may be told by a mere close, and without the finest word for it.
            (End::Connection(_), End::Connection(0 | PROTOCOL)) => true,
            // RFC 9113, 5.4.2: a stream's error may be treated as the connection's.
            (End::Stream, End::Connection(code)) => code != 0,
            (expected, end) => expected == end,
        };
        if !fits {
            wrong.push(format!("{what}: {end:?} and not {expected:?}"));
        }
        let seen = app.requests().split_off(before);
        if expected == End::Stream && !seen.is_empty() || seen.concat().contains("forged") {
            wrong.push(format!("{what}: the app got {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn nothing_but_what_was_agreed_on_is_spoken() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let http1 = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n").into_bytes();
    let http2 = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request(1)].concat();
    for (agreed, octets) in [
        (&b"h2"[..], http1),
        (b"h2", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
        (b"http/1.1", http2.clone()),
    ] {
        let mut stream = doors.tcp_to(OPEN, &[agreed], None).await;
        stream.write_all(&octets).await.unwrap();
        end(&mut stream).await;
    }
    let mut stream = doors.tcp_to(OPEN, &[], None).await;
    stream.write_all(&http2).await.unwrap();
    end(&mut stream).await;
    assert_eq!(app.requests(), Vec::<String>::new());
}

/// What floods cost is bounded: either the connection ends, or what comes is worked off without being kept.
#[tokio::test]
async fn floods_end_the_connection() {
    let doors = Doors::open().await;
    let _app = Witness::behind(&doors, ANSWER);
    // CVE-2023-44487: requests that are taken back at once.
    let rapid_reset = (0..20_000_u32)
        .flat_map(|n| [request(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat());
    // CVE-2025-8671: requests that make the server reset them.
    let made_you_reset = (0..20_000_u32)
        .flat_map(|n| [upload(2 * n + 1), frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])].concat());
    // CVE-2024-27316 and its like: a head that has no end.
    let first = frame(HEADERS, END_STREAM, 1, &head(&[]));
    let more = fields(&[("x", "y")].repeat(100));
    let continuations = first.into_iter().chain((0..20_000).flat_map(|_| frame(CONTINUATION, 0, 1, &more)));
    let empty = frame(HEADERS, END_STREAM, 1, &head(&[]))
        .into_iter()
        .chain((0..200_000).flat_map(|_| frame(CONTINUATION, 0, 1, &[])));
    for (what, flood) in [
        ("rapid reset", rapid_reset.collect::<Vec<u8>>()),
        ("made you reset", made_you_reset.collect()),
        ("CONTINUATION", continuations.collect()),
        ("empty CONTINUATION", empty.collect()),
    ] {
        let mut peer = Peer::connect(&doors).await;
        let (mut reader, mut writer) = tokio::io::split(peer.0);
        let writing = async move {
            _ = writer.write_all(&flood).await;
            _ = writer.flush().await;
            writer
        };
        let (_writer, ()) = tokio::join!(writing, end(&mut reader));
        _ = what;
        peer = Peer::connect(&doors).await;
        peer.write(&request(1)).await;
        assert_eq!(peer.end(1).await, End::Answer, "others are served after {what}");
    }
}

/// CVE-2026-47774: ten thousand octets that stand for forty million are not spread out, nor handed on.
#[tokio::test]
async fn a_small_head_that_unpacks_to_a_huge_one_is_refused() {
    // RFC 7541, 6.2.1 and 6.1: a cookie of 4000 octets for the table, and the same again by its index.
    let cookie = [&[0x40, 6][..], b"cookie", &[0x7f, 0xa1, 0x1e], &[b'x'; 4000]].concat();
    let packed = [head(&[]), cookie, vec![0xbe; 10_000]].concat();
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let mut peer = Peer::connect(&doors).await;
    peer.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &packed)).await;
    let end = peer.end(1).await;
    assert_eq!(app.requests(), Vec::<String>::new(), "{end:?}");
    let mut peer = Peer::connect(&doors).await;
    peer.write(&request(1)).await;
    assert_eq!(peer.end(1).await, End::Answer, "others are served");
}

/// CVE-2019-9512, CVE-2019-9515: answers that nobody reads are not piled up; reading stops until they are.
#[tokio::test]
async fn answers_to_pings_and_settings_that_nobody_reads_are_not_piled_up() {
    let doors = Doors::open().await;
    for octets in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut peer = Peer::connect(&doors).await;
        let flood = octets.repeat(4096);
        // Far more than the kernel's buffers hold: either the peer is cut, or its writes stop.
        let mut bursts = 0;
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(3), peer.0.write_all(&flood)).await {
            bursts += 1;
            assert!(bursts < 1024, "everything was taken, and answers pile up");
        }
    }
}
