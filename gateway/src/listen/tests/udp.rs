//! Flows of datagrams over HTTP/2 and HTTP/1.1; over HTTP/3 the client's own stories tell of them.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
    task::JoinSet,
};

use super::{wire::running, *};

const PATH: &str = "/.well-known/masque/udp/echo.corp.test/7/";
/// A capsule with a payload (RFC 9297, 3.2; RFC 9298, 5).
const PING: &[u8] = b"\x00\x05\x00ping";

/// Doors with a route to an app that sends back what it gets.
async fn doors() -> (Doors, JoinSet<()>) {
    let app = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let more = format!(
        "policy:\n- from: udp+https://echo.corp.test:7\n  to: udp://{}\n  policy:\n  - allow:\n      and:\n      - source_ip: 127.0.0.1\n",
        app.local_addr().unwrap()
    );
    let echoing = running(async move {
        let mut buffer = [0; 2048];
        while let Ok((len, peer)) = app.recv_from(&mut buffer).await {
            app.send_to(&buffer[..len], peer).await.unwrap();
        }
    });
    (Doors::open_with(tempfile::tempdir().unwrap(), &more).await, echoing)
}

async fn echoes(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    stream.write_all(PING).await.unwrap();
    let mut answer = [0; PING.len()];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, PING);
}

#[tokio::test]
async fn capsules_cross_a_stream_of_http2() {
    let (doors, _echoing) = doors().await;
    let stream = doors.tcp(&[b"h2"], None).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    doors.tracker.spawn(connection);
    let asked = |path: &str| {
        let protocol = hyper::ext::Protocol::from_static("connect-udp");
        let request = Request::connect(format!("https://{HOST}{path}")).extension(protocol);
        request.body(http_body_util::Empty::<Bytes>::new()).unwrap()
    };
    let response = sender.send_request(asked(PATH)).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["capsule-protocol"]),
        (StatusCode::OK, &http::HeaderValue::from_static("?1"))
    );
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    echoes(&mut TokioIo::new(upgraded)).await;
    for path in
        ["/.well-known/masque/udp/other.corp.test/7/", "/.well-known/masque/udp/echo.corp.test/7", "/"]
    {
        let refused = sender.send_request(asked(path)).await.unwrap();
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn capsules_cross_a_connection_of_http1() {
    let (doors, _echoing) = doors().await;
    let mut stream = doors.tcp(&[b"http/1.1"], None).await;
    // Clients of this dialect name the app as the host.
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: echo.corp.test:7\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: connect-udp"), "{head}");
    echoes(&mut stream).await;
}
