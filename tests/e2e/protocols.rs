//! The same job over every protocol that a browser or a client may speak.

use fantoccini::Locator;
use http::{Method, Request, Uri, Version};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    app::{App, GREETING},
    authority::Authority,
    browser::Browser,
    cli::Cli,
    echo::{Echo, FAREWELL},
    gateway::{Gateway, Options, Route},
    http::{raw, secure},
    person::Person,
    process::Input,
    wait,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const DESTINATION: &str = "echo.corp.test:7";

/// A text message of a client, masked with zeros (RFC 6455, 5.2).
fn message(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("a short text");
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}

async fn say(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    sent: &[u8],
    expected: &[u8],
) -> anyhow::Result<()> {
    stream.write_all(sent).await?;
    stream.flush().await?;
    let mut got = vec![0; expected.len()];
    wait::within("an echo", stream.read_exact(&mut got)).await??;
    anyhow::ensure!(got == expected, "{:?} came back", String::from_utf8_lossy(&got));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_and_sees_the_app_over_http3() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[Route::web("app.localhost", app.address)]).await.unwrap();
    let origins = ["app.localhost", "authenticate.localhost"].map(|host| format!("{host}:{}", gateway.port));
    let browser = Browser::start_over_quic(&gateway.authority, &origins).await.unwrap();
    let url = gateway.url("app.localhost").unwrap();
    browser.client.goto(url.as_str()).await.unwrap();
    let field = browser.client.wait().for_element(Locator::Css("input[name=login]")).await.unwrap();
    field.send_keys("alice").await.unwrap();
    browser.client.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
    browser.client.wait().for_url(&url).await.unwrap();
    let source = browser.client.source().await.unwrap();
    assert!(source.contains(GREETING) && source.contains("alice@corp.example"), "{source}");
    let line = gateway.log().line_with(&["http-request", "\"path\":\"/\"", "\"response-code\":200"]).await;
    assert!(line.as_ref().unwrap().contains("\"protocol\":\"h3\""), "{line:?}");
    browser.close().await.unwrap();
}

/// As every browser does: over TCP first, and then where `Alt-Svc` (RFC 7838) leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_finds_the_way_to_http3_by_itself() {
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address).policy("[{allow: {and: [{accept: true}]}}]");
    let gateway = Gateway::start(&[route]).await.unwrap();
    let browser = Browser::start_for_any_protocol(&gateway.authority, &["app.localhost"]).await.unwrap();
    let url = gateway.url("app.localhost").unwrap();
    browser.client.goto(url.as_str()).await.unwrap();
    let first = gateway.log().line_with(&["http-request", "\"authority\":\"app.localhost"]).await.unwrap();
    assert!(first.contains("\"protocol\":\"h2\""), "{first}");
    wait::until("a request over HTTP/3", async || {
        browser.client.goto(url.as_str()).await.ok()?;
        (gateway.log().count("\"protocol\":\"h3\"") > 0).then_some(())
    })
    .await
    .unwrap();
    assert!(browser.client.source().await.unwrap().contains(GREETING));
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_echoes_until_its_route_is_taken_away() {
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address);
    let gateway = Gateway::start(std::slice::from_ref(&route)).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let token = alice.token(&gateway.url("app.localhost").unwrap()).await.unwrap();
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let handshake = |credential: &str| {
        format!(
            "GET /socket HTTP/1.1\r\nHost: app.localhost:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{credential}\r\n",
            gateway.port
        )
    };
    let (head, _) = raw(&tls, gateway.port, "app.localhost", &handshake("")).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 401") || head.starts_with("HTTP/1.1 302"), "a stranger got {head}");

    let credential = format!("Authorization: Pomerium {token}\r\n");
    let (head, mut socket) = raw(&tls, gateway.port, "app.localhost", &handshake(&credential)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    say(&mut socket, &message("hello"), b"\x81\x05hello").await.unwrap();

    gateway.write_routes(&[route.policy("[{allow: {and: [{email: {is: bob@corp.example}}]}}]")]).unwrap();
    gateway.reload().unwrap();
    let mut rest = Vec::new();
    // The end is a close or a reset; both are an end.
    let _end = wait::within("the cut", socket.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_http2_echoes_and_closes_by_halves() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let token = alice.token(&gateway.url("localhost").unwrap()).await.unwrap();
    let tls = gateway.authority.client_config(&[b"h2"]).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    let stream = secure(&tls, tcp, "localhost").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let connect = |credential: Option<String>| {
        let uri = Uri::builder().authority(DESTINATION).build().unwrap();
        let mut request = Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(uri);
        if let Some(credential) = credential {
            request = request.header("authorization", credential);
        }
        request.body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    assert_eq!(sender.send_request(connect(None)).await.unwrap().status(), 401);
    let response = sender.send_request(connect(Some(format!("Pomerium {token}")))).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    say(&mut stream, b"over h2", b"over h2").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    wait::within("the farewell", stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, FAREWELL);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_does_not_get_through_the_client_goes_over_tcp() {
    let echo = Echo::start().await.unwrap();
    let routes = [Route::tcp(DESTINATION, echo.address)];
    let options = Options { more: "codec_type: http1\n", ..Options::default() };
    let gateway = Gateway::start_with(&routes, &options).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    say(&mut stream, b"over tcp", b"over tcp").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    wait::within("the farewell", stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, FAREWELL);
    gateway.log().line_with(&["stream ended", "\"protocol\":\"h1\""]).await.unwrap();
    assert_eq!(gateway.log().count("quic connection opened"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_gets_no_token() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stranger = Authority::create(folder.path()).unwrap();
    let mut cli = Cli::new(&gateway, "alice").unwrap();
    cli.trust(&stranger);
    for words in [&["tcp", DESTINATION, "--listen", "-"][..], &["connect", DESTINATION]] {
        let mut client = cli.spawn(words, Input::None).unwrap();
        let status = client.wait().await.unwrap();
        assert_eq!(status.code(), Some(76), "{words:?}: {}", client.errors.text());
    }
    assert_eq!(cli.sign_ins(), 0, "no browser for a gateway that cannot be trusted");
}
