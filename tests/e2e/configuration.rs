//! Starting, reloading, and being killed.

use support::{
    cli::Cli,
    echo::Echo,
    gateway::{Gateway, Route, binary},
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

const DESTINATION: &str = "echo.corp.test:7";

/// Whether four bytes come back.
async fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4];
    stream.write_all(b"ping").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && answer == *b"ping"
}

#[tokio::test]
async fn an_unusable_configuration_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    for (text, named) in [("routes: [", "config.yaml"), ("adress: 127.0.0.1:0\n", "adress")] {
        std::fs::write(&file, text).unwrap();
        let mut gateway = Command::new(binary("pomerium-gateway").unwrap());
        let output = gateway.args(["run", "--config"]).arg(&file).output().await.unwrap();
        assert_eq!(output.status.code(), Some(78));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(named), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_touches_no_live_stream_and_a_broken_one_changes_nothing() {
    let echo = Echo::start().await.unwrap();
    let routes = [Route::tcp(DESTINATION, echo.address)];
    let gateway = Gateway::start(&routes).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut stream).await, "{}", cli.trouble());

    gateway.write_config("routes: [").unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["reload"]).await.unwrap();
    assert!(echoes(&mut stream).await);
    let mut second = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut second).await, "the running configuration stays");

    let more = [routes[0].clone(), Route::tcp("more.corp.test:7", echo.address)];
    gateway.write_routes(&more).unwrap();
    gateway.reload().unwrap();
    let (_more, port) = cli.listen("more.corp.test:7").await.unwrap();
    let opened = wait::until("the new route", || async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        echoes(&mut stream).await.then_some(())
    });
    opened.await.unwrap();
    assert!(echoes(&mut stream).await && echoes(&mut second).await, "live streams go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_the_client_survive_a_killed_gateway() {
    let echo = Echo::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (mut client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(echoes(&mut stream).await, "{}", cli.trouble());

    gateway.kill().await.unwrap();
    gateway.restart().await.unwrap();
    let reconnected = wait::until("the client to reconnect", || async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        echoes(&mut stream).await.then_some(())
    });
    reconnected.await.unwrap();
    assert!(client.is_running());
    assert_eq!(cli.sign_ins(), 1, "the session outlived the gateway");
}
