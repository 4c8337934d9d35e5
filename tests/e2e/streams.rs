//! Many streams on one connection, and each direction by itself.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use support::{
    cli::Cli,
    echo::{Echo, FAREWELL, exchange},
    gateway::{Gateway, Route},
    namespace::inside,
    process::Input,
    wait,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::Instant,
};

const DESTINATION: &str = "echo.corp.test:7";
const STREAMS: usize = 1_000;

/// What the gateway logs once a handshake.
const HANDSHAKE: &str = "quic connection opened";

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_cost_one_handshake() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    // The first stream signs in; what that costs is not what is counted.
    assert_eq!(exchange(at(port), b"0").await.unwrap(), [b"0", FAREWELL].concat(), "{}", cli.trouble());
    let before = gateway.log().count(HANDSHAKE);
    for number in 1..=STREAMS {
        let text = number.to_string();
        assert_eq!(exchange(at(port), text.as_bytes()).await.unwrap(), [text.as_bytes(), FAREWELL].concat());
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
    assert_eq!(exchange(at(port), b"before").await.unwrap(), [b"before", FAREWELL].concat());
    gateway.log().line_with(&["stream ended"]).await.unwrap();
    // Open streams would have 30 seconds; nobody waits for a client that has none.
    tokio::time::timeout(Duration::from_secs(15), gateway.stop()).await.unwrap().unwrap();
    gateway.restart().await.unwrap();
    assert_eq!(
        exchange(at(port), b"after").await.unwrap(),
        [b"after", FAREWELL].concat(),
        "{}",
        cli.trouble()
    );
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

/// A stream that stays open, and carries a line now and then.
async fn line(stream: &mut BufReader<TcpStream>, text: &str) -> std::io::Result<bool> {
    stream.get_mut().write_all(format!("{text}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(answer.trim_end() == text)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_gateway_drains_new_streams_go_to_another_and_the_old_ones_finish() {
    let story = "streams::while_a_gateway_drains_new_streams_go_to_another_and_the_old_ones_finish";
    if !inside(story, "").await.unwrap() {
        return;
    }
    let echo = Echo::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut old = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    assert!(wait::within("an echo", line(&mut old, "before")).await.unwrap().unwrap());

    // The gateways' name, localhost, has two addresses.
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let there = |address: &str| format!("address: {address}");
    let (here, elsewhere) = (format!("127.0.0.1:{}", gateway.port), format!("'[::1]:{}'", gateway.port));
    gateway.write_config(&config.replace(&there(&here), &there(&elsewhere))).unwrap();
    let other = gateway.spawn_beside(&[], "").unwrap();
    gateway.write_config(&config).unwrap();
    other.errors.line_with("gateway is up").await.unwrap();
    let began = Instant::now();
    let stopping = async {
        gateway.stop().await.unwrap();
        began.elapsed()
    };
    let using = async {
        // What says that the old gateway is draining is in its log, which `stop` has.
        let moved = wait::until("a stream by the other gateway", async || {
            exchange(at(port), b"new").await.ok()?;
            (other.errors.count("stream ended") > 0).then_some(())
        });
        moved.await.unwrap();
        let took = began.elapsed();
        assert!(line(&mut old, "after").await.unwrap(), "the old stream goes on");
        drop(old);
        took
    };
    let (stopped, moved) = tokio::join!(stopping, using);
    assert!(moved < Duration::from_secs(10), "a new stream waited {moved:?}");
    assert!(stopped < Duration::from_secs(25), "the old gateway stopped after {stopped:?}");
    assert_eq!(cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_is_found_again_as_soon_as_it_is_back() {
    let echo = Echo::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut old = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    assert!(wait::within("an echo", line(&mut old, "before")).await.unwrap().unwrap());
    gateway.kill().await.unwrap();
    gateway.restart().await.unwrap();
    let began = Instant::now();
    assert_eq!(exchange(at(port), b"again").await.unwrap(), [b"again", FAREWELL].concat());
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2_500), "told by a reset, rather than by silence: {took:?}");
    assert!(!line(&mut old, "after").await.unwrap_or(false), "its streams ended with the process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_gateway_was_killed_ends_with_words_for_its_person() {
    let echo = Echo::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let mut client = cli.spawn(&["tcp", DESTINATION, "--listen", "-"], Input::Pipe).unwrap();
    let mut input = client.take_input().unwrap();
    input.write_all(b"before\n").await.unwrap();
    client.output.line_with("before").await.unwrap();
    gateway.kill().await.unwrap();
    gateway.restart().await.unwrap();
    assert_eq!(client.ended().await.unwrap().code(), Some(69), "{}", cli.trouble());
    let words = client.errors.line_with("resume-failed").await.unwrap();
    assert!(words.contains("the stream ended"), "{words}");
    client.errors.line_with("Run the command again").await.unwrap();
    assert_eq!(cli.sign_ins(), 1);
}
