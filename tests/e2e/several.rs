//! Several gateways over one PostgreSQL: whoever signs in at one is known at the other, and who is out is out at both.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use rustls::ClientConfig;
use serde_json::Value;
use support::{
    app::{App, GREETING},
    cli::Cli,
    echo::{Echo, exchange},
    gateway::{Gateway, Options, Route, binary},
    http::{FAR, secure},
    namespace::{inside, ip},
    person::Person,
    postgres::{PASSWORD, Postgres},
    process::Process,
    wait,
    wireguard::{Implementation, WireGuardApp},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    process::Command,
    time::Instant,
};

use crate::{
    devices::administer,
    split::{line, up},
};

const DESTINATION: &str = "echo.corp.test:7";
/// The hosts of one app, at the one gateway and at the other.
const HERE: &str = "app.localhost";
const THERE: &str = "app.far.localhost";
/// What differs between the gateways: the second has another one of these.
const OWN: &str = "stream_resume_window: 1m\n";

/// Two gateways with the same configuration at two addresses.
struct Parts {
    postgres: Postgres,
    gateway: Gateway,
    other: Process,
    _app: App,
    _echo: Echo,
}

impl Parts {
    async fn start() -> anyhow::Result<Self> {
        let (postgres, app, echo) = (Postgres::start().await?, App::start().await?, Echo::start().await?);
        let routes = [
            Route::web(HERE, app.address),
            Route::web(THERE, app.address),
            Route::tcp(DESTINATION, echo.address),
        ];
        let url = postgres.url();
        let options = Options { more: OWN, database: Some(&url), ..Options::default() };
        let mut gateway = Box::pin(Gateway::start_with(&routes, &options)).await?;
        // Once more, both at once and on nothing.
        gateway.stop().await?;
        postgres.execute("DROP SCHEMA public CASCADE").await?;
        postgres.execute("CREATE SCHEMA public").await?;
        let other = gateway.spawn_at(FAR, OWN, OWN)?;
        Box::pin(gateway.restart()).await?;
        up(&other).await?;
        Ok(Self { postgres, gateway, other, _app: app, _echo: echo })
    }

    /// A stream to the echo through the gateway at `address`, with a token.
    async fn stream(
        &self,
        address: Ipv4Addr,
        token: &str,
    ) -> anyhow::Result<(String, impl AsyncRead + Unpin + use<>)> {
        let tls: Arc<ClientConfig> = self.gateway.authority.client_config(&[b"http/1.1"])?;
        let tcp = TcpStream::connect((address, self.gateway.port)).await?;
        let mut stream = secure(&tls, tcp, HERE).await?;
        let request = format!(
            "CONNECT {DESTINATION} HTTP/1.1\r\nHost: {DESTINATION}\r\nAuthorization: Pomerium {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            anyhow::Ok(())
        };
        wait::within("an answer", reading).await??;
        Ok((String::from_utf8(head)?, stream))
    }

    /// What no log may show.
    fn keep_secrets(&self) {
        assert_eq!(self.gateway.log().count(PASSWORD), 0);
        assert_eq!(self.other.output.count(PASSWORD) + self.other.errors.count(PASSWORD), 0);
    }
}

/// Reads until the other side ends it, and says when that was.
async fn end(stream: &mut (impl AsyncRead + Unpin)) -> Instant {
    let mut buffer = [0; 1024];
    let reading = async { while let Ok(1..) = stream.read(&mut buffer).await {} };
    wait::within("the end of a stream", reading).await.unwrap();
    Instant::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_at_one_gateway_is_good_at_the_other_and_its_end_cuts_there_within_a_second() {
    let parts = Box::pin(Parts::start()).await.unwrap();
    let gateway = &parts.gateway;
    let alice = Person::new("alice", &gateway.authority).unwrap();
    let (here, there) = (gateway.url(HERE).unwrap(), gateway.url(THERE).unwrap());
    alice.open(&here).await.unwrap();
    let cookie = alice.cookie(&here, "_pomerium").unwrap();

    let (head, mut stream) = parts.stream(FAR, &cookie).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // The one gateway signs in for the other's host: what it hands over is taken there, once.
    let page = alice.open(&there).await.unwrap();
    assert!(page.status == StatusCode::OK && page.text().contains(GREETING), "{}", page.text());
    // The other has it in memory by now.
    assert_eq!(alice.get(&there).await.unwrap().status, StatusCode::OK);

    let signing_out = async {
        alice.sign_out(&here).await.unwrap();
        Instant::now()
    };
    let (out, ended) = tokio::join!(signing_out, end(&mut stream));
    let after = ended.saturating_duration_since(out);
    assert!(after < Duration::from_secs(1), "{after:?} after the sign-out");
    line(&parts.other, "\"reason\":\"session\"").await;
    assert_eq!(alice.get(&there).await.unwrap().status, StatusCode::FOUND, "to sign in");
    let (head, _stream) = parts.stream(FAR, &cookie).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    parts.keep_secrets();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_lets_nobody_in_and_one_that_is_back_needs_no_restart() {
    let mut parts = Box::pin(Parts::start()).await.unwrap();
    let alice = Person::new("alice", &parts.gateway.authority).unwrap();
    let url = parts.gateway.url(HERE).unwrap();
    alice.open(&url).await.unwrap();
    let cookie = alice.cookie(&url, "_pomerium").unwrap();
    let (head, mut stream) = parts.stream(FAR, &cookie).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let findings = doctor(&parts.gateway).await;
    assert_eq!(findings["grade"], "good", "{findings}");

    parts.postgres.stop().await.unwrap();
    end(&mut stream).await;
    let page = alice.get(&url).await.unwrap();
    assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(page.text().contains("The session store does not answer"), "{}", page.text());
    parts.gateway.log().line_with(&["the session database is away"]).await.unwrap();
    let findings = doctor(&parts.gateway).await;
    assert_eq!(findings["grade"], "bad", "{findings}");
    assert!(!findings.to_string().contains(PASSWORD), "{findings}");

    parts.postgres.start_again().await.unwrap();
    let back = wait::until("access", async || {
        let page = alice.get(&url).await.ok()?;
        (page.status == StatusCode::OK).then_some(())
    });
    Box::pin(back).await.unwrap();
    parts.gateway.log().line_with(&["the session database is back"]).await.unwrap();
    line(&parts.other, "the session database is back").await;
    let (head, mut stream) = parts.stream(FAR, &cookie).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    alice.sign_out(&url).await.unwrap();
    end(&mut stream).await;
    parts.keep_secrets();
}

/// What the doctor finds of the store.
async fn doctor(gateway: &Gateway) -> Value {
    let mut command = Command::new(binary("pomerium-gateway").unwrap());
    command.args(["doctor", "--json", "--config"]).arg(gateway.config()).current_dir(gateway.folder());
    let output = wait::within("the doctor", command.output()).await.unwrap().unwrap();
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found = all.iter().find(|finding| finding["about"] == "store");
    found.unwrap_or_else(|| panic!("nothing about the store: {all:?}")).clone()
}

/// Where the gateways are outside of the tunnels, and where the app is.
const DOORS: [&str; 2] = ["10.77.0.1", "10.77.0.9"];
const HOME: &str = "10.77.0.2";

/// What a gateway says of its door. Devices are told of one name for both.
fn door(address: &str) -> String {
    format!("wireguard_address: {address}:51820\nwireguard_endpoint: gateway.corp.test:51820\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_one_gateway_comes_in_at_the_other_until_it_is_taken_away() {
    let story = "several::a_device_of_one_gateway_comes_in_at_the_other_until_it_is_taken_away";
    if !inside(story, "nameserver 100.64.0.1\n").await.unwrap() {
        return;
    }
    for address in [DOORS[0], DOORS[1], HOME] {
        ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]).await.unwrap();
    }
    let far = ["route", "replace", "local", DOORS[1], "dev", "lo", "table", "local", "src", HOME];
    ip(&far).await.unwrap();
    let (postgres, echo) = (Postgres::start().await.unwrap(), Echo::start().await.unwrap());
    let (url, own) = (postgres.url(), door(DOORS[0]));
    let options = Options { more: &own, database: Some(&url), ..Options::default() };
    let routes = [Route::tcp(DESTINATION, echo.address)];
    let gateway = Box::pin(Gateway::start_with(&routes, &options)).await.unwrap();
    let other = gateway.spawn_at(FAR, &own, &door(DOORS[1])).unwrap();
    up(&other).await.unwrap();

    let cli = Cli::new(&gateway, "alice").unwrap();
    let file = gateway.folder().join("laptop.conf");
    let mut command =
        cli.command(&["wg", "add", "laptop", "--no-qr", "--output", file.to_str().unwrap()]).unwrap();
    let output = wait::within("the enrolment", command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), cli.trouble());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("Endpoint = gateway.corp.test:51820"), "{text}");
    std::fs::write(&file, text.replace("gateway.corp.test", DOORS[1])).unwrap();
    let _device = WireGuardApp::up(&file, Implementation::WireGuardGo).await.unwrap();
    let found = wait::until("an address", async || lookup_host(DESTINATION).await.ok()).await.unwrap();
    let to: SocketAddr = found.into_iter().find(SocketAddr::is_ipv4).unwrap();
    wait::within("an echo", exchange(to, b"hello")).await.unwrap().unwrap();
    line(&other, "wireguard peer is up").await;
    assert_eq!(gateway.log().count("wireguard peer is up"), 0);

    let mut stream = wait::within("a stream", TcpStream::connect(to)).await.unwrap().unwrap();
    let listed = administer(&gateway, "wireguard", &["list", "--user", "alice@corp.example"]).await;
    let id =
        listed.lines().find_map(|line| line.contains("laptop").then(|| line.split(' ').next())).flatten();
    let revoking = async {
        administer(&gateway, "wireguard", &["revoke", id.unwrap()]).await;
        Instant::now()
    };
    let (revoked, ended) = tokio::join!(revoking, end(&mut stream));
    let after = ended.saturating_duration_since(revoked);
    assert!(after < Duration::from_secs(1), "{after:?} after it was revoked");
    line(&other, "wireguard peer ended").await;
}
