//! What a WebSocket carries through the gateway, octet for octet: the cases that Autobahn's test suite is made of, each told to a
//! strict server directly and through the gateway, which must make no difference.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use support::{
    gateway::{Gateway, Route},
    http::{raw, secure},
    http3::Http3,
    person::Person,
    strict_websocket::StrictWebSocket,
    wait,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

/// RFC 6455, 5.2.
const LAST: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// RFC 7692, 6: the message is compressed.
const COMPRESSED: u8 = 0x40;

const COMPRESSION: &str = "permessage-deflate; client_max_window_bits";

/// What a client sends once the handshake is done.
struct Case {
    name: String,
    steps: Vec<Step>,
    compresses: bool,
}

/// What it sends in one go, once it has heard so many frames: an app need not answer a message after it has heard the end.
struct Step {
    after: usize,
    octets: Vec<u8>,
}

impl Case {
    /// Begins with these, in one piece.
    fn new(name: impl Into<String>, frames: &[Vec<u8>]) -> Self {
        let first = Step { after: 0, octets: frames.concat() };
        Self { name: name.into(), steps: vec![first], compresses: false }
    }

    /// Hears so many more frames, and goes on with these.
    fn hear(mut self, count: usize, frames: &[Vec<u8>]) -> Self {
        let after = self.steps.last().map_or(0, |last| last.after) + count;
        self.steps.push(Step { after, octets: frames.concat() });
        self
    }

    /// The same, in pieces of so many octets.
    fn chopped(mut self, len: usize) -> Self {
        let pieces = self.steps.iter().flat_map(|step| {
            step.octets.chunks(len).map(|octets| Step { after: step.after, octets: octets.to_vec() })
        });
        self.steps = pieces.collect();
        _ = write!(self.name, ", in pieces of {len}");
        self
    }

    fn compressed(mut self) -> Self {
        self.compresses = true;
        self
    }
}

/// A client's frame. `first` is FIN, the reserved bits and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let len = payload.len();
    let mut frame = vec![first];
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if len < 126 => frame.push(0x80 | len),
        (_, Ok(len)) => {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    frame
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(LAST | TEXT, payload)
}

fn close() -> Vec<u8> {
    frame(LAST | CLOSE, &1000_u16.to_be_bytes())
}

/// As deflate's stored blocks have it, without the end that RFC 7692, 7.2.1 takes off.
fn stored(payload: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    for part in payload.chunks(usize::from(u16::MAX)) {
        let len = u16::try_from(part.len()).unwrap_or(u16::MAX);
        blocks.push(0);
        blocks.extend(len.to_le_bytes());
        blocks.extend((!len).to_le_bytes());
        blocks.extend(part);
    }
    blocks.push(0);
    blocks
}

/// Groups 1 and 9: lengths at each edge of the format, and large ones.
fn messages() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, opcode, octet) in [("text", TEXT, b'*'), ("binary", BINARY, 0xfe)] {
        for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20, 4 << 20] {
            let message = frame(LAST | opcode, &vec![octet; len]);
            cases.push(Case::new(format!("{kind} of {len}"), &[message]).hear(1, &[close()]));
        }
        let message = frame(LAST | opcode, &vec![octet; 65_536]);
        cases.push(Case::new(kind, &[message]).hear(1, &[close()]).chopped(997));
        let parts = vec![octet; 1 << 20];
        let mut frames = vec![frame(opcode, b"")];
        frames.extend(parts.chunks(4096).map(|part| frame(CONTINUATION, part)));
        frames.push(frame(LAST | CONTINUATION, b""));
        cases.push(Case::new(format!("{kind} in 256 fragments"), &frames).hear(1, &[close()]));
    }
    cases
}

/// Groups 2 and 5: control frames, alone, among fragments, and fragments in the wrong order.
fn control_and_fragments() -> Vec<Case> {
    let ping = |payload: &[u8]| frame(LAST | PING, payload);
    let (begin, end) = (|payload| frame(TEXT, payload), |payload| frame(LAST | CONTINUATION, payload));
    let mut cases = vec![
        Case::new("ten pings", &[ping(b"payload").repeat(10)]).hear(10, &[close()]),
        Case::new("ten pings", &[ping(b"payload").repeat(10)]).hear(10, &[close()]).chopped(1),
        Case::new("a pong unasked", &[frame(LAST | PONG, b"unasked"), ping(b"x")]).hear(1, &[close()]),
        Case::new("a fragmented ping", &[frame(PING, b"a"), end(b"b")]),
        Case::new("a fragmented pong", &[frame(PONG, b"a"), end(b"b")]),
        Case::new("two fragments", &[begin(b"one"), end(b"two")]).hear(1, &[close()]),
        Case::new("two fragments", &[begin(b"one"), end(b"two")]).hear(1, &[close()]).chopped(1),
        Case::new("a ping between fragments", &[begin(b"one"), ping(b"p"), end(b"two")]).hear(2, &[close()]),
        Case::new("a continuation of nothing", &[end(b"two")]),
        Case::new("a continuation after a message", &[text(b"one")]).hear(1, &[frame(CONTINUATION, b"two")]),
        Case::new("a message between fragments", &[begin(b"one"), text(b"two")]),
    ];
    for len in [0, 1, 125, 126] {
        cases.push(Case::new(format!("ping of {len}"), &[ping(&vec![0xfe; len])]).hear(1, &[close()]));
    }
    cases
}

/// Groups 3 and 4: what is reserved must come to the app, which refuses it, and not be taken for something else.
fn reserved() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..=7_u8 {
        let bit = bits << 4;
        cases.push(Case::new(
            format!("reserved bits {bits}"),
            &[text(b"good"), frame(LAST | bit | TEXT, b"x")],
        ));
        cases.push(Case::new(format!("reserved bits {bits} on a ping"), &[frame(LAST | bit | PING, b"x")]));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        for payload in [&b""[..], b"with a payload"] {
            let case = Case::new(format!("opcode {opcode} with {} octets", payload.len()), &[text(b"good")]);
            cases.push(case.hear(1, &[frame(LAST | opcode, payload)]));
        }
    }
    cases
}

/// Group 6: texts that are UTF-8, and texts that are not.
fn utf8() -> Vec<Case> {
    let good = "Hello-µ@ßöäüàá-UTF-8!! \u{10ffff}\u{0}\u{fffe}".as_bytes();
    let (front, back) = good.split_at(7);
    let mut cases = vec![
        Case::new("UTF-8 split within a character", &[frame(TEXT, front), frame(LAST | CONTINUATION, back)])
            .hear(1, &[close()]),
        Case::new("UTF-8", &[text(good)]).hear(1, &[close()]).chopped(1),
    ];
    for bad in [
        &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"[..],
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xfe",
        b"\xff",
        b"\xe2\x82",
        b"\x80",
    ] {
        cases.push(Case::new(format!("no UTF-8: {bad:x?}"), &[text(bad)]));
        let halves = bad.split_at(bad.len() / 2);
        let frames = [frame(TEXT, halves.0), frame(LAST | CONTINUATION, halves.1)];
        cases.push(Case::new(format!("no UTF-8 in fragments: {bad:x?}"), &frames));
    }
    cases
}

/// Group 7: the end, as it may be said and as it may not.
fn closing() -> Vec<Case> {
    let with = |code: u16, reason: &[u8]| frame(LAST | CLOSE, &[&code.to_be_bytes(), reason].concat());
    let mut cases = vec![
        Case::new("a message and the end", &[text(b"x")]).hear(1, &[close()]),
        Case::new("the end twice", &[close(), close()]),
        Case::new("the end without a code", &[frame(LAST | CLOSE, b"")]),
        Case::new("the end with half a code", &[frame(LAST | CLOSE, b"\x03")]),
        Case::new("the end with a reason", &[with(1000, b"done")]),
        Case::new("the end with the longest reason", &[with(1000, &[b'*'; 123])]),
        Case::new("the end with too long a reason", &[with(1000, &[b'*'; 124])]),
        Case::new("the end with a reason that is no UTF-8", &[with(1000, b"\xce\xba\xed\xa0\x80")]),
    ];
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let bad = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in good.into_iter().chain(bad) {
        cases.push(Case::new(format!("the end with code {code}"), &[with(code, b"")]));
    }
    cases
}

/// Groups 12 and 13: compressed messages, agreed on through the gateway.
fn compressed() -> Vec<Case> {
    let message = |payload: &[u8]| frame(LAST | COMPRESSED | TEXT, &stored(payload));
    let words = b"what is said twice is said twice ".repeat(4000);
    vec![
        Case::new("compressed", &[message(b"Hello"), message(b"Hello")]).hear(2, &[close()]).compressed(),
        Case::new("compressed, long", &[message(&words)]).hear(1, &[close()]).compressed(),
        Case::new("compressed, long", &[message(&words)]).hear(1, &[close()]).chopped(997).compressed(),
        Case::new("compressed and plain", &[message(b"one"), text(b"two")]).hear(2, &[close()]).compressed(),
        Case::new("compressed badly", &[frame(LAST | COMPRESSED | TEXT, b"\xff\xff\xff")]).compressed(),
        Case::new("compressed unasked", &[message(b"Hello")]),
    ]
}

/// What came of a case: the extensions agreed on, and all octets until the end.
type Outcome = (Option<String>, Vec<u8>);

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, case: &Case) -> anyhow::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (count, mut counted) = watch::channel(0);
    let send = async {
        for step in &case.steps {
            // A server that has heard enough need not listen to the rest, nor say more.
            if counted.wait_for(|count| *count >= step.after).await.is_err()
                || writer.write_all(&step.octets).await.is_err()
                || writer.flush().await.is_err()
            {
                break;
            }
        }
    };
    let receive = async move {
        let mut heard = Vec::new();
        // A reset is an end as well.
        while reader.read_buf(&mut heard).await.is_ok_and(|len| len > 0) {
            count.send_replace(whole_frames(&heard));
        }
        heard
    };
    let ((), heard) = wait::within(&case.name, async { tokio::join!(send, receive) }).await?;
    Ok(heard)
}

/// How many frames of a server are there as a whole.
fn whole_frames(mut octets: &[u8]) -> usize {
    let mut count = 0;
    while let [_, len, rest @ ..] = octets {
        let (len, rest) = match (len, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [0, 0, 0, 0, a, b, c, d, rest @ ..]) => {
                (u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest)
            }
            (len @ 0..126, rest) => (usize::from(*len), rest),
            _ => break,
        };
        let Some(rest) = rest.get(len..) else { break };
        (octets, count) = (rest, count + 1);
    }
    count
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn offered(case: &Case) -> String {
    if case.compresses { format!("Sec-WebSocket-Extensions: {COMPRESSION}\r\n") } else { String::new() }
}

fn agreed(head: &str) -> anyhow::Result<Option<String>> {
    anyhow::ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
    Ok(found.map(|(_, value)| value.to_owned()))
}

async fn directly(server: SocketAddr, case: &Case) -> anyhow::Result<Outcome> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {server}\r\n{HANDSHAKE}{}\r\n", offered(case));
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let agreed = agreed(&String::from_utf8(head)?)?;
    Ok((agreed, talk(stream, case).await?))
}

/// The way to the gateway, as alice.
struct Way {
    port: u16,
    token: String,
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    h3: Http3,
}

impl Way {
    async fn over_http1(&self, case: &Case) -> anyhow::Result<Outcome> {
        let Self { port, token, h1, .. } = self;
        let offered = offered(case);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: app.localhost:{port}\r\nAuthorization: Pomerium {token}\r\n{HANDSHAKE}{offered}\r\n"
        );
        let (head, stream) = raw(h1, *port, "app.localhost", &request).await?;
        Ok((agreed(&head)?, talk(stream, case).await?))
    }

    async fn over_http2(&self, case: &Case) -> anyhow::Result<Outcome> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let stream = TokioIo::new(secure(&self.h2, tcp, "app.localhost").await?);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::connect(format!("https://app.localhost:{}/", self.port))
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header(header::AUTHORIZATION, format!("Pomerium {}", self.token));
        if case.compresses {
            request = request.header("sec-websocket-extensions", COMPRESSION);
        }
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
        anyhow::ensure!(response.status() == 200, "{response:?}");
        let agreed = response.headers().get("sec-websocket-extensions");
        let agreed = agreed.map(|value| value.to_str().map(str::to_owned)).transpose()?;
        let stream = hyper::upgrade::on(response).await.context("no stream")?;
        Ok((agreed, talk(TokioIo::new(stream), case).await?))
    }

    async fn over_http3(&self, case: &Case) -> anyhow::Result<Outcome> {
        let token = format!("Pomerium {}", self.token);
        let mut fields = vec![("authorization", token.as_str())];
        if case.compresses {
            fields.push(("sec-websocket-extensions", COMPRESSION));
        }
        let mut socket = self.h3.websocket(&format!("app.localhost:{}", self.port), &fields).await?;
        let mut agreed = std::mem::take(&mut socket.fields).into_iter();
        let agreed = agreed.find(|(name, _)| name == "sec-websocket-extensions").map(|(_, value)| value);
        Ok((agreed, talk(&mut socket.stream, case).await?))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_websocket_carries_arrives_octet_for_octet() {
    let server = StrictWebSocket::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", server.address)]).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let token = alice.token(&gateway.url("app.localhost").unwrap()).await.unwrap();
    let tls = |protocol: &'static [u8]| gateway.authority.client_config(&[protocol]).unwrap();
    let h3 = Http3::connect(&tls(b"h3"), gateway.port, "app.localhost").await.unwrap();
    let way = Way { port: gateway.port, token, h1: tls(b"http/1.1"), h2: tls(b"h2"), h3 };
    let groups = [messages(), control_and_fragments(), reserved(), utf8(), closing(), compressed()];
    let mut failed_by_app = 0;
    for case in groups.into_iter().flatten() {
        let (direct, http1, http2, http3) = tokio::join!(
            directly(server.address, &case),
            way.over_http1(&case),
            way.over_http2(&case),
            way.over_http3(&case)
        );
        let direct = direct.unwrap();
        assert!(!direct.1.is_empty(), "{}: the server says how it ends", case.name);
        for (protocol, through) in [("HTTP/1.1", http1), ("HTTP/2", http2), ("HTTP/3", http3)] {
            let through = through.with_context(|| format!("{} over {protocol}", case.name)).unwrap();
            assert_eq!(through.0, direct.0, "{} over {protocol}", case.name);
            // Megabytes would hide the name of the case.
            let (ours, theirs) = (tail(&through.1), tail(&direct.1));
            assert!(through.1 == direct.1, "{} over {protocol}: {ours:x?}, directly: {theirs:x?}", case.name);
        }
        // 1002 and 1007: the protocol was violated, or a text is none.
        let code =
            direct.1.windows(4).any(|end| end[0] == LAST | CLOSE && matches!(end[2..], [0x03, 0xea | 0xef]));
        failed_by_app += u32::from(code);
    }
    assert!(failed_by_app > 50, "only {failed_by_app} violations were seen by the app");
}

fn tail(octets: &[u8]) -> &[u8] {
    &octets[octets.len().saturating_sub(60)..]
}
