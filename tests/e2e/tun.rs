//! Routes by their names and own ports, through a network device, in a namespace of its own.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use support::{
    cli::Cli,
    echo::{Echo, FAREWELL, UdpEcho, exchange},
    gateway::{Gateway, Route},
    namespace::{inside, ip},
    network::Far,
    postgres::Postgres,
    process::{Input, Process},
    sshd::Sshd,
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, lookup_host},
    process::Command,
    task::JoinSet,
};

pub(super) const RESOLV_CONF: &str = "# as the machine came\nnameserver 127.0.0.53\n";
pub(super) const FILE: &str = "/etc/resolv.conf";
pub(super) const DESTINATION: &str = "echo.corp.test:7";
const DATAGRAMS: &str = "echo.corp.test:9";
const LATER: &str = "later.corp.test:7008";
const FORBIDDEN: &str = "secret.corp.test:7";
/// An address of nobody here (RFC 5737), and the name that the machine's own server knows it by.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const OUTSIDE_NAME: &str = "outside.example";
const STREAMS: usize = 500;

pub(super) struct Parts {
    pub(super) gateway: Gateway,
    pub(super) cli: Cli,
    pub(super) echo: (Echo, UdpEcho),
}

pub(super) async fn parts() -> anyhow::Result<Parts> {
    let (echo, datagrams) = (Echo::start().await?, UdpEcho::start().await?);
    let gateway = Gateway::start(&[
        Route::tcp(DESTINATION, echo.address),
        Route::udp(DATAGRAMS, datagrams.address),
        Route::tcp(FORBIDDEN, echo.address)
            .policy("[{allow: {and: [{email: {is: alice@corp.example}}, {http_method: {is: GET}}]}}]"),
    ])
    .await?;
    let cli = Cli::new(&gateway, "alice")?;
    Ok(Parts { gateway, cli, echo: (echo, datagrams) })
}

/// A route that comes to the gateway is reached by its name through the device that runs, and one that goes is captured no more.
pub(super) async fn follows_the_list(parts: &Parts) {
    let (gateway, echo) = (&parts.gateway, parts.echo.0.address);
    gateway.log().line_with(&["http-request", "/.pomerium/api/v1/events"]).await.unwrap();
    let old = addresses(DESTINATION).await.unwrap()[0];
    let mut live = wait::within("a stream", TcpStream::connect(old)).await.unwrap().unwrap();
    live.write_all(b"alive").await.unwrap();
    wait::within("its echo", live.read_exact(&mut [0; 5])).await.unwrap().unwrap();
    assert!(addresses(LATER).await.is_err(), "nobody knows it yet");

    gateway.write_routes(&[Route::tcp(DESTINATION, echo), Route::tcp(LATER, echo)]).unwrap();
    gateway.reload().unwrap();
    let new = wait::until("its address", async || addresses(LATER).await.ok()?.pop()).await.unwrap();
    assert_eq!(echoed(new, b"new").await.unwrap(), [b"new", FAREWELL].concat());
    live.write_all(b"still").await.unwrap();
    wait::within("its echo", live.read_exact(&mut [0; 5])).await.unwrap().unwrap();

    gateway.write_routes(&[Route::tcp(LATER, echo)]).unwrap();
    gateway.reload().unwrap();
    let captured = async || {
        let all = [
            ip(&["route", "show", "table", "all", "dev", "pomerium0"]).await.unwrap(),
            ip(&["-6", "route", "show", "dev", "pomerium0"]).await.unwrap(),
        ];
        all.concat().split_whitespace().any(|word| word == old.ip().to_string())
    };
    wait::until("its addresses to be let go", async || (!captured().await).then_some(())).await.unwrap();
    assert!(addresses(DESTINATION).await.is_err(), "its name is nobody's");
    let mut rest = Vec::new();
    let _cut_or_ended = wait::within("its stream's end", live.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(echoed(new, b"same").await.unwrap(), [b"same", FAREWELL].concat());
}

/// The client with its device, once it has a connection.
pub(super) async fn connected(cli: &Cli) -> anyhow::Result<Process> {
    let client = cli.spawn(&["connect", "--tun"], Input::None)?;
    client.output.line_with("gateway: connected").await?;
    Ok(client)
}

/// What `status` says of the device.
pub(super) async fn status(cli: &Cli) -> anyhow::Result<serde_json::Value> {
    let status: serde_json::Value = serde_json::from_str(&cli.said(&["status", "--json"]).await?)?;
    Ok(status["daemon"]["tun"].clone())
}

pub(super) async fn addresses(name: &str) -> anyhow::Result<Vec<SocketAddr>> {
    Ok(wait::within("an address", lookup_host(name)).await??.collect())
}

pub(super) async fn echoed(to: SocketAddr, text: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(wait::within("an echo", exchange(to, text)).await??)
}

/// The machine's own name server, which knows one name.
pub(super) async fn name_server(at: &str) -> anyhow::Result<JoinSet<()>> {
    let socket = UdpSocket::bind((at, 53)).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut question = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut question).await {
            let answer = answer(&question[..len]);
            let _lost = socket.send_to(&answer, from).await;
        }
    });
    Ok(task)
}

/// A message of RFC 1035: the one name has the one address; there are no others.
fn answer(question: &[u8]) -> Vec<u8> {
    let name: Vec<u8> =
        OUTSIDE_NAME.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    let asked = question.get(12..).unwrap_or_default();
    let end =
        asked.iter().position(|octet| *octet == 0).map_or(asked.len(), |end| (end + 5).min(asked.len()));
    let is_known = asked.starts_with(&name);
    let has_address = is_known && asked.get(end.saturating_sub(4)..end) == Some(&[0, 1, 0, 1][..]);
    let flags = if is_known { [0x81, 0x80] } else { [0x81, 0x83] };
    let mut message = [&question[..2], &flags, &[0, 1, 0, u8::from(has_address), 0, 0, 0, 0]].concat();
    message.extend(&asked[..end]);
    if has_address {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(OUTSIDE.octets());
    }
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_reach_routes_by_name_and_nothing_else_is_touched() {
    let story = "tun::programs_reach_routes_by_name_and_nothing_else_is_touched";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { gateway, cli, echo } = parts().await.unwrap();
    let _names = name_server("127.0.0.53").await.unwrap();
    let mut client = connected(&cli).await.unwrap();

    // Both kinds of address, each with the whole exchange.
    let all = addresses(DESTINATION).await.unwrap();
    for kind in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let to = *all.iter().find(|to| kind(&to.ip())).unwrap_or_else(|| panic!("{all:?}"));
        assert_eq!(echoed(to, b"hello").await.unwrap(), [b"hello", FAREWELL].concat());
    }
    let to = all[0];
    let mut many = JoinSet::new();
    for number in 0..STREAMS {
        many.spawn(async move {
            let text = format!("stream {number}");
            echoed(to, text.as_bytes()).await.map(|answer| answer == [text.as_bytes(), FAREWELL].concat())
        });
    }
    let whole =
        many.join_all().await.into_iter().filter(|one| one.as_ref().is_ok_and(|is_whole| *is_whole)).count();
    assert_eq!(whole, STREAMS);

    // Datagrams.
    let to = addresses(DATAGRAMS).await.unwrap()[0];
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(to).await.unwrap();
    let mut answer = [0; 64];
    let asked = wait::until("a datagram's echo", async || {
        socket.send(b"ping").await.ok()?;
        let len =
            tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut [0; 64])).await.ok()?.ok()?;
        (len == 4).then_some(())
    });
    asked.await.unwrap();
    socket.send(b"once more").await.unwrap();
    let _len = wait::within("an echo", socket.recv(&mut answer)).await.unwrap().unwrap();

    // A port that no route has, a route that is not for alice, and one that is not any more: refused, not left hanging.
    let closed = SocketAddr::new(all[0].ip(), 8);
    let error = wait::within("a refusal", TcpStream::connect(closed)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(addresses(FORBIDDEN).await.is_err(), "what is not for alice has no name here");
    let denied = "[{allow: {and: [{email: {is: bob@corp.example}}]}}]";
    gateway.write_routes(&[Route::tcp(DESTINATION, echo.0.address).policy(denied)]).unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["configuration reloaded"]).await.unwrap();
    let error = wait::within("a refusal", TcpStream::connect(all[0])).await.unwrap().unwrap_err();
    // EACCES over IPv6, EHOSTUNREACH over IPv4.
    let is_prohibited = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::HostUnreachable);
    assert!(is_prohibited, "policy's no is not a closed port: {error}");
    client.output.line_with("email-unauthorized").await.unwrap();

    // What is not the gateway's stays outside: another name, its address, and the rest of our own network.
    ip(&["addr", "add", "192.0.2.1/32", "dev", "lo"]).await.unwrap();
    let outside = TcpListener::bind((OUTSIDE, 80)).await.unwrap();
    let found = addresses(&format!("{OUTSIDE_NAME}:80")).await.unwrap();
    assert_eq!(found, [SocketAddr::from((OUTSIDE, 80))]);
    let (stream, accepted) = tokio::join!(TcpStream::connect(found[0]), outside.accept());
    assert!(stream.is_ok() && accepted.is_ok());
    let routes = ip(&["route", "show", "dev", "pomerium0"]).await.unwrap();
    assert!(routes.lines().all(|line| !line.contains('/') && !line.contains("default")), "{routes}");

    // Asked to stop, it leaves everything as it was.
    client.signal("INT").unwrap();
    assert!(client.wait().await.unwrap().success());
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), RESOLV_CONF);
    assert!(ip(&["link", "show", "pomerium0"]).await.is_err());
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_leaves_nothing_that_cannot_be_repaired() {
    let story = "tun::a_client_that_is_killed_leaves_nothing_that_cannot_be_repaired";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let Parts { cli, gateway, echo: _echo } = parts().await.unwrap();
    let _names = name_server("127.0.0.53").await.unwrap();
    let mut client = connected(&cli).await.unwrap();
    let text = std::fs::read_to_string(FILE).unwrap();
    assert!(text.contains("nameserver 100.64.0.2\n") && text.ends_with(RESOLV_CONF), "{text}");
    let second = cli.spawn(&["connect", "--tun"], Input::None).unwrap().wait().await.unwrap();
    assert!(!second.success(), "one at a time");

    client.kill().await.unwrap();
    assert!(ip(&["link", "show", "pomerium0"]).await.is_err(), "device and routes end with the process");
    assert!(std::fs::read_to_string(FILE).unwrap().contains("100.64.0.2"));
    let mut repair = cli.plain(&["repair"]).unwrap();
    let output = repair.output().await.unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"Repaired"), "{output:?}");
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), RESOLV_CONF);

    // Without a repair, the next one sets things right as it ends.
    let mut client = connected(&cli).await.unwrap();
    client.kill().await.unwrap();
    let mut client = connected(&cli).await.unwrap();
    let to = addresses(DESTINATION).await.unwrap()[0];
    assert_eq!(echoed(to, b"again").await.unwrap(), [b"again", FAREWELL].concat());
    client.signal("TERM").unwrap();
    assert!(client.wait().await.unwrap().success());
    assert_eq!(std::fs::read_to_string(FILE).unwrap(), RESOLV_CONF);
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_and_psql_need_a_host_name_and_no_more() {
    let story = "tun::ssh_and_psql_need_a_host_name_and_no_more";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let (sshd, postgres) = (Sshd::start().await.unwrap(), Postgres::start().await.unwrap());
    let database = format!("127.0.0.1:{}", postgres.port);
    let routes = [Route::tcp("ssh.corp.test:22", sshd.address), Route::tcp("db.corp.test:5432", database)];
    let gateway = Gateway::start(&routes).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let _client = connected(&cli).await.unwrap();

    let mut ssh = Command::new("ssh");
    ssh.args(sshd.client_options("ssh.corp.test")).args(["root@ssh.corp.test", "echo", "inside"]);
    let output = wait::within("ssh", ssh.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"inside\n", "{}", String::from_utf8_lossy(&output.stderr));

    let mut psql = Command::new("psql");
    psql.args(["-h", "db.corp.test", "-U", "postgres", "-X", "-A", "-t", "-c", "select 1"]);
    let output = wait::within("psql", psql.kill_on_drop(true).output()).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"1\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_follows_the_gateways_list() {
    let story = "tun::the_device_follows_the_gateways_list";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    let _names = name_server("127.0.0.53").await.unwrap();
    let parts = parts().await.unwrap();
    let client = connected(&parts.cli).await.unwrap();
    follows_the_list(&parts).await;
    client.output.line_with("lists it for you no more").await.unwrap();
    assert_eq!(parts.cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_and_iperf3_go_through_and_curl_to_an_address_outside_does_not() {
    let story = "tun::dig_and_iperf3_go_through_and_curl_to_an_address_outside_does_not";
    if !inside(story, RESOLV_CONF).await.unwrap() {
        return;
    }
    // A name server of the company, and a meter that wants one port for both protocols.
    let _names = name_server("127.0.0.53").await.unwrap();
    let mut command = Command::new("iperf3");
    let meter =
        Process::spawn("iperf3 -s", command.args(["-s", "-B", "127.0.0.1", "--forceflush"]), Input::None)
            .unwrap();
    meter.output.line_with("listening on 5201").await.unwrap();
    let echo = Echo::start().await.unwrap();
    let meter_at = "127.0.0.1:5201";
    let routes = [
        Route::tcp(DESTINATION, echo.address),
        Route::udp("dns.corp.test:53", "127.0.0.53:53"),
        Route::tcp("meter.corp.test:5201", meter_at),
        Route::udp("meter.corp.test:5201", meter_at),
    ];
    let gateway = Gateway::start(&routes).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let _client = connected(&cli).await.unwrap();

    // The device's own server knows our hosts and refuses others; the company's, behind the gateway, is asked by its name.
    let to = addresses(DESTINATION).await.unwrap();
    let known =
        said("dig", &["@100.64.0.2", "+short", "echo.corp.test", "A", "echo.corp.test", "AAAA"]).await;
    let known: Vec<IpAddr> = known.lines().map(|line| line.parse().unwrap()).collect();
    assert!(known.len() == 2 && to.iter().all(|to| known.contains(&to.ip())), "{known:?} {to:?}");
    assert!(said("dig", &["@100.64.0.2", OUTSIDE_NAME]).await.contains("status: REFUSED"));
    assert_eq!(said("dig", &["@dns.corp.test", "+short", OUTSIDE_NAME]).await, format!("{OUTSIDE}\n"));

    for kind in ["-4", "-6"] {
        let words = ["-c", "meter.corp.test", kind, "-u", "-b", "8M", "-l", "1000", "-t", "2", "-J"];
        let report: serde_json::Value = serde_json::from_str(&said("iperf3", &words).await).unwrap();
        let sum = &report["end"]["sum"];
        assert!(sum["bytes"].as_u64().is_some_and(|octets| octets > 1_000_000), "{report}");
        assert!(sum["lost_percent"].as_f64().is_some_and(|lost| lost < 5.0), "{kind}: {sum}");
    }

    // A web server on the far side of another device, and both devices watched.
    let far = Far::new().await.unwrap();
    let wire = far.wire(0).await.unwrap();
    far.join(&wire).await.unwrap();
    let page =
        ["/usr/bin/python3", "-u", "-m", "http.server", "80", "--bind", "10.77.0.2"].map(str::to_owned);
    let web = Process::spawn("a web server outside", &mut far.command(&page), Input::None).unwrap();
    web.output.line_with("Serving HTTP").await.unwrap();
    let (ours, other) = (watched("pomerium0").await.unwrap(), watched("near0").await.unwrap());
    let listing = said("curl", &["--silent", "--show-error", "http://10.77.0.2/"]).await;
    assert!(listing.contains("Directory listing"), "{listing}");
    assert_eq!(echoed(to[0], b"inside").await.unwrap(), [b"inside", FAREWELL].concat());
    other.output.line_with("10.77.0.2.80").await.unwrap();
    // Later than all of curl's.
    ours.output.line_with(&to[0].ip().to_string()).await.unwrap();
    assert_eq!(ours.output.count("10.77.0.2"), 0, "{}", ours.output.text());
    assert_eq!(other.output.count(&to[0].ip().to_string()), 0, "{}", other.output.text());
}

/// What a program says.
async fn said(program: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    let running = command.args(words).kill_on_drop(true).output();
    let output = wait::within(program, running).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{program} {words:?}: {text}{errors}");
    text
}

/// All packets of a device, a line each.
pub(super) async fn watched(device: &str) -> anyhow::Result<Process> {
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-l", "--immediate-mode", "-i", device]);
    let watching = Process::spawn(&format!("tcpdump -i {device}"), &mut command, Input::None)?;
    watching.errors.line_with("listening on").await?;
    Ok(watching)
}
