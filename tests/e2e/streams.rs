//! Many streams on one connection, and each direction by itself.

use std::time::Duration;

use support::{
    cli::Cli,
    echo::{Echo, FAREWELL},
    gateway::{Gateway, Route},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
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
