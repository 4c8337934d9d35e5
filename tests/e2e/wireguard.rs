//! Unmodified WireGuard apps, in a namespace of their own: routes by name, policy for each stream, and an end to it.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use support::{
    app::App,
    cli::Cli,
    echo::{Echo, FAREWELL, UdpEcho, exchange},
    gateway::{Gateway, Options, Route},
    namespace::{inside, ip},
    postgres::Postgres,
    sshd::Sshd,
    wait,
    wireguard::{Implementation, WireGuardApp},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, lookup_host},
    process::Command,
    time::Instant,
};

/// The gateway's address in the world outside of the tunnel, and two that the app has there.
const GATEWAY: &str = "10.77.0.1";
const HOMES: [&str; 2] = ["10.77.0.2", "10.77.0.3"];
/// The gateway's own address inside the tunnel, where names are asked for.
const INSIDE: &str = "100.64.0.1";
const RESOLV_CONF: &str = "nameserver 100.64.0.1\n";
const DOOR: &str = "wireguard_address: 10.77.0.1:51820\nwireguard_endpoint: 10.77.0.1:51820\n";
/// More than all buffers on the way together.
const DOWNLOAD: usize = 1 << 30;

/// A gateway with a WireGuard door, on an address that the app reaches from one of its own.
async fn gateway(routes: &[Route]) -> Gateway {
    for address in [GATEWAY, HOMES[0], HOMES[1]] {
        ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]).await.unwrap();
    }
    live_at(HOMES[0]).await;
    Gateway::start_with(routes, &Options { more: DOOR, ..Options::default() }).await.unwrap()
}

/// Has the app speak from this address from now on.
async fn live_at(home: &str) {
    let route = ["route", "replace", "local", GATEWAY, "dev", "lo", "table", "local", "src", home];
    ip(&route).await.unwrap();
}

/// The file of a device that `name` enrols, and the client that did it.
async fn enrolled(gateway: &Gateway, name: &str) -> (Cli, PathBuf) {
    let cli = Cli::new(gateway, name).unwrap();
    let file = gateway.folder().join(format!("{name}.conf"));
    let path = file.to_str().unwrap();
    let mut command = cli.command(&["wg", "add", "laptop", "--no-qr", "--output", path]).unwrap();
    let output = wait::within("the enrolment", command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cli, file)
}

async fn address(name: &str) -> SocketAddr {
    let found = wait::until("an address", async || lookup_host(name).await.ok()).await.unwrap();
    let all: Vec<_> = found.collect();
    *all.iter().find(|one| one.is_ipv4()).unwrap_or_else(|| panic!("{all:?}"))
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    wait::within("an answer", TcpStream::connect(to)).await.unwrap()
}

async fn echoed(to: SocketAddr, text: &[u8]) -> Vec<u8> {
    wait::within("an echo", exchange(to, text)).await.unwrap().unwrap()
}

/// Asks for a page, as plain HTTP, and reads until the end.
async fn page(to: SocketAddr, host: &str, path: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    wait::within("a page", exchange).await.unwrap().unwrap()
}

/// ssh, psql, a web app and a UDP service, each by its name.
async fn everything_by_name(implementation: Implementation) {
    let (sshd, postgres) = (Sshd::start().await.unwrap(), Postgres::start().await.unwrap());
    let (app, datagrams) = (App::start().await.unwrap(), UdpEcho::start().await.unwrap());
    let gateway = gateway(&[
        Route::tcp("ssh.corp.test:22", sshd.address),
        Route::tcp("db.corp.test:5432", format!("127.0.0.1:{}", postgres.port)),
        Route::tcp("app.corp.test:80", app.address),
        Route::udp("echo.corp.test:9", datagrams.address),
    ])
    .await;
    let (_cli, file) = enrolled(&gateway, "alice").await;
    let device = WireGuardApp::up(&file, implementation).await.unwrap();

    let pinged = wait::until("an echo", async || {
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "-W", "2", INSIDE]).kill_on_drop(true);
        ping.output().await.ok().filter(|output| output.status.success())
    });
    pinged.await.unwrap();
    device.connected().await.unwrap();
    gateway.log().line_with(&["wireguard peer is up"]).await.unwrap();

    let mut ssh = Command::new("ssh");
    ssh.args(sshd.client_options("ssh.corp.test")).args(["root@ssh.corp.test", "echo", "inside"]);
    let output = wait::within("ssh", ssh.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"inside\n", "{}", String::from_utf8_lossy(&output.stderr));

    let mut psql = Command::new("psql");
    psql.args(["-h", "db.corp.test", "-U", "postgres", "-X", "-A", "-t", "-c", "select 1"]);
    let output = wait::within("psql", psql.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"1\n", "{}", String::from_utf8_lossy(&output.stderr));

    let answer = page(address("app.corp.test:80").await, "app.corp.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let to = address("echo.corp.test:9").await;
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(to).await.unwrap();
    let asked = wait::until("a datagram's echo", async || {
        socket.send(b"ping").await.ok()?;
        let mut answer = [0; 64];
        let len =
            tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut answer)).await.ok()?.ok()?;
        (&answer[..len] == b"ping").then_some(())
    });
    asked.await.unwrap();
    gateway.log().line_with(&["stream opened", "echo.corp.test:9"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wireguard_go_reaches_ssh_psql_a_web_app_and_a_udp_service_by_name() {
    let story = "wireguard::wireguard_go_reaches_ssh_psql_a_web_app_and_a_udp_service_by_name";
    if inside(story, RESOLV_CONF).await.unwrap() {
        everything_by_name(Implementation::WireGuardGo).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boringtun_reaches_ssh_psql_a_web_app_and_a_udp_service_by_name() {
    let story = "wireguard::boringtun_reaches_ssh_psql_a_web_app_and_a_udp_service_by_name";
    if inside(story, RESOLV_CONF).await.unwrap() {
        everything_by_name(Implementation::BoringTun).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_denies_is_refused_and_the_refusal_can_be_read() {
    let story = "wireguard::what_policy_denies_is_refused_and_the_refusal_can_be_read";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let echo = Echo::start().await.unwrap();
    let gateway = gateway(&[
        Route::tcp("echo.corp.test:7", echo.address),
        Route::tcp("echo.corp.test:80", echo.address),
        Route::tcp("open.corp.test:7", echo.address)
            .policy("[{allow: {and: [{email: {is: bob@corp.example}}]}}]"),
        Route::tcp("bound.corp.test:7", echo.address)
            .policy("[{allow: {and: [{email: {is: bob@corp.example}}, {session/bound: true}]}}]"),
    ])
    .await;
    let (_cli, file) = enrolled(&gateway, "bob").await;
    let _device = WireGuardApp::up(&file, Implementation::WireGuardGo).await.unwrap();

    let open = address("open.corp.test:7").await;
    assert_eq!(echoed(open, b"hello").await, [b"hello", FAREWELL].concat());
    let to = address("echo.corp.test:7").await;
    let error = connect(to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable, "policy's no is not a closed port: {error}");
    gateway
        .log()
        .line_with(&["authorize check", "email-unauthorized", "bob@corp.example", "echo.corp.test"])
        .await
        .unwrap();
    // The client enrolled with a session that is bound to its key; what comes out of the tunnel has not shown that.
    let error = connect(address("bound.corp.test:7").await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    let error = connect(SocketAddr::new(to.ip(), 8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let answer = page(SocketAddr::new(to.ip(), 80), "echo.corp.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("bob@corp.example") && answer.contains("echo.corp.test"), "{answer}");
    assert_eq!(echo.dials(), 1, "nothing but the one stream that was allowed");

    // Names of nobody here, and addresses of nobody here.
    assert!(lookup_host("www.example.com:80").await.is_err());
    let stranger: IpAddr = "100.64.9.9".parse().unwrap();
    let silence =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(SocketAddr::new(stranger, 7)));
    assert!(silence.await.is_err(), "nobody answers for an address that is no route's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_revoked_cuts_the_running_download_within_a_second() {
    let story = "wireguard::a_session_that_is_revoked_cuts_the_running_download_within_a_second";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let app = App::start().await.unwrap();
    let gateway = gateway(&[Route::tcp("app.corp.test:80", app.address)]).await;
    let (cli, file) = enrolled(&gateway, "alice").await;
    let _device = WireGuardApp::up(&file, Implementation::WireGuardGo).await.unwrap();
    let to = address("app.corp.test:80").await;
    let mut download = download(to).await;
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..64 {
        download.read_exact(&mut buffer).await.unwrap();
    }

    let reading = async {
        let (mut total, mut last) = (0, Instant::now());
        while let Ok(count @ 1..) = download.read(&mut buffer).await {
            (total, last) = (total + count, Instant::now());
        }
        (total, last)
    };
    let reading = async {
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, reading).await.expect("the peer hears that it is cut")
    };
    let (revoked, (total, last)) = tokio::join!(
        async {
            cli.log_out().await.unwrap();
            Instant::now()
        },
        reading
    );
    assert!(total < DOWNLOAD, "the whole download came");
    let after = last.saturating_duration_since(revoked);
    assert!(after < Duration::from_secs(1), "{after:?} after the sign-out");
    gateway.log().line_with(&["stream ended", "\"reason\":\"session\""]).await.unwrap();
    gateway.log().line_with(&["wireguard peer ended"]).await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(to)).await;
    assert!(!matches!(again, Ok(Ok(_))), "no peer any more");
}

/// A download that takes its time.
async fn download(to: SocketAddr) -> TcpStream {
    let mut stream = connect(to).await.unwrap();
    let request = format!("GET /download?{DOWNLOAD} HTTP/1.1\r\nHost: app.corp.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// One transfer that begins at one address and ends at another.
async fn roams(implementation: Implementation) {
    let echo = Echo::start().await.unwrap();
    let gateway = gateway(&[Route::tcp("echo.corp.test:7", echo.address)]).await;
    let (_cli, file) = enrolled(&gateway, "alice").await;
    let _device = WireGuardApp::up(&file, implementation).await.unwrap();
    let mut stream = connect(address("echo.corp.test:7").await).await.unwrap();
    let mut round = async |number: u8| {
        let sent = vec![number; 100_000];
        let mut came = vec![0; sent.len()];
        let (mut reader, mut writer) = stream.split();
        let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut came)) };
        let (written, read) = wait::within("an echo", both).await.unwrap();
        written.unwrap();
        read.unwrap();
        assert_eq!(came, sent);
    };
    for number in 0..20 {
        round(number).await;
    }
    gateway.log().line_with(&["wireguard peer is up", HOMES[0]]).await.unwrap();
    live_at(HOMES[1]).await;
    ip(&["addr", "del", &format!("{}/32", HOMES[0]), "dev", "lo"]).await.unwrap();
    for number in 20..40 {
        round(number).await;
    }
    gateway.log().line_with(&["wireguard peer has moved", HOMES[1]]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wireguard_go_moves_to_another_address_in_the_middle_of_a_transfer() {
    let story = "wireguard::wireguard_go_moves_to_another_address_in_the_middle_of_a_transfer";
    if inside(story, RESOLV_CONF).await.unwrap() {
        roams(Implementation::WireGuardGo).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn boringtun_moves_to_another_address_in_the_middle_of_a_transfer() {
    let story = "wireguard::boringtun_moves_to_another_address_in_the_middle_of_a_transfer";
    if inside(story, RESOLV_CONF).await.unwrap() {
        roams(Implementation::BoringTun).await;
    }
}
