//! What the gateway tells unasked, and what the client does about it.

use std::{net::SocketAddr, time::Duration};

use support::{
    cli::{Cli, loopback_address},
    echo::{Echo, FAREWELL, exchange},
    form::Form,
    gateway::{Gateway, Route},
    http::raw,
    person::Person,
    process::Input,
    wait,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    time::Instant,
};

use crate::devices::device;

const DESTINATION: &str = "echo.corp.test:7007";
const LATER: &str = "later.corp.test:7008";

/// Alice's `connect` to all routes: the second one comes by a reload, and the first one goes.
async fn follows_the_list(with_daemon: bool) {
    let echo = Echo::start().await.unwrap();
    let (first, later) = (Route::tcp(DESTINATION, echo.address), Route::tcp(LATER, echo.address));
    let gateway = Gateway::start(std::slice::from_ref(&first)).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = with_daemon.then(|| cli.daemon().unwrap());
    let client = if let Some(daemon) = &daemon {
        daemon.errors.line_with("the daemon answers").await.unwrap();
        let mut command = cli.plain(&["connect"]).unwrap();
        support::process::Process::spawn("pomerium-cli connect", &mut command, Input::None).unwrap()
    } else {
        cli.spawn(&["connect"], Input::None).unwrap()
    };
    let old = loopback_address(&client, DESTINATION).await.unwrap();
    assert!(old.port() == 7007 && old.ip() != SocketAddr::from(([127, 0, 0, 1], 1)).ip(), "{old}");
    assert_eq!(exchange(old, b"old").await.unwrap(), [b"old", FAREWELL].concat());

    gateway.log().line_with(&["http-request", "/.pomerium/api/v1/events"]).await.unwrap();
    gateway.write_routes(&[first.clone(), later.clone()]).unwrap();
    gateway.reload().unwrap();
    let new = loopback_address(&client, LATER).await.unwrap();
    assert_eq!(new.port(), 7008);
    assert_eq!(exchange(new, b"new").await.unwrap(), [b"new", FAREWELL].concat());

    gateway.write_routes(&[later]).unwrap();
    gateway.reload().unwrap();
    client.output.line_with("lists it for you no more").await.unwrap();
    let closed =
        wait::until("the port to close", async || TcpStream::connect(old).await.is_err().then_some(()));
    closed.await.unwrap();
    assert_eq!(exchange(new, b"still").await.unwrap(), [b"still", FAREWELL].concat());

    // The address is the same each time.
    gateway.write_routes(&[first, Route::tcp(LATER, echo.address)]).unwrap();
    gateway.reload().unwrap();
    let back = wait::until("the port to open", async || exchange(old, b"back").await.ok());
    assert_eq!(back.await.unwrap(), [b"back", FAREWELL].concat());
    assert_eq!(cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_to_all_routes_follows_the_gateways_list() {
    follows_the_list(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_follows_the_gateways_list_through_the_daemon() {
    follows_the_list(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_administrator_ends_is_known_to_be_over_within_a_second() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    cli.said(&["login"]).await.unwrap();
    let signed_in = async || {
        let status: serde_json::Value =
            serde_json::from_str(&cli.said(&["status", "--json"]).await.unwrap()).unwrap();
        status["daemon"]["gateways"][0]["signed_in"].as_bool().unwrap()
    };
    assert!(signed_in().await);
    gateway.log().line_with(&["http-request", "/.pomerium/api/v1/events"]).await.unwrap();

    let listed = device(&gateway, &["list"]).await;
    let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(device(&gateway, &["remove", &id]).await.contains("sessions ended: 1"));
    let ended = Instant::now();
    daemon.errors.line_with("the session was ended").await.unwrap();
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
    assert!(!signed_in().await);
    assert_eq!(cli.sign_ins(), 1, "nobody is asked to sign in by that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_clients_only_listen_stops_at_once() {
    let echo = Echo::start().await.unwrap();
    let mut gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    cli.said(&["login"]).await.unwrap();
    gateway.log().line_with(&["http-request", "/.pomerium/api/v1/events"]).await.unwrap();
    let began = Instant::now();
    gateway.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The next event on an answer of HTTP/1.1, past what frames its pieces.
async fn event(lines: &mut (impl AsyncBufRead + Unpin)) -> String {
    let next = async {
        loop {
            let mut line = String::new();
            assert_ne!(lines.read_line(&mut line).await.unwrap(), 0, "the answer has ended");
            if line.starts_with('{') && !line.contains("ping") {
                return line.trim_end().to_owned();
            }
        }
    };
    wait::within("an event", next).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_client_hears_of_its_own_routes_and_of_the_end_of_its_session_alone() {
    let echo = Echo::start().await.unwrap();
    let first = Route::tcp(DESTINATION, echo.address);
    let gateway = Gateway::start(std::slice::from_ref(&first)).await.unwrap();
    let [alice, bob] = ["alice", "bob"].map(|name| Person::new(name, &gateway.authority).unwrap());
    let origin = gateway.url("localhost").unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let request = format!(
        "GET /.pomerium/api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Pomerium {}\r\nConnection: close\r\n\r\n",
        alice.token(&origin).await.unwrap()
    );
    let (head, answer) = raw(&tls, gateway.port, "localhost", &request).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/x-ndjson"), "{head}");
    let mut lines = BufReader::new(answer);
    let begun = event(&mut lines).await;
    assert!(begun.starts_with("{\"event\":\"session\",\"expires\":"), "{begun}");

    gateway.write_routes(&[first.clone(), Route::tcp(LATER, echo.address)]).unwrap();
    gateway.reload().unwrap();
    assert_eq!(event(&mut lines).await, "{\"event\":\"routes\"}");
    // A route and a sign-in that are none of hers, and then what is.
    let bobs = Route::tcp("bobs.corp.test:7", echo.address);
    let bobs = bobs.policy("[{allow: {and: [{email: {is: bob@corp.example}}]}}]");
    gateway.write_routes(&[first, Route::tcp(LATER, echo.address), bobs]).unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["configuration reloaded", "\"routes\":3"]).await.unwrap();
    bob.token(&origin).await.unwrap();
    let sign_out = gateway.url("authenticate.localhost").unwrap().join("/.pomerium/sign_out").unwrap();
    let asked = alice.open(&sign_out).await.unwrap();
    alice.submit(&asked, &Form::first(&asked.text()).unwrap()).await.unwrap();
    assert_eq!(event(&mut lines).await, "{\"event\":\"ended\",\"reason\":\"revoked\"}");
    let mut rest = String::new();
    wait::within("the end", lines.read_to_string(&mut rest)).await.unwrap().ok();
    assert!(!rest.contains('{'), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_hear_nothing() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    for (method, more, status) in [
        ("GET", "", "401"),
        ("GET", "Authorization: Pomerium e30.e30.e30\r\n", "401"),
        ("POST", "", "405"),
        ("HEAD", "", "405"),
    ] {
        let request = format!(
            "{method} /.pomerium/api/v1/events HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let (head, _) = raw(&tls, gateway.port, "localhost", &request).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{method} {more}: {head}");
    }
}
