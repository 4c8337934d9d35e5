//! Other people's clients against the gateway: `curl`, Node.js and aioquic, with nothing of ours on their side.

use std::path::{Path, PathBuf};

use support::{
    app::{App, GREETING},
    echo::{Echo, FAREWELL},
    gateway::{Gateway, Route},
    person::Person,
};
use tokio::process::Command;

const DESTINATION: &str = "echo.corp.test:7";
/// Streams that are open at the same time.
const STREAMS: usize = 20;
/// What the gateway logs once a handshake.
const HANDSHAKE: &str = "quic connection opened";

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// What a client says of so many streams to the echo service, a line a stream.
async fn lines(
    command: &mut Command,
    script: &str,
    gateway: &Gateway,
    token: &str,
    count: usize,
) -> Vec<String> {
    let output = command
        .arg(clients().join(script))
        .arg(gateway.port.to_string())
        .arg(&gateway.authority.root)
        .args([token, DESTINATION, &count.to_string()])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn echoes() -> Vec<String> {
    let farewell = std::str::from_utf8(FAREWELL).unwrap();
    (0..STREAMS).map(|number| format!("stream {number} {farewell}")).collect()
}

async fn tokens(gateway: &Gateway) -> [String; 2] {
    let mut tokens = Vec::new();
    for name in ["alice", "bob"] {
        let person = Person::new(name, &gateway.authority).unwrap();
        tokens.push(person.token(&gateway.url("localhost").unwrap()).await.unwrap());
    }
    tokens.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_takes_the_gateway_for_an_https_proxy() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", app.address)]).await.unwrap();
    let [alice, bob] = tokens(&gateway).await;
    let curl = async |token: &str, url: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--max-time", "60", "-p", "--proxy"]);
        command.arg(format!("https://localhost:{}", gateway.port)).arg("--proxy-cacert");
        command.arg(&gateway.authority.root);
        if !token.is_empty() {
            command.args(["--proxy-header", &format!("Authorization: Pomerium {token}")]);
        }
        let output = command.arg(url).output().await.unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&told).into_owned())
    };
    let (is_open, told) = curl(&alice, "http://app.corp.test:8080/page").await;
    assert!(is_open && told.contains(GREETING) && !told.contains(&alice), "{told}");
    for (token, url, status) in [
        ("", "http://app.corp.test:8080/", "401"),
        (bob.as_str(), "http://app.corp.test:8080/", "403"),
        (alice.as_str(), "http://other.corp.test:8080/", "404"),
    ] {
        let (is_open, told) = curl(token, url).await;
        assert!(!is_open && told.contains(&format!(" {status} ")), "{url}: {told}");
    }
    assert_eq!(app.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_opens_many_streams_on_one_http2_connection() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let [alice, bob] = tokens(&gateway).await;
    let all = lines(&mut Command::new("node"), "h2_connect.mjs", &gateway, &alice, STREAMS).await;
    assert_eq!(all, echoes());
    assert_eq!(lines(&mut Command::new("node"), "h2_connect.mjs", &gateway, &bob, 1).await, ["403"]);
    assert_eq!(echo.dials(), STREAMS);
}

#[tokio::test(flavor = "multi_thread")]
async fn aioquic_opens_a_connection_for_each_stream() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let [alice, bob] = tokens(&gateway).await;
    let python = clients().join(".venv/bin/python3");
    let all = lines(&mut Command::new(&python), "h3_connect.py", &gateway, &alice, STREAMS).await;
    assert_eq!(all, echoes());
    assert_eq!(gateway.log().count(HANDSHAKE), STREAMS);
    assert_eq!(lines(&mut Command::new(&python), "h3_connect.py", &gateway, &bob, 1).await, ["403"]);
    assert_eq!(echo.dials(), STREAMS);
}
