//! Connections that a balancer passes on.

use super::*;

/// The answer to a request for the route list on a connection that begins with `header`; `None` if it is not taken.
async fn asked(doors: &Doors, header: &[u8]) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut tcp = TcpStream::connect(doors.address).await.unwrap();
    tcp.write_all(header).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(doors.tls(&[b"http/1.1"], None)));
    let mut stream = tls.connect(name, tcp).await.ok()?;
    let request = format!(
        "GET {ROUTES} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nAccept: application/json\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn the_balancer_says_whose_a_connection_is_and_one_that_says_nothing_is_not_taken() {
    let more = "use_proxy_protocol: true\nconnections_per_address: 1\nsign_in_requests_per_address: 1\n";
    let doors = Doors::open_with(tempfile::tempdir().unwrap(), more).await;
    let from = |client: &str| format!("PROXY TCP4 {client} 10.0.0.1 4711 443\r\n").into_bytes();
    let answer = asked(&doors, &from("203.0.113.7")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 302") || answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(asked(&doors, b"").await, None);

    // One client's connections and requests are not another's.
    let _held = doors.proxy.place("203.0.113.7".parse().unwrap()).unwrap();
    assert_eq!(asked(&doors, &from("203.0.113.7")).await, None);
    assert!(asked(&doors, &from("203.0.113.8")).await.is_some());
}
