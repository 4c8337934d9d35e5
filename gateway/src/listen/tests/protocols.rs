//! What browsers and programs speak beside plain requests, from the client's bytes to the app's and back.

use bytes::Buf as _;
use futures_util::{StreamExt as _, future::poll_fn, stream};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyDataStream, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use pomerium_shared::tunnel::{Chunks, h3_quinn};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    wire::{ANSWER, PATIENCE, Witness, end, running, statuses},
    *,
};

pub(super) type Sent = StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, std::convert::Infallible>>>;

/// A body of these frames.
pub(super) fn body(frames: Vec<Frame<Bytes>>) -> Sent {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok)).boxed())
}

pub(super) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
    Frame::trailers(pairs.collect())
}

pub(super) async fn over_http2(
    doors: &Doors,
    host: &'static str,
    request: Request<Sent>,
) -> Response<Incoming> {
    let stream = doors.tcp_to(host, &[b"h2"], None).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    doors.tracker.spawn(connection);
    tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer").unwrap()
}

/// An HTTP/3 stream to an app; the connection lives as long as this.
pub(super) struct OverHttp3 {
    pub(super) stream: h3::client::RequestStream<h3_quinn::BidiStream<Chunks>, Chunks>,
    _sender: h3::client::SendRequest<h3_quinn::OpenStreams, Chunks>,
    _driver: JoinSet<()>,
    _endpoint: quinn::Endpoint,
}

/// Sends a request's head to the open app, and no more.
pub(super) async fn over_http3(doors: &Doors, head: http::request::Builder) -> OverHttp3 {
    over_http3_to(doors, OPEN, head).await
}

/// Sends a request's head to an app, and no more.
pub(super) async fn over_http3_to(doors: &Doors, host: &str, head: http::request::Builder) -> OverHttp3 {
    let config = pomerium_shared::quic::client_config(doors.tls(&[b"h3"], None)).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let quic = endpoint.connect_with(config, doors.address, host).unwrap().await.unwrap();
    let (mut driver, mut sender) =
        h3::client::builder().build(h3_quinn::Connection::new(quic)).await.unwrap();
    let driven = running(async move { _ = poll_fn(|context| driver.poll_close(context)).await });
    let request = head.uri(format!("https://{host}/")).body(()).unwrap();
    let stream = sender.send_request(request).await.unwrap();
    OverHttp3 { stream, _sender: sender, _driver: driven, _endpoint: endpoint }
}

/// Reads a head, and whatever came with it.
pub(super) async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    let reading = async {
        while !got.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "{:?}", String::from_utf8_lossy(&got));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("a head");
    String::from_utf8(got).unwrap()
}

/// An app that answers each handshake as `answer` says of its key, and gives back what comes after.
pub(super) fn socket_app(doors: &Doors, answer: impl Fn(&str) -> String + Send + 'static) -> JoinSet<()> {
    let app = doors.app.clone();
    running(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            let head = head(&mut stream).await;
            assert!(head.starts_with("GET /socket HTTP/1.1\r\n"), "{head}");
            for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"] {
                assert!(head.lines().any(|written| written == line), "{head}");
            }
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
            _ = stream.write_all(answer(key).as_bytes()).await;
            let (mut reader, mut writer) = stream.split();
            _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    })
}

/// RFC 6455, 4.2.2.
pub(super) fn accept(key: &str) -> String {
    use base64::Engine as _;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}

fn extended(origin: &str) -> Request<Sent> {
    Request::connect(format!("https://{OPEN}/socket"))
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header(header::ORIGIN, origin)
        .body(body(vec![]))
        .unwrap()
}

#[tokio::test]
async fn a_websocket_on_a_stream_of_http2_is_one_to_the_app_and_only_for_pages_from_here() {
    let doors = Doors::open().await;
    let _app = socket_app(&doors, |key| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            accept(key)
        )
    });
    let response = over_http2(&doors, OPEN, extended("https://evil.test")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);

    let mut response = over_http2(&doors, OPEN, extended(&format!("https://{OPEN}"))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    socket.write_all(b"\x81\x85\0\0\0\0hello").await.unwrap();
    let mut echo = [0; 11];
    tokio::time::timeout(PATIENCE, socket.read_exact(&mut echo)).await.unwrap().unwrap();
    assert_eq!(&echo, b"\x81\x85\0\0\0\0hello");
    socket.shutdown().await.unwrap();
    end(&mut socket).await;
}

#[tokio::test]
async fn an_app_that_opens_no_websocket_opens_no_stream() {
    let doors = Doors::open().await;
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
    ] {
        let app = socket_app(&doors, move |_| answer.to_owned());
        let response = over_http2(&doors, OPEN, extended(&format!("https://{OPEN}"))).await;
        assert_eq!(response.status().as_u16(), status);
        drop(app);
    }
}

/// Some of the trailers are for the browser, others would speak for the gateway or come too late.
const WITH_TRAILERS: &str = "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
     2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Pomerium-Forged: 1\r\nSet-Cookie: _pomerium=tossed\r\nContent-Length: 9\r\n\r\n";

#[tokio::test]
async fn an_answers_trailers_arrive_over_every_protocol_and_say_nothing_for_the_gateway() {
    let doors = Doors::open().await;
    let _app = Witness::behind(&doors, WITH_TRAILERS);
    let only_sum = |trailers: &HeaderMap| {
        assert!(trailers.len() == 1 && trailers["x-sum"] == "7", "{trailers:?}");
    };

    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\nTE: trailers\r\nConnection: te, close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap();
    assert!(text.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{text}");

    let request = Request::get(format!("https://{OPEN}/")).body(body(vec![])).unwrap();
    let answer = over_http2(&doors, OPEN, request).await.into_body().collect().await.unwrap();
    only_sum(answer.trailers().unwrap());

    let mut h3 = over_http3(&doors, Request::builder()).await;
    let stream = &mut h3.stream;
    stream.finish().await.unwrap();
    assert_eq!(stream.recv_response().await.unwrap().status(), StatusCode::OK);
    while stream.recv_data().await.unwrap().is_some() {}
    only_sum(&stream.recv_trailers().await.unwrap().unwrap());
}

#[tokio::test]
async fn a_requests_trailers_arrive_without_what_only_the_gateway_may_say() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let after =
        [("x-sum", "7"), ("x-pomerium-jwt-assertion", "forged"), ("x_sum", "forged"), ("host", "forged")];

    let request = Request::post(format!("https://{OPEN}/")).header(header::TRAILER, "x-sum");
    let request = request.body(body(vec![data("ok"), trailers(&after)])).unwrap();
    assert_eq!(over_http2(&doors, OPEN, request).await.status(), StatusCode::OK);

    let lines: String = after.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {OPEN}\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{lines}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(statuses(&mut stream, 1).await.0, [200]);

    let mut h3 =
        over_http3(&doors, Request::builder().method(Method::POST).header(header::TRAILER, "x-sum")).await;
    h3.stream.send_data(Bytes::from_static(b"ok").into()).await.unwrap();
    h3.stream.send_trailers(trailers(&after).into_trailers().unwrap()).await.unwrap();
    h3.stream.finish().await.unwrap();
    assert_eq!(h3.stream.recv_response().await.unwrap().status(), StatusCode::OK);

    for request in app.requests() {
        assert!(request.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{request}");
    }
    assert_eq!(app.requests().len(), 3);
}

/// A gRPC app: says each message again as it comes, and at the end that all is well.
async fn echo(request: Request<Incoming>) -> Result<Response<Sent>, std::convert::Infallible> {
    assert_eq!(request.headers()[header::TE], "trailers");
    let content_type = request.headers()[header::CONTENT_TYPE].clone();
    let said = BodyDataStream::new(request.into_body()).map(|piece| Ok(Frame::data(piece.unwrap())));
    let end = stream::once(async { Ok(trailers(&[("grpc-status", "0"), ("grpc-message", "fine")])) });
    let response = Response::builder().header(header::CONTENT_TYPE, content_type);
    Ok(response.body(StreamBody::new(said.chain(end).boxed())).unwrap())
}

#[tokio::test]
async fn a_grpc_call_talks_both_ways_at_once_and_ends_with_its_status() {
    let doors = Doors::open().await;
    let (app, tracker) = (doors.app.clone(), doors.tracker.clone());
    let _app = running(async move {
        while let Ok((stream, _)) = app.accept().await {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tracker.spawn(builder.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    for content_type in ["application/grpc", "application/grpc-web+proto"] {
        let (say, said) = mpsc::channel::<Bytes>(1);
        let said = stream::unfold(said, |mut said| async move {
            said.recv().await.map(|piece| (Ok(Frame::data(piece)), said))
        });
        let request = Request::post(format!("https://{RPC}/service/method"))
            .header(header::CONTENT_TYPE, content_type)
            .header(header::TE, "trailers")
            .body(StreamBody::new(said.boxed()))
            .unwrap();
        let response = over_http2(&doors, RPC, request).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
        let mut answer = response.into_body();
        // Each message is said only when the one before has come back.
        for message in [&b"\0\0\0\0\x01a"[..], b"\0\0\0\0\x01b", b"\x80\0\0\0\x01c"] {
            say.send(Bytes::from_static(message)).await.unwrap();
            let frame = tokio::time::timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message);
        }
        drop(say);
        let end = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(
            (&end["grpc-status"], &end["grpc-message"]),
            (&"0".parse().unwrap(), &"fine".parse().unwrap())
        );
    }
}

/// An app that sends one event each time that it is told to.
fn event_app(doors: &Doors) -> (mpsc::Sender<()>, JoinSet<()>) {
    let (tick, mut ticks) = mpsc::channel(1);
    let app = doors.app.clone();
    let task = running(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            head(&mut stream).await;
            let begin =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(begin.as_bytes()).await.unwrap();
            for _ in 0..3 {
                ticks.recv().await.unwrap();
                stream.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    });
    (tick, task)
}

#[tokio::test]
async fn each_event_of_an_app_comes_at_once_over_every_protocol() {
    let doors = Doors::open().await;
    let (tick, _app) = event_app(&doors);

    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n").as_bytes()).await.unwrap();
    let begin = head(&mut stream).await;
    assert!(begin.ends_with("\r\n\r\n"), "{begin}");
    for _ in 0..3 {
        tick.send(()).await.unwrap();
        let mut event = [0; 14];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut event)).await.unwrap().unwrap();
        assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
    }

    let request = Request::get(format!("https://{OPEN}/")).body(body(vec![])).unwrap();
    let mut answer = over_http2(&doors, OPEN, request).await.into_body();
    for _ in 0..3 {
        tick.send(()).await.unwrap();
        let event = tokio::time::timeout(PATIENCE, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.into_data().unwrap(), "data: 1\n\n");
    }

    let mut h3 = over_http3(&doors, Request::builder()).await;
    let stream = &mut h3.stream;
    stream.finish().await.unwrap();
    stream.recv_response().await.unwrap();
    for _ in 0..3 {
        tick.send(()).await.unwrap();
        let mut event = tokio::time::timeout(PATIENCE, stream.recv_data()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.copy_to_bytes(event.remaining()), "data: 1\n\n");
    }
}

#[tokio::test]
async fn who_asks_before_sending_a_body_is_told_to_go_on_or_why_not() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    let asks = |host| {
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    };
    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    stream.write_all(asks(OPEN).as_bytes()).await.unwrap();
    assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").await.unwrap();
    assert_eq!(statuses(&mut stream, 1).await.0, [200]);
    assert!(app.requests()[0].ends_with("\r\n\r\nok"));

    let mut stream = doors.tcp_to(HOST, &[b"http/1.1"], None).await;
    stream.write_all(asks(HOST).as_bytes()).await.unwrap();
    assert_eq!(statuses(&mut stream, 1).await.0, [401], "nobody sends a body to be refused");
}

#[tokio::test]
async fn range_and_conditional_requests_are_the_apps_matter() {
    let doors = Doors::open().await;
    let fields = "Range: bytes=1-2\r\nIf-Range: \"a\"\r\nIf-None-Match: \"b\", W/\"c\"\r\nIf-Modified-Since: x\r\nAccept-Encoding: br\r\n";
    for answer in [
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nETag: \"a\"\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 304 Not Modified\r\nETag: W/\"c\"\r\n\r\n",
        "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n",
    ] {
        let app = Witness::behind(&doors, answer);
        let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut got = String::new();
        _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut got)).await.unwrap();
        for line in answer.split("\r\n") {
            assert!(got.to_ascii_lowercase().contains(&line.to_ascii_lowercase()), "{line}: {got}");
        }
        let seen = app.requests()[0].to_ascii_lowercase();
        for line in fields.split("\r\n") {
            assert!(seen.contains(&line.to_ascii_lowercase()), "{line}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "timeout_read: 500ms\n").await;
    let app = Witness::behind(&doors, ANSWER);
    let mut stream = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    let request = format!("POST / HTTP/1.1\r\nHost: {OPEN}\r\nContent-Length: 3\r\n\r\nab");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (statuses, text) = statuses(&mut stream, 2).await;
    assert_eq!(statuses, [408], "{text}");
    assert_eq!(app.requests(), Vec::<String>::new());

    let (_say, said) = mpsc::channel::<Bytes>(1);
    let silent = stream::unfold(said, |mut said| async move {
        said.recv().await.map(|piece| (Ok(Frame::data(piece)), said))
    });
    let request = Request::post(format!("https://{OPEN}/")).body(StreamBody::new(silent.boxed())).unwrap();
    assert_eq!(over_http2(&doors, OPEN, request).await.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_does_not_look_whole() {
    let doors = Doors::open().await;
    let _app = Witness::behind(&doors, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok");
    let request = Request::get(format!("https://{BRIEF}/")).body(body(vec![])).unwrap();
    let response = over_http2(&doors, BRIEF, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let collected = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.expect("an end");
    assert!(collected.is_err(), "the stream is reset");
}

#[tokio::test]
async fn fields_of_a_connection_have_no_place_in_http3() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("te", "gzip"),
        ("content-length", "x"),
        ("content-length", "+1"),
    ] {
        let mut h3 = over_http3(&doors, Request::builder().header(name, value)).await;
        // The answer may come before the end of what is sent.
        _ = h3.stream.finish().await;
        assert_eq!(
            h3.stream.recv_response().await.unwrap().status(),
            StatusCode::BAD_REQUEST,
            "{name}: {value}"
        );
    }
    let twice =
        Request::builder().method(Method::POST).header("content-length", "1").header("content-length", "2");
    let mut h3 = over_http3(&doors, twice).await;
    assert_eq!(h3.stream.recv_response().await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(app.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_head_has_a_thousand_fields_at_most() {
    let doors = Doors::open().await;
    let _app = Witness::behind(&doors, ANSWER);
    // Over HTTP/1 the host is a field as well.
    for (fields, status) in [(1_000, 200), (1_001, 431)] {
        let mut client = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
        let more = "X: a\r\n".repeat(fields - 1);
        let request = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n{more}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(statuses(&mut client, 1).await.0, [status], "{fields} over HTTP/1");
        let request =
            (0..fields).fold(Request::get(format!("https://{OPEN}/")), |all, _| all.header("x", "a"));
        let response = over_http2(&doors, OPEN, request.body(body(vec![])).unwrap()).await;
        assert_eq!(response.status().as_u16(), status, "{fields} over HTTP/2");
    }
}

#[tokio::test]
async fn a_connection_of_http2_serves_the_host_that_it_was_opened_for_and_no_other() {
    let doors = Doors::open().await;
    let app = Witness::behind(&doors, ANSWER);
    // The certificate is for all of them: a browser may come by the same connection, and is sent away (RFC 9113, 9.1.2).
    for (authority, status) in [
        ("app.corp.test", 421),
        ("app.corp.test:443", 421),
        ("open.corp.test.", 421),
        ("OPEN.corp.test:443", 200),
    ] {
        let request = Request::get(format!("https://{authority}/")).body(body(vec![])).unwrap();
        let response = over_http2(&doors, OPEN, request).await;
        assert_eq!(response.status().as_u16(), status, "{authority}");
    }
    let contradicts = Request::get(format!("https://{OPEN}/")).header(header::HOST, "app.corp.test");
    let response = over_http2(&doors, OPEN, contradicts.body(body(vec![])).unwrap()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(app.lines(), ["GET / HTTP/1.1"]);
}

#[tokio::test]
async fn browsers_are_told_of_http3_where_it_is_and_it_is_there() {
    let doors = Doors::open().await;
    let _app = Witness::behind(&doors, ANSWER);
    let port = doors.address.port();
    let said = format!("h3=\":{port}\"; ma=86400");
    let mut client = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (_, text) = statuses(&mut client, 1).await;
    assert!(text.contains(&format!("\r\nalt-svc: {said}\r\n")), "{text}");
    let request = Request::get(format!("https://{OPEN}/")).body(body(vec![])).unwrap();
    let response = over_http2(&doors, OPEN, request).await;
    assert_eq!(response.headers()[header::ALT_SVC], said);
    let mut there = over_http3(&doors, Request::builder()).await;
    there.stream.finish().await.unwrap();
    assert_eq!(there.stream.recv_response().await.unwrap().status(), StatusCode::OK);
}
