//! Starting, reloading, and being killed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    app::App,
    cli::Cli,
    echo::Echo,
    gateway::{Gateway, Route, binary},
    http::secure,
    http3::Http3,
    person::Person,
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    task::JoinSet,
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

/// Sends one request after the other on a connection that stays open; counts the answers.
async fn kept_open(
    gateway: Arc<Gateway>,
    protocol: &'static [u8],
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<usize> {
    let tls = gateway.authority.client_config(&[protocol])?;
    if protocol == b"h3" {
        let (connection, mut answered) = (Http3::connect(&tls, gateway.port, "app.localhost").await?, 0);
        while !is_over.load(Ordering::SeqCst) {
            connection.get(&format!("app.localhost:{}", gateway.port)).await?;
            answered += 1;
        }
        return Ok(answered);
    }
    let tcp = TcpStream::connect(("127.0.0.1", gateway.port)).await?;
    let io = TokioIo::new(secure(&tls, tcp, "app.localhost").await?);
    let url = gateway.url("app.localhost")?;
    let (mut driver, mut answered) = (JoinSet::new(), 0);
    let body = Empty::<Bytes>::new;
    if protocol == b"h2" {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        driver.spawn(connection);
        while !is_over.load(Ordering::SeqCst) {
            let answer = sender.send_request(Request::get(url.as_str()).body(body())?).await?;
            anyhow::ensure!(answer.status() == 200, "{answer:?}");
            answer.into_body().collect().await?;
            answered += 1;
        }
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        driver.spawn(connection);
        while !is_over.load(Ordering::SeqCst) {
            let request = Request::get("/").header(header::HOST, url.authority()).body(body())?;
            let answer = sender.send_request(request).await?;
            anyhow::ensure!(answer.status() == 200, "{answer:?}");
            answer.into_body().collect().await?;
            answered += 1;
        }
    }
    Ok(answered)
}

/// Sends one upload after the other; counts those that arrived as a whole.
async fn uploading(gateway: Arc<Gateway>, is_over: Arc<AtomicBool>) -> anyhow::Result<usize> {
    const LEN: usize = 1024 * 1024;
    let person = Person::new("anybody", &gateway.authority)?;
    let url = gateway.url("app.localhost")?.join("/upload")?;
    let mut answered = 0;
    while !is_over.load(Ordering::SeqCst) {
        let page = person.request(Method::POST, &url, HeaderMap::new(), vec![7; LEN].into()).await?;
        anyhow::ensure!(page.status == 200, "{}: {}", page.status, page.text());
        anyhow::ensure!(page.text().contains(&LEN.to_string()), "{}", page.text());
        answered += 1;
    }
    Ok(answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_a_new_certificate_under_load_fail_no_request() {
    const RELOADS: usize = 20;
    let app = App::start().await.unwrap();
    let route = Route::web("app.localhost", app.address).policy("[{allow: {and: [{accept: true}]}}]");
    let gateway = Arc::new(Gateway::start(std::slice::from_ref(&route)).await.unwrap());
    let url = gateway.url("app.localhost").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (gateway, url, is_over) = (gateway.clone(), url.clone(), is_over.clone());
        // Each request has a connection of its own, so that each needs a certificate.
        load.spawn(async move {
            let person = Person::new("anybody", &gateway.authority)?;
            let mut answered = 0_usize;
            while !is_over.load(Ordering::SeqCst) {
                let page = person.get(&url).await?;
                anyhow::ensure!(page.status == 200, "{}: {}", page.status, page.text());
                answered += 1;
            }
            Ok(answered)
        });
    }
    load.spawn(uploading(gateway.clone(), is_over.clone()));
    for protocol in [&b"h3"[..], b"h2", b"http/1.1"] {
        load.spawn(kept_open(gateway.clone(), protocol, is_over.clone()));
    }
    let stranger = Person::new("stranger", &gateway.authority).unwrap();
    let mut renewed = None;
    for number in 0..RELOADS {
        if number == RELOADS / 2 {
            renewed = Some(gateway.authority.renew().unwrap());
        }
        let header = format!("set_response_headers: {{x-reload: '{number}'}}");
        gateway.write_routes(&[route.clone().with(&header)]).unwrap();
        gateway.reload().unwrap();
        let is_new = || async {
            let page = stranger.get(&url).await.ok()?;
            (page.headers.get("x-reload")? == number.to_string().as_str()).then_some(())
        };
        Box::pin(wait::until("the new configuration", is_new)).await.unwrap();
    }
    let tls = gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    let stream = secure(&tls, tcp, "app.localhost").await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(Some(shown.into_owned()), renewed, "the new certificate");
    is_over.store(true, Ordering::SeqCst);
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    while let Some(done) = load.join_next().await {
        match done.unwrap() {
            Ok(count) => answered.push(count),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let count: usize = answered.iter().sum();
    assert!(failed.is_empty(), "{count} requests were answered, and these failed: {failed:?}");
    assert!(count > RELOADS && !answered.contains(&0), "{answered:?} requests are no load");
    eprintln!("{RELOADS} reloads: {count} requests answered, 0 failed");
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
