//! What is measured of a way that is up.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use support::{network::Far, process::Stat, wait::until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::ways::Up;

/// What this program is called with on the far machine, followed by host, port and how often.
pub(crate) const ASK: &str = "ask";

/// Streams, and whether they go down.
const KINDS: [(usize, bool); 4] = [(1, false), (8, false), (1, true), (8, true)];
const OPENINGS: &str = "50";

/// All that is measured.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Mbit/s, in the order of [`KINDS`].
    pub(crate) rates: [f64; 4],
    /// Of all processes of the way, on both machines, over all kinds.
    pub(crate) processor_seconds_per_gibibyte: f64,
    /// From the call to connect to the first octet back: the median.
    pub(crate) opening: Duration,
}

/// Measures what [`Figures`] holds.
pub(crate) async fn all(far: &Far, up: &Up, seconds: u64) -> anyhow::Result<Figures> {
    let opening = opening(far, up).await?;
    let before = processor_seconds()?;
    let (mut rates, mut octets) = ([0.0; 4], 0.0);
    for (rate, (streams, is_down)) in rates.iter_mut().zip(KINDS) {
        let (bits, carried) = carried(far, up, streams, is_down, seconds).await?;
        *rate = bits / 1e6;
        octets += carried;
    }
    let took = processor_seconds()? - before;
    Ok(Figures { rates, processor_seconds_per_gibibyte: took / (octets / f64::from(1 << 30)), opening })
}

/// Bits a second, and octets, that iperf3 gets through.
async fn carried(
    far: &Far,
    up: &Up,
    streams: usize,
    is_down: bool,
    seconds: u64,
) -> anyhow::Result<(f64, f64)> {
    let mut words = vec!["iperf3".to_owned(), "-J".to_owned(), "-c".to_owned(), up.host.clone()];
    for (flag, number) in [("-p", u64::from(up.iperf)), ("-t", seconds), ("-P", streams as u64)] {
        words.extend([flag.to_owned(), number.to_string()]);
    }
    if is_down {
        words.push("-R".to_owned());
    }
    let last = std::cell::RefCell::new(String::new());
    // The one before may not be over for the server yet.
    let figures = until("iperf3", async || {
        let output = far.command(&words).output().await.ok()?;
        *last.borrow_mut() = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let received = &report["end"]["sum_received"];
        Some((received["bits_per_second"].as_f64()?, received["bytes"].as_f64()?))
    });
    let figures = figures.await;
    figures.with_context(|| last.borrow().lines().rev().take(8).collect::<Vec<_>>().join("\n"))
}

async fn opening(far: &Far, up: &Up) -> anyhow::Result<Duration> {
    let own = std::env::current_exe()?.display().to_string();
    let words = [own, ASK.to_owned(), up.host.clone(), up.ask.to_string(), OPENINGS.to_owned()];
    let output = far.command(&words).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Duration::from_micros(String::from_utf8(output.stdout)?.trim().parse()?))
}

/// On the far machine: opens streams one after the other, and tells the median of how long that takes, in microseconds.
#[expect(clippy::print_stdout, reason = "read by the one that called this")]
pub(crate) async fn ask_many(host: &str, port: u16, count: usize) -> anyhow::Result<()> {
    until("the way", async || ask(host, port).await.ok()).await?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        times.push(ask(host, port).await?);
    }
    times.sort_unstable();
    println!("{}", times.get(count / 2).context("it is asked at least once")?.as_micros());
    Ok(())
}

async fn ask(host: &str, port: u16) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(1).await?;
    stream.read_u8().await?;
    Ok(began.elapsed())
}

/// What all processes below this one have used so far, but for those that measure.
fn processor_seconds() -> anyhow::Result<f64> {
    let processes: Vec<Stat> = std::fs::read_dir("/proc")?
        .filter_map(|entry| Stat::of(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let own = std::process::id();
    let is_ours = |process: &Stat| {
        let mut parent = process.parent;
        // No line of ancestors is longer than there are processes.
        for _ in 0..processes.len() {
            if parent == own {
                return true;
            }
            let Some(next) = processes.iter().find(|other| other.id == parent) else { return false };
            parent = next.parent;
        }
        false
    };
    let counted = processes.iter().filter(|process| process.name != "iperf3" && is_ours(process));
    Ok(counted.map(|process| process.processor_seconds).sum())
}
