//! What is held for clients and apps that take nothing, or less than they are sent.

use pomerium_shared::tunnel::h3_quinn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    protocols::{Sent, body, head, over_http2, over_http3},
    wire::{ANSWER, PATIENCE, running, statuses},
    *,
};

/// More than all buffers on the way hold.
const LARGE: usize = 64 * 1024 * 1024;

/// Writes until nothing moves any more, and says how much went.
async fn written_until_stuck(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) -> usize {
    let (piece, mut written) = (vec![0; 16 * 1024], 0);
    while written < LARGE
        && let Ok(result) = tokio::time::timeout(Duration::from_secs(3), stream.write(&piece)).await
    {
        written += result.unwrap();
    }
    written
}

#[tokio::test]
async fn of_a_large_answer_no_more_is_taken_than_the_client_reads() {
    let doors = Doors::open().await;
    let app = doors.app.clone();
    let (stuck, is_stuck) = tokio::sync::oneshot::channel();
    let _app = running(async move {
        let (mut stream, _) = app.accept().await.unwrap();
        head(&mut stream).await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let written = written_until_stuck(&mut stream).await;
        stuck.send(written).unwrap();
        stream.write_all(&vec![0; LARGE - written]).await.unwrap();
    });
    let request = Request::get(format!("https://{OPEN}/")).body(body(vec![])).unwrap();
    let mut answer = over_http2(&doors, OPEN, request).await.into_body();
    assert!(is_stuck.await.unwrap() < LARGE, "the gateway took all of it");
    let mut length = 0;
    while let Some(frame) = tokio::time::timeout(PATIENCE, answer.frame()).await.unwrap() {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, LARGE);
}

#[tokio::test]
async fn of_a_large_upload_no_more_is_taken_than_the_app_reads() {
    let doors = Doors::open().await;
    let mut client = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
    let request = format!("PUT / HTTP/1.1\r\nHost: {OPEN}\r\nContent-Length: {LARGE}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut app, _) = doors.app.accept().await.unwrap();
    head(&mut app).await;
    let written = written_until_stuck(&mut client).await;
    assert!(written < LARGE, "the gateway took all of it");
    let finishing = async {
        client.write_all(&vec![0; LARGE - written]).await.unwrap();
        client.flush().await.unwrap();
        statuses(&mut client, 1).await.0
    };
    let serving = async {
        let (mut piece, mut length) = (vec![0; 64 * 1024], 0);
        // The head may have brought the beginning with it; the end is what counts.
        while length < written {
            length += app.read(&mut piece).await.unwrap();
        }
        app.write_all(ANSWER.as_bytes()).await.unwrap();
        while app.read(&mut piece).await.is_ok_and(|read| read > 0) {}
    };
    let answered = tokio::select! {
        answered = finishing => answered,
        () = serving => panic!("the gateway left"),
    };
    assert_eq!(answered, [200]);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_holds_no_app_for_it() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "timeout_idle: 500ms\n").await;
    for way in WAYS {
        let (app, (gone, is_gone)) = (doors.app.clone(), tokio::sync::oneshot::channel());
        let _app = running(async move {
            let (mut stream, _) = app.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n").await.unwrap();
            while stream.write_all(&[0; 16 * 1024]).await.is_ok() {}
            gone.send(()).unwrap();
        });
        let _client: Box<dyn std::any::Any> = match way {
            Way::Http1 => {
                let mut client = doors.tcp_to(OPEN, &[b"http/1.1"], None).await;
                let request = format!("GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n");
                client.write_all(request.as_bytes()).await.unwrap();
                Box::new(client)
            }
            Way::Http2 => {
                let request = Request::get(format!("https://{OPEN}/")).body(body(vec![])).unwrap();
                Box::new(over_http2(&doors, OPEN, request).await)
            }
            Way::Http3 => {
                let mut client = over_http3(&doors, Request::builder()).await;
                client.stream.finish().await.unwrap();
                assert_eq!(client.stream.recv_response().await.unwrap().status(), StatusCode::OK);
                Box::new(client)
            }
        };
        tokio::time::timeout(PATIENCE, is_gone).await.unwrap_or_else(|_| panic!("{way:?}: held")).unwrap();
    }
}

/// A client that takes the head of its answer, if that, and has no room for what follows.
pub(super) async fn without_room(
    doors: &Doors,
    host: &'static str,
    way: Way,
    request: Request<Sent>,
) -> Box<dyn std::any::Any> {
    if way == Way::Http2 {
        let stream = doors.tcp_to(host, &[b"h2"], None).await;
        let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(0);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
        let connection = running(async move { _ = connection.await });
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("a head");
        return Box::new((response.unwrap(), sender, connection));
    }
    let mut config = pomerium_shared::quic::client_config(doors.tls(&[b"h3"], None)).unwrap();
    let mut transport = quinn::TransportConfig::default();
    // The gateway's settings fit into it, and no head of an answer.
    transport.stream_receive_window(60_u32.into());
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let quic = endpoint.connect_with(config, doors.address, host).unwrap().await.unwrap();
    let (driver, mut sender) = h3::client::new(h3_quinn::Connection::new(quic)).await.unwrap();
    let mut stream = sender.send_request(request.map(drop)).await.unwrap();
    stream.finish().await.unwrap();
    Box::new((stream, sender, driver, endpoint))
}

#[tokio::test]
async fn a_client_that_grants_no_room_for_its_answer_holds_no_app_for_it() {
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), "timeout_idle: 500ms\n").await;
    for way in [Way::Http2, Way::Http3] {
        let (app, (gone, is_gone)) = (doors.app.clone(), tokio::sync::oneshot::channel());
        let _app = running(async move {
            let (mut stream, _) = app.accept().await.unwrap();
            head(&mut stream).await;
            let answer =
                format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 3\r\n\r\nok", "long ".repeat(50));
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The end, which it never gets to send.
            let mut rest = Vec::new();
            _ = stream.read_to_end(&mut rest).await;
            gone.send(()).unwrap();
        });
        let request = Request::get(format!("https://{OPEN}/")).body(body(vec![])).unwrap();
        let _client = without_room(&doors, OPEN, way, request).await;
        tokio::time::timeout(PATIENCE, is_gone).await.unwrap_or_else(|_| panic!("{way:?}: held")).unwrap();
    }
}
