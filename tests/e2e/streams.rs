//! Many streams on one connection, and each direction by itself.

use std::time::Duration;

use support::{
    cli::Cli,
    echo::{Echo, FAREWELL},
    gateway::{Gateway, Route},
    wait,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

const DESTINATION: &str = "echo.corp.test:7";
const STREAMS: usize = 1_000;

/// What the gateway logs once a handshake.
const HANDSHAKE: &str = "quic connection opened";

async fn exchange(port: u16, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_cost_one_handshake() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    // The first stream signs in; what that costs is not what is counted.
    assert_eq!(exchange(port, b"0").await.unwrap(), [b"0", FAREWELL].concat(), "{}", cli.trouble());
    let before = gateway.log().count(HANDSHAKE);
    for number in 1..=STREAMS {
        let text = number.to_string();
        assert_eq!(exchange(port, text.as_bytes()).await.unwrap(), [text.as_bytes(), FAREWELL].concat());
    }
    assert_eq!(echo.dials(), STREAMS + 1, "none was lost");
    assert_eq!(gateway.log().count(HANDSHAKE), before, "no handshake after the first");
    assert_eq!(before, 1, "one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_answers_after_the_client_has_finished() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let text = vec![b'x'; 1 << 20];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut read, mut write) = stream.split();
    let sending = async {
        write.write_all(&text).await?;
        write.shutdown().await
    };
    let mut answer = Vec::new();
    let (sent, received) = tokio::join!(sending, read.read_to_end(&mut answer));
    sent.unwrap();
    received.unwrap();
    assert!(answer == [text.as_slice(), FAREWELL].concat(), "{} bytes came back", answer.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_idle_clients_stops_without_waiting_for_them_and_they_come_back() {
    let echo = Echo::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    assert_eq!(exchange(port, b"before").await.unwrap(), [b"before", FAREWELL].concat());
    gateway.log().line_with(&["stream ended"]).await.unwrap();
    // Open streams would have 30 seconds; nobody waits for a client that has none.
    tokio::time::timeout(Duration::from_secs(15), gateway.stop()).await.unwrap().unwrap();
    gateway.restart().await.unwrap();
    assert_eq!(exchange(port, b"after").await.unwrap(), [b"after", FAREWELL].concat(), "{}", cli.trouble());
    assert_eq!(cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_asks_for_it_is_told_whose_stream_it_is() {
    let app = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = app.local_addr().unwrap();
    let route = Route::tcp(DESTINATION, address).with("upstream_proxy_protocol: v1");
    let gateway = Gateway::start(&[route]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let (app, _) = wait::within("the stream", app.accept()).await.unwrap().unwrap();
    let mut lines = BufReader::new(app).lines();
    let header = wait::within("the header", lines.next_line()).await.unwrap().unwrap().unwrap();
    let words: Vec<&str> = header.split(' ').collect();
    let ["PROXY", "TCP4", "127.0.0.1", "127.0.0.1", _, to] = words[..] else { panic!("{header}") };
    assert_eq!(to, address.port().to_string());
    let first = wait::within("the first line", lines.next_line()).await.unwrap().unwrap();
    assert_eq!(first.as_deref(), Some("hello"));
}
