//! A session of the client lives on its machine alone, and ends when the machine is taken away.

use std::path::PathBuf;

use support::{
    cli::Cli,
    echo::Echo,
    gateway::{Gateway, Route, binary},
    http::raw,
    token, wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

const DESTINATION: &str = "echo.corp.test:7";

/// Sends a word through a local port of the client, and gets it back; the connection stays.
async fn hello(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"hello").await?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await?;
    Ok(stream)
}

/// The file with the client's token.
fn token_file(cli: &Cli) -> PathBuf {
    let folder = cli.cache().join("pomerium-cli/jwts");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Runs `pomerium-gateway device` beside the gateway.
pub(crate) async fn device(gateway: &Gateway, words: &[&str]) -> String {
    administer(gateway, "device", words).await
}

/// Runs a command of the administrator beside the gateway.
pub(crate) async fn administer(gateway: &Gateway, name: &str, words: &[&str]) -> String {
    let mut command = Command::new(binary("pomerium-gateway").unwrap());
    command.arg(name).arg("--config").arg(gateway.config()).args(words).current_dir(gateway.folder());
    let output = wait::within("the command", command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_copied_to_another_machine_is_worth_nothing_there() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let alices = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = alices.listen(DESTINATION).await.unwrap();
    wait::within("an echo", hello(port))
        .await
        .unwrap()
        .unwrap_or_else(|e| panic!("{e}\n{}", alices.trouble()));
    let file = token_file(&alices);
    let stolen = std::fs::read_to_string(&file).unwrap();
    assert!(token::claims(stolen.trim()).unwrap()["cnf"]["x5t#S256"].is_string());

    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let request = format!(
        "CONNECT {DESTINATION} HTTP/1.1\r\nHost: {DESTINATION}\r\nAuthorization: Pomerium {}\r\n\r\n",
        stolen.trim()
    );
    let (head, _) = raw(&tls, gateway.port, "localhost", &request).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");

    // A whole client with the token, but a key of its own: it has to sign in.
    let mallorys = Cli::new(&gateway, "alice").unwrap();
    let copy = mallorys.cache().join("pomerium-cli/jwts");
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::write(copy.join(file.file_name().unwrap()), stolen.trim()).unwrap();
    let (_other, port) = mallorys.listen(DESTINATION).await.unwrap();
    wait::within("an echo", hello(port)).await.unwrap().unwrap();
    assert_eq!((alices.sign_ins(), mallorys.sign_ins()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_stops_locking_its_screen_loses_its_streams() {
    let echo = Echo::start().await.unwrap();
    let route = Route::tcp(DESTINATION, echo.address).policy("[{allow: {and: [{posture/screen_lock: 1}]}}]");
    let gateway = Gateway::start(&[route]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = wait::within("an echo", hello(port)).await.unwrap().unwrap();

    cli.lock_screen(false).unwrap();
    let mut rest = Vec::new();
    // A cut is a reset; whichever way it ends, it ends.
    let _reset = wait::within("the cut", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
    gateway.log().line_with(&["stream ended", "\"reason\":\"policy\""]).await.unwrap();
    let why = ["authorize check", "\"allow-why-false\":\"posture-screen-lock-unauthorized\""];
    gateway.log().line_with(&why).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_for_approval_and_loses_its_streams_when_it_is_removed() {
    let echo = Echo::start().await.unwrap();
    let route = Route::tcp(DESTINATION, echo.address)
        .policy("[{allow: {and: [{email: {is: alice@corp.example}}, {device: {approved: true}}, {posture/os: linux}]}}]");
    let gateway = Gateway::start(&[route]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let refused = wait::within("a refusal", hello(port)).await.unwrap();
    assert!(refused.is_err(), "a device that nobody approved is let in");

    let listed = device(&gateway, &["list"]).await;
    assert!(listed.contains("alice@corp.example") && listed.contains("linux"), "{listed}");
    let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    device(&gateway, &["approve", &id]).await;
    let let_in = async {
        loop {
            if let Ok(stream) = hello(port).await {
                return stream;
            }
        }
    };
    let mut stream = wait::within("the approval to be heard of", let_in).await.unwrap();

    let told = device(&gateway, &["remove", &id]).await;
    assert!(told.contains("sessions ended: 1"), "{told}");
    let mut rest = Vec::new();
    // A cut is a reset; whichever way it ends, it ends.
    let _reset = wait::within("the cut", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
    gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
}
