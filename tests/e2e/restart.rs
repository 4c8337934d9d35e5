//! A gateway that its service manager restarts, as after an update: what is open goes on in the next process.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use support::{
    cat::{Cat, PAUSE},
    cli::Cli,
    echo::{Echo, FAREWELL, exchange},
    gateway::{Gateway, Options, Route, binary},
    process::Process,
    sshd::Sshd,
    systemd::Systemd,
    wait::{until, within},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
    time::Instant,
};

const DESTINATION: &str = "app.corp.test:22";
const SERVICE: &str = "pomerium-gateway";

/// The shipped unit, and what of it a person's own systemd can do as well: not what needs users, folders and namespaces of the
/// machine.
const SHIPPED: &str = include_str!("../../packaging/systemd/pomerium-gateway.service");
const TAKEN: [&str; 16] = [
    "Environment",
    "FileDescriptorStoreMax",
    "LimitNOFILE",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TimeoutStopSec",
    "Type",
    "UMask",
];

/// What has streams kept.
const KEEPS: &str = "FileDescriptorStoreMax=4096\nEnvironment=FDSTORE=4096";

/// A gateway under systemd, and a client whose port leads to the app.
struct Parts {
    systemd: Systemd,
    gateway: Gateway,
    log: PathBuf,
    cli: Cli,
    client: Process,
    port: u16,
}

async fn parts(app: SocketAddr) -> anyhow::Result<Parts> {
    parts_with(app, "").await
}

/// With more lines of configuration.
async fn parts_with(app: SocketAddr, more: &str) -> anyhow::Result<Parts> {
    let options = Options { more, ..Options::default() };
    let mut gateway = Gateway::start_with(&[Route::tcp(DESTINATION, app)], &options).await?;
    gateway.stop().await?;
    let systemd = Systemd::start().await?;
    let log = systemd.write(SERVICE, &unit(&gateway, &gateway.config())?).await?;
    systemd.tell(&["start", SERVICE]).await?;
    gateway.answers().await?;
    let cli = Cli::new(&gateway, "alice")?;
    let (client, port) = cli.listen(DESTINATION).await?;
    Ok(Parts { systemd, gateway, log, cli, client, port })
}

/// The unit of a gateway with this configuration.
fn unit(gateway: &Gateway, config: &Path) -> anyhow::Result<String> {
    let (program, folder) = (binary("pomerium-gateway")?, gateway.folder());
    let is_taken = |line: &&str| line.split_once('=').is_some_and(|(key, _)| TAKEN.contains(&key));
    let taken: Vec<&str> = SHIPPED.lines().filter(is_taken).collect();
    Ok(format!(
        "ExecStart={} run --config {}\nWorkingDirectory={}\n{}\n",
        program.display(),
        config.display(),
        folder.display(),
        taken.join("\n")
    ))
}

impl Parts {
    /// Restarts it, and says how long that took.
    async fn restart(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.systemd.tell(&["restart", SERVICE]).await?;
        Ok(began.elapsed())
    }

    async fn open(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn logged(&self, part: &str, count: usize) {
        let looks = async || (self.log().matches(part).count() >= count).then_some(());
        until(part, looks).await.unwrap_or_else(|error| panic!("{error}: {}", self.log()));
    }
}

/// Says something, and hears it said back.
async fn echoed(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut heard = vec![0; text.len()];
    within("an echo", stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, text);
}

#[test]
fn the_shipped_unit_has_streams_kept() {
    for line in KEEPS.lines() {
        assert!(SHIPPED.lines().any(|of_unit| of_unit == line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_on_after_one_restart_after_the_other() {
    let sshd = Sshd::start().await.unwrap();
    let parts = parts(sshd.address).await.unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args(["-p", &parts.port.to_string()]).args(sshd.client_options("app.corp.test"));
    ssh.args(["root@127.0.0.1", "cat"]);
    let cat = Cat::begin(ssh, PAUSE).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..3 {
        cat.first_octet().await.unwrap();
        let took = parts.restart().await.unwrap();
        waits.push((took, cat.first_octet().await.unwrap()));
    }
    let (sent, lost) = cat.finish().await.unwrap();
    eprintln!("restart, then first octet: {waits:?}; {lost} of {sent} octets lost");
    assert_eq!(lost, 0);
    parts.logged("stream attached", 3).await;
    parts.logged("\"resumed\":3", 1).await;
    assert_eq!(parts.log().matches("stream ended").count(), 1, "{}", parts.log());
    assert_eq!(parts.cli.sign_ins(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_streams_goes_on_where_it_was() {
    let echo = Echo::start().await.unwrap();
    let parts = parts(echo.address).await.unwrap();
    let mut streams = Vec::new();
    for number in 0..50_u8 {
        let mut stream = parts.open().await;
        echoed(&mut stream, &[number; 100]).await;
        streams.push(stream);
    }
    // One has ended its half and takes nothing of what comes back; one is the app's turn.
    let text = vec![b'x'; 20 << 20];
    let (mut slow, mut unread) = parts.open().await.into_split();
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        unread.write_all(&text).await.unwrap();
        unread.shutdown().await.unwrap();
    });
    echo.dialled(51).await.unwrap();
    parts.restart().await.unwrap();
    for (number, stream) in (0..).zip(&mut streams) {
        echoed(stream, &[number; 100]).await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within("the end", stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, FAREWELL, "stream {number}");
    }
    let mut back = Vec::new();
    within("all of it", slow.read_to_end(&mut back)).await.unwrap().unwrap();
    assert_eq!(back.len(), (20 << 20) + FAREWELL.len());
    assert!(back.iter().filter(|octet| **octet == b'x').count() == 20 << 20);
    feeding.join_next().await.unwrap().unwrap();
    assert_eq!(echo.dials(), 51, "no app was dialled again");
    parts.logged("stream ended", 51).await;
    assert_eq!(exchange((Ipv4Addr::LOCALHOST, parts.port).into(), b"new").await.unwrap(), b"newbye");
    assert_eq!(
        parts.systemd.tell(&["show", SERVICE, "-P", "NFileDescriptorStore"]).await.unwrap().trim(),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_that_has_changed_meanwhile_lets_nothing_through() {
    let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = app.local_addr().unwrap();
    let parts = parts_with(address, "stream_resume_window: 5s\n").await.unwrap();
    let mut stream = parts.open().await;
    stream.write_all(b"before").await.unwrap();
    let (mut far, _) = within("the stream", app.accept()).await.unwrap().unwrap();
    let mut heard = [0; 6];
    within("an octet", far.read_exact(&mut heard)).await.unwrap().unwrap();
    // The client does not get to say anything before the gateway is back.
    parts.client.signal("STOP").unwrap();
    stream.write_all(b"after").await.unwrap();
    // The process that runs does not hear of it.
    let config = std::fs::read_to_string(parts.gateway.config()).unwrap();
    let changed = parts.gateway.folder().join("changed.yaml");
    std::fs::write(&changed, config.replace("alice@corp.example", "bob@corp.example")).unwrap();
    parts.systemd.write(SERVICE, &unit(&parts.gateway, &changed).unwrap()).await.unwrap();
    parts.restart().await.unwrap();
    parts.logged("stream left to the next process", 1).await;
    parts.client.signal("CONT").unwrap();
    let mut rest = Vec::new();
    let ended = within("the app to hear of it", far.read_to_end(&mut rest)).await.unwrap();
    assert_eq!((ended.map_err(|error| error.kind()), rest.len()), (Err(ErrorKind::ConnectionReset), 0));
    let mut rest = Vec::new();
    let ended = within("the end", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_comes_back_to_ends_with_its_window() {
    let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let window = "stream_resume_window: 2s\n";
    let mut parts = parts_with(app.local_addr().unwrap(), window).await.unwrap();
    let mut stream = parts.open().await;
    stream.write_all(b"before").await.unwrap();
    let (mut far, _) = within("the stream", app.accept()).await.unwrap().unwrap();
    let mut heard = [0; 6];
    within("an octet", far.read_exact(&mut heard)).await.unwrap().unwrap();
    parts.client.kill().await.unwrap();
    parts.restart().await.unwrap();
    let ended = within("the app to hear of it", far.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    parts.logged("\"reason\":\"resume-failed\"", 1).await;
    parts.logged("\"bytes-from-client\":6", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_stopped_for_good_cuts_what_it_left() {
    let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let parts = parts(app.local_addr().unwrap()).await.unwrap();
    let mut stream = parts.open().await;
    stream.write_all(b"before").await.unwrap();
    let (mut far, _) = within("the stream", app.accept()).await.unwrap().unwrap();
    parts.systemd.tell(&["stop", SERVICE]).await.unwrap();
    let ended = within("the app to hear of it", far.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert!(parts.log().contains("the service manager keeps the streams"), "{}", parts.log());
}
