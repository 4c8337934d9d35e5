//! Proxy and sign-in in one process, decisions in another: no answer is a no.

use std::net::Ipv4Addr;

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use support::{
    app::{App, GREETING},
    cli::Cli,
    crowd::Crowd,
    echo::Echo,
    envoy::Envoy,
    gateway::{Gateway, Options, Route, SHARED_SECRET},
    http::{FAR, Page, secure},
    person::Person,
    port,
    process::Process,
    token, wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use url::Url;

const DESTINATION: &str = "echo.corp.test:7";

/// A proxy that asks somebody at `door`, who is not there yet.
struct Parts {
    app: App,
    echo: Echo,
    gateway: Gateway,
    door: u16,
    url: Url,
}

impl Parts {
    async fn start() -> anyhow::Result<Self> {
        let (app, echo, door) = (App::start().await?, Echo::start().await?, port::reserve()?);
        let more = format!(
            "services: proxy,authenticate\nauthorize_service_url: http://127.0.0.1:{door}\n\
             grpc_client_timeout: 3s\n"
        );
        let routes = [Route::web("app.localhost", app.address), Route::tcp(DESTINATION, echo.address)];
        let options = Options { more: &more, ..Options::default() };
        let gateway = Box::pin(Gateway::start_with(&routes, &options)).await?;
        let url = gateway.url("app.localhost")?;
        Ok(Self { app, echo, gateway, door, url })
    }

    /// Starts who decides, on the same store, and waits until it does.
    async fn authorize(&self) -> anyhow::Result<Process> {
        let more = format!("grpc_address: 127.0.0.1:{}\ngrpc_insecure: true\n", self.door);
        let process = self.gateway.spawn_beside(&["--services=authorize"], &more)?;
        up(&process).await?;
        Ok(process)
    }

    /// Asks until it is decided again, one way or the other: the proxy leaves a dead service alone for a moment.
    async fn decided(&self, person: &Person) -> anyhow::Result<Page> {
        wait::until("a decision", async || {
            let page = Box::pin(person.open(&self.url)).await.ok()?;
            (page.status != StatusCode::SERVICE_UNAVAILABLE).then_some(page)
        })
        .await
    }

    /// What a program is told, and that the app hears nothing of it.
    async fn is_refused(&self, person: &Person) {
        let requests = self.app.requests();
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "application/json".parse().unwrap());
        let page = person.request(Method::GET, &self.url, headers, "".into()).await.unwrap();
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "{}", page.text());
        let problem: Value = serde_json::from_slice(&page.body).unwrap();
        assert_eq!(problem["reasons"], serde_json::json!(["authorize-unreachable"]));
        assert_eq!(self.app.requests(), requests, "the app hears nothing of it");
        let id = problem["request_id"].as_str().unwrap();
        self.gateway.log().line_with(&["no decision", id]).await.unwrap();
    }
}

pub(crate) async fn up(process: &Process) -> anyhow::Result<()> {
    let lines = [&process.output, &process.errors].map(|log| Box::pin(log.line_with("gateway is up")));
    let [output, errors] = lines;
    tokio::select! { line = output => line, line = errors => line }.map(|_| ())
}

/// Waits for a line in either log.
pub(crate) async fn line(process: &Process, part: &str) -> String {
    wait::until(part, async || {
        let lines = process.output.lines().into_iter().chain(process.errors.lines());
        lines.into_iter().find(|line| line.contains(part))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_passes_and_bob_does_not_for_as_long_as_somebody_decides() {
    let parts = Parts::start().await.unwrap();
    let [alice, bob] = ["alice", "bob"].map(|name| Person::new(name, &parts.gateway.authority).unwrap());
    parts.is_refused(&alice).await;

    let mut authorize = parts.authorize().await.unwrap();
    let page = parts.decided(&alice).await.unwrap();
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text().contains(GREETING), "{}", page.text());
    let page = bob.open(&parts.url).await.unwrap();
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text().contains("email-unauthorized"), "{}", page.text());
    let decision = line(&authorize, "bob@corp.example").await;
    assert!(decision.contains("authorize check") && decision.contains("email-unauthorized"), "{decision}");
    assert_eq!(parts.gateway.log().count("authorize check"), 0, "the proxy decides nothing");

    authorize.kill().await.unwrap();
    parts.is_refused(&alice).await;
    parts.is_refused(&bob).await;
    let page = alice.get(&parts.url).await.unwrap();
    assert!(page.text().contains("Nobody can decide"), "a browser gets a page: {}", page.text());

    let _again = parts.authorize().await.unwrap();
    assert_eq!(parts.decided(&alice).await.unwrap().status, StatusCode::OK);
    assert_eq!(bob.open(&parts.url).await.unwrap().status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_is_cut_when_the_other_process_changes_its_policy_or_is_gone() {
    let parts = Parts::start().await.unwrap();
    let mut authorize = parts.authorize().await.unwrap();
    let cli = Cli::new(&parts.gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let crowd = Crowd::open(port, 3).await.unwrap();

    // The file of the deciding process alone.
    let file = parts.gateway.folder().join("beside.yaml");
    let own = std::fs::read_to_string(&file).unwrap();
    let other = own.replace("{is: alice@corp.example}", "{is: carol@corp.example}");
    assert_ne!(own, other);
    std::fs::write(&file, other).unwrap();
    crowd.ends().await.unwrap();
    parts.gateway.log().line_with(&["stream ended", "\"reason\":\"policy\""]).await.unwrap();

    std::fs::write(&file, own).unwrap();
    let served = parts.echo.dials();
    let crowd = wait::until("streams again", async || Crowd::open(port, 3).await.ok()).await.unwrap();
    assert!(parts.echo.dials() > served);
    authorize.kill().await.unwrap();
    crowd.ends().await.unwrap();
    let cut = ["authorize-unreachable", "nobody says whether it may stay open"];
    parts.gateway.log().line_with(&cut).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_at_the_proxy_is_a_stranger_to_who_decides() {
    let parts = Parts::start().await.unwrap();
    let _authorize = parts.authorize().await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    assert_eq!(parts.decided(&alice).await.unwrap().status, StatusCode::OK);
    let cli = Cli::new(&parts.gateway, "alice").unwrap();
    let (_client, port) = cli.listen(DESTINATION).await.unwrap();
    let crowd = Crowd::open(port, 3).await.unwrap();
    cli.log_out().await.unwrap();
    crowd.ends().await.unwrap();
    parts.gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_whose_routes_differ_decide_nothing_together() {
    let parts = Parts::start().await.unwrap();
    let _authorize = parts.authorize().await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    assert_eq!(parts.decided(&alice).await.unwrap().status, StatusCode::OK);
    let file = parts.gateway.folder().join("beside.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let elsewhere = text.replace(&format!("http://{}", parts.app.address), "http://127.0.0.1:9");
    assert_ne!(text, elsewhere);
    std::fs::write(&file, elsewhere).unwrap();
    wait::until("no decision", async || {
        let page = Box::pin(alice.get(&parts.url)).await.ok()?;
        (page.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await
    .unwrap();
    parts.gateway.log().line_with(&["no decision", "finds another route"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_told_to_services_of_ours_and_by_who_only_decides() {
    const DECIDE: &str = "/pomerium.gateway.v1.Authorize/Decide";
    let (unauthenticated, unimplemented, invalid_argument) = ("16", "12", "3");
    let parts = Parts::start().await.unwrap();
    let _authorize = parts.authorize().await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    parts.decided(&alice).await.unwrap();
    let session = alice.cookie(&parts.url, "_pomerium").unwrap();
    let token = token::signed(&serde_json::json!({ "exp": 4_102_444_800_u64 }), &SHARED_SECRET);
    let mut asking = Envoy::connect(parts.door, None).await.unwrap();
    for stranger in ["", "x.y.z", &session] {
        assert_eq!(asking.call(DECIDE, stranger).await.unwrap(), unauthenticated, "{stranger:?}");
    }
    assert_eq!(asking.call(DECIDE, &token).await.unwrap(), invalid_argument, "it asks nothing");

    let app = App::start().await.unwrap();
    let door = port::reserve().unwrap();
    let options = Options { more: &format!("grpc_address: 127.0.0.1:{door}\n"), ..Options::default() };
    let routes = [Route::web("app.localhost", app.address)];
    let _whole = Box::pin(Gateway::start_with(&routes, &options)).await.unwrap();
    let mut asking = Envoy::connect(door, None).await.unwrap();
    assert_eq!(asking.call(DECIDE, &token).await.unwrap(), unimplemented);
}

/// Three processes over one storage, one for each part.
#[tokio::test(flavor = "multi_thread")]
async fn apps_sign_in_and_decisions_may_each_have_a_process_of_their_own() {
    const OWN: &str = "services: authenticate\n";
    const HOST: &str = "app.far.localhost";
    let (app, door) = (App::start().await.unwrap(), port::reserve().unwrap());
    let options = Options { more: OWN, ..Options::default() };
    let routes = [Route::web(HOST, app.address)];
    let mut sign_in = Box::pin(Gateway::start_with(&routes, &options)).await.unwrap();
    let decides = format!("services: authorize\ngrpc_address: 127.0.0.1:{door}\ngrpc_insecure: true\n");
    let authorize = sign_in.spawn_at(Ipv4Addr::new(127, 0, 0, 3), OWN, &decides).unwrap();
    let leads = format!("services: proxy\nauthorize_service_url: http://127.0.0.1:{door}\n");
    let proxying = sign_in.spawn_at(FAR, OWN, &leads).unwrap();
    up(&authorize).await.unwrap();
    up(&proxying).await.unwrap();

    let url = sign_in.url(HOST).unwrap();
    let [alice, bob] = ["alice", "bob"].map(|name| Person::new(name, &sign_in.authority).unwrap());
    let page = alice.open(&url).await.unwrap();
    assert!(page.status == StatusCode::OK && page.text().contains(GREETING), "{}", page.text());
    assert_eq!(bob.open(&url).await.unwrap().status, StatusCode::FORBIDDEN);
    let decision = line(&authorize, "bob@corp.example").await;
    assert!(decision.contains("authorize check"), "{decision}");
    assert_eq!(sign_in.log().count("authorize check") + proxying.output.count("authorize check"), 0);

    // Each serves its own hosts alone, by whatever connection one comes.
    let stranger = Person::new("carol", &sign_in.authority).unwrap();
    let tls = sign_in.authority.client_config(&[b"http/1.1"]).unwrap();
    for (address, host) in [(Ipv4Addr::LOCALHOST, HOST), (FAR, "authenticate.localhost")] {
        let tcp = TcpStream::connect((address, sign_in.port)).await.unwrap();
        let mut stream = secure(&tls, tcp, host).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n\r\n", sign_in.port);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        wait::within("an answer", stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
    }

    // Who has signed in stays so while nobody else can; a session that ended there has ended here, also for who kept its cookie.
    sign_in.stop().await.unwrap();
    assert_eq!(alice.get(&url).await.unwrap().status, StatusCode::OK);
    assert!(stranger.open(&url).await.is_err(), "nobody signs anybody in");
    sign_in.restart().await.unwrap();
    let mut kept = HeaderMap::new();
    let cookie = format!("_pomerium={}", alice.cookie(&url, "_pomerium").unwrap());
    kept.insert(header::COOKIE, cookie.parse().unwrap());
    let thief = Person::new("mallory", &sign_in.authority).unwrap();
    let tries = async || thief.request(Method::GET, &url, kept.clone(), "".into()).await.unwrap().status;
    assert_eq!(tries().await, StatusCode::OK);
    alice.sign_out(&url).await.unwrap();
    let ended = wait::until("the session's end", async || (tries().await == StatusCode::FOUND).then_some(()));
    Box::pin(ended).await.unwrap();
}
