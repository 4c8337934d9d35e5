//! The client's daemon, and commands that find it.

use std::{net::SocketAddr, process::Stdio};

use support::{
    cli::Cli,
    echo::{Echo, FAREWELL, UdpEcho, exchange},
    gateway::{Gateway, Route},
    port, wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

const DESTINATION: &str = "echo.corp.test:7007";
/// What the gateway logs once a handshake.
const HANDSHAKE: &str = "quic connection opened";

#[tokio::test(flavor = "multi_thread")]
async fn all_commands_share_the_daemons_sign_in_and_connection() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();

    // A forward that is kept: on an address of its own, held by the daemon.
    let kept = cli.said(&["connect", "--save", DESTINATION]).await.unwrap();
    assert!(kept.contains("the daemon holds 1 forwards"), "{kept}");
    let words: Vec<&str> = kept.split_whitespace().collect();
    let address: SocketAddr = words.iter().find_map(|word| word.parse().ok()).unwrap();
    assert!(address.ip().is_loopback() && address.port() == 7007, "{kept}");
    assert_eq!(exchange(address, b"kept").await.unwrap(), [&b"kept"[..], FAREWELL].concat());

    // A command's own stream.
    let mut command = cli.plain(&["tcp", DESTINATION, "--listen", "-"]).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"mine").await.unwrap();
    let answer = child.wait_with_output().await.unwrap();
    assert!(answer.status.success());
    assert_eq!(answer.stdout, [&b"mine"[..], FAREWELL].concat());

    let status: serde_json::Value =
        serde_json::from_str(&cli.said(&["status", "--json"]).await.unwrap()).unwrap();
    let held = &status["daemon"]["gateways"][0];
    assert_eq!((&held["transport"], &held["signed_in"]), (&"quic".into(), &true.into()), "{status}");
    assert_eq!(held["routes"][0]["streams_total"], 2, "{status}");
    assert!(held["round_trip_ms"].is_number(), "{status}");
    assert_eq!(cli.sign_ins(), 1);
    assert_eq!(gateway.log().count(HANDSHAKE), 1, "one connection for all");

    let second = cli.plain(&["daemon"]).unwrap().output().await.unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(64) && said.contains("a daemon runs already"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_keeps_ports_for_datagrams_and_a_proxy_too() {
    let (echo, datagrams) = (Echo::start().await.unwrap(), UdpEcho::start().await.unwrap());
    let routes = [Route::tcp(DESTINATION, echo.address), Route::udp("dns.corp.test:7053", datagrams.address)];
    let gateway = Gateway::start(&routes).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    cli.said(&["connect", "--save"]).await.unwrap();
    let listen = format!("127.0.0.1:{}", port::reserve().unwrap());
    let kept = cli.said(&["proxy", "--save", "--listen", &listen]).await.unwrap();
    assert!(kept.contains("the daemon holds 3 forwards"), "{kept}");

    let status: serde_json::Value =
        serde_json::from_str(&cli.said(&["status", "--json"]).await.unwrap()).unwrap();
    let held = status["daemon"]["gateways"][0]["routes"].as_array().unwrap();
    let at = |account: &str| -> SocketAddr {
        let route = held.iter().find(|route| route["destination"] == account).unwrap();
        route["listen"].as_str().unwrap().parse().unwrap()
    };
    let program = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    program.connect(at("dns.corp.test:7053/udp")).await.unwrap();
    assert_eq!(at("dns.corp.test:7053/udp").port(), 7053);
    let heard = wait::until("an answer", async || {
        program.send(b"question").await.ok()?;
        let mut answer = [0; 16];
        let answered =
            tokio::time::timeout(std::time::Duration::from_secs(1), program.recv(&mut answer)).await;
        answered.ok()?.ok()
    });
    assert_eq!(heard.await.unwrap(), 8);

    let mut stream = TcpStream::connect(at("proxy")).await.unwrap();
    let connect = format!("CONNECT {DESTINATION} HTTP/1.1\r\nHost: {DESTINATION}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let file = std::fs::read_to_string(cli.cache().parent().unwrap().join("config/pomerium/forwards.yaml"));
    assert_eq!(file.unwrap().matches("- name:").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_reads_why_in_the_browsers_own_words_and_the_port_stays() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp("app.corp.test:8080", echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "bob").unwrap();
    let folder = cli.cache().parent().unwrap().join("config/pomerium");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "forwards:\n  - gateway: https://localhost:{}\n    route: app.corp.test:8080\n",
        gateway.port
    );
    std::fs::write(folder.join("forwards.yaml"), text).unwrap();
    let daemon = cli.daemon().unwrap();
    let find = |line: &str| {
        let words: Vec<&str> = line.split("listen=").collect();
        words.get(1)?.split_whitespace().next()?.parse::<SocketAddr>().ok()
    };
    let address = daemon.errors.find("a forward that is open", find).await.unwrap();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not allowed"), "{answer}");
    }
    assert_eq!(echo.dials(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_hears_through_the_daemon_why_its_stream_was_cut() {
    let echo = Echo::start().await.unwrap();
    let route = Route::tcp(DESTINATION, echo.address);
    let gateway = Gateway::start(std::slice::from_ref(&route)).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let daemon = cli.daemon().unwrap();
    daemon.errors.line_with("the daemon answers").await.unwrap();
    let mut command = cli.plain(&["tcp", DESTINATION, "--listen", "-"]).unwrap();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"x").await.unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).await.unwrap();
    gateway.write_routes(&[route.policy("[{deny: {and: [{accept: true}]}}]")]).unwrap();
    gateway.reload().unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the stream ended: policy"), "{said}");
    drop(input);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_that_cannot_be_opened_keeps_no_other_from_it_and_one_that_is_renamed_keeps_its_port() {
    let echo = Echo::start().await.unwrap();
    let gateway = Gateway::start(&[Route::tcp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let folder = cli.cache().parent().unwrap().join("config/pomerium");
    std::fs::create_dir_all(&folder).unwrap();
    let ours = format!("https://localhost:{}", gateway.port);
    let write = |name: &str| {
        let mut text =
            format!("forwards:\n  - {{name: first, gateway: '{ours}', route: 'other.corp.test:1'}}\n");
        // More gateways than the daemon takes; nobody answers there.
        for port in 1..20 {
            text.push_str(&format!(
                "  - {{name: n{port}, gateway: 'https://127.0.0.1:{port}', route: 'a:{port}'}}\n"
            ));
        }
        text.push_str(&format!("  - {{name: {name}, gateway: '{ours}', route: '{DESTINATION}'}}\n"));
        std::fs::write(folder.join("forwards.yaml"), text).unwrap();
    };
    write("last");
    let daemon = cli.daemon().unwrap();
    let listen = |name: &str| {
        let name = format!("name={name} ");
        move |line: &str| {
            let rest = line.contains(&name).then(|| line.split("listen=").nth(1)).flatten()?;
            rest.split_whitespace().next()?.parse::<SocketAddr>().ok()
        }
    };
    let address = daemon.errors.find("the last forward", listen("last")).await.unwrap();
    assert!(daemon.errors.text().contains("could not be opened"), "{}", daemon.errors.text());
    write("renamed");
    assert_eq!(daemon.errors.find("its new name", listen("renamed")).await.unwrap(), address);
    let failed = |line: &&String| line.contains("could not be opened") && line.contains("name=renamed");
    assert!(!daemon.errors.lines().iter().any(|line| failed(&line)), "{}", daemon.errors.text());
    assert_eq!(exchange(address, b"kept").await.unwrap(), [&b"kept"[..], FAREWELL].concat());
}
