//! Many peers: all enrolled, some of them with a stream at the same time, each an app of its own on the near machine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use support::{
    cli::Cli,
    echo::{Echo, FAREWELL},
    gateway::{Gateway, Options, Route},
    process::{Input, Process},
    wait::until,
    wireguard::answers,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{DOOR, LOOK_UP, near, near_does, number};

const ECHO: &str = "echo.corp.test";
/// What each stream carries there and back, in rounds that go on until all streams have had as many.
const ROUND: usize = 64 * 1024;
const ROUNDS: usize = 32;
/// Enrolments at a time.
const AT_ONCE: usize = 8;
/// The word by which the program calls itself on the near machine.
const STREAMS: &str = "streams";

/// Enrols peers, has some of them carry streams, and says what it cost.
#[expect(clippy::print_stdout, reason = "the measurements are what this program is for")]
pub(crate) async fn many() -> anyhow::Result<()> {
    let (peers, active) = (number("BENCH_PEERS", 1000), number("BENCH_ACTIVE", 200));
    if peers == 0 {
        return Ok(());
    }
    near_does(&["sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter"]).await?;
    near_does(&["sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter"]).await?;
    let echo = Echo::start().await?;
    let options = Options { more: DOOR, ..Options::default() };
    let gateway = Gateway::start_with(&[Route::tcp(&format!("{ECHO}:7"), echo.address)], &options).await?;
    let cli = Cli::new(&gateway, "alice")?;
    let folder = tempfile::tempdir()?;
    enrol(&cli, folder.path(), 0).await?;
    let before = resident(&gateway).await?;
    let began = Instant::now();
    for first in (1..peers).step_by(AT_ONCE) {
        let group = first..peers.min(first + AT_ONCE as u64);
        futures_util::future::try_join_all(group.map(|number| enrol(&cli, folder.path(), number))).await?;
    }
    let enrolled = resident(&gateway).await?;
    println!("\n{peers} peers enrolled in {:.0?}: {} KiB each", began.elapsed(), (enrolled - before) / peers);

    let mut apps = Vec::new();
    for number in 0..active {
        apps.push(app(folder.path(), number).await?);
    }
    let addresses = apps.iter().map(|(_, address)| address.as_str()).collect::<Vec<_>>().join(",");
    let to =
        until("the app's address", async || near_does(&["/usr/bin/python3", "-c", LOOK_UP, ECHO]).await.ok());
    let to = format!("{}:7", to.await?.trim());
    let own = std::env::current_exe()?;
    let mut command = near(own.to_str().context("the path is text")?)?;
    let began = Instant::now();
    let output = command.args([STREAMS, &to, &addresses]).output().await?;
    let took = began.elapsed();
    let used = resident(&gateway).await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let moved = active as usize * ROUND * ROUNDS * 2;
    println!(
        "{active} of them active at once: {} streams whole, {:.0} Mbit/s in all, {} KiB for each active peer",
        said.trim(),
        moved as f64 * 8e-6 / took.as_secs_f64(),
        used.saturating_sub(enrolled) / active.max(1)
    );
    drop(gateway);
    Ok(())
}

async fn enrol(cli: &Cli, folder: &Path, number: u64) -> anyhow::Result<()> {
    let file = folder.join(format!("{number}.conf"));
    let (name, path) = (format!("peer {number}"), file.to_str().context("the path is text")?);
    let output = cli.command(&["wg", "add", &name, "--no-qr", "--output", path])?.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// KiB of memory that the gateway has.
async fn resident(gateway: &Gateway) -> anyhow::Result<u64> {
    // What is free by now is given back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the system says it")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// An app of one peer on the near machine, and the peer's address. It has no route: a stream names its device.
async fn app(folder: &Path, number: u64) -> anyhow::Result<(Process, String)> {
    let text = std::fs::read_to_string(folder.join(format!("{number}.conf")))?;
    let addresses = text.lines().find_map(|line| line.strip_prefix("Address = ")).context("it has some")?;
    let address = addresses.split('/').next().context("there is one")?.to_owned();
    let stripped: Vec<_> =
        text.lines().filter(|line| !line.starts_with("Address") && !line.starts_with("DNS")).collect();
    let file = folder.join(format!("{number}.setconf"));
    std::fs::write(&file, stripped.join("\n") + "\n")?;
    let device = format!("wgn{number}");
    let mut command = near("wireguard-go")?;
    command.args(["--foreground", &device]);
    let process = Process::spawn(&device, &mut command, Input::None)?;
    let path = file.to_str().context("the path is text")?;
    answers(&device).await?;
    near_does(&["wg", "setconf", &device, path]).await?;
    near_does(&["ip", "addr", "add", &format!("{address}/32"), "dev", &device]).await?;
    near_does(&["ip", "link", "set", "mtu", "1420", "up", "dev", &device]).await?;
    if number == 0 {
        near_does(&["ip", "route", "add", "100.64.0.0/11", "dev", &device]).await?;
    }
    Ok((process, address))
}

/// What the program does when it is called on the near machine.
#[derive(Debug)]
pub(crate) struct Streams {
    to: SocketAddr,
    from: Vec<Ipv4Addr>,
}

/// Whether it was.
pub(crate) fn asked() -> Option<Streams> {
    let mut words = std::env::args().skip(1);
    words.next().filter(|word| word == STREAMS)?;
    let to = words.next()?.parse().ok()?;
    let from = words.next()?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(Streams { to, from })
}

impl Streams {
    /// Carries all streams at once, and says how many came through whole.
    #[expect(clippy::print_stdout, reason = "the other end reads it")]
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut opening = JoinSet::new();
        for (number, from) in self.from.iter().enumerate() {
            let (from, to) = (*from, self.to);
            opening.spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind_device(Some(format!("wgn{number}").as_bytes()))?;
                socket.bind((from, 0).into())?;
                let stream = tokio::time::timeout(Duration::from_secs(60), socket.connect(to)).await??;
                anyhow::Ok(stream)
            });
        }
        let open = opening.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let mut carrying = JoinSet::new();
        for (number, stream) in open.into_iter().enumerate() {
            carrying.spawn(carry(stream, number));
        }
        let whole = carrying.join_all().await.into_iter().collect::<anyhow::Result<Vec<()>>>()?.len();
        println!("{whole}");
        Ok(())
    }
}

async fn carry(stream: TcpStream, number: usize) -> anyhow::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (mut sent, mut came) = (vec![0; ROUND], vec![0; ROUND]);
    for round in 0..ROUNDS {
        sent.fill((number * 31 + round) as u8);
        let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut came));
        written?;
        read?;
        ensure!(came == sent, "stream {number} is not what it was");
    }
    writer.shutdown().await?;
    let mut end = Vec::new();
    reader.read_to_end(&mut end).await?;
    ensure!(end == FAREWELL, "stream {number} was cut");
    Ok(())
}
