//! Measures one tunnel three ways on one machine in one run: directly, through `ssh -L`, and through the gateway.
//!
//! Each figure is the best of several rounds that take turns, so that a busy moment does not hit one way alone.
#![forbid(unsafe_code)]

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Context as _;
use support::{
    cli::Cli,
    gateway::{Gateway, Route},
    port,
    process::{Input, Process},
    sshd::Sshd,
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
    time::Instant,
};

const DESTINATION: &str = "bench.corp.test:9";
const ROUNDS: usize = 3;
const OPENINGS: usize = 200;
const BUFFER_LEN: usize = 256 * 1024;

/// First byte of a stream: what the server is to do.
const TAKE: u8 = b'u';
const GIVE: u8 = b'd';
const ANSWER: u8 = b'p';

struct Way {
    name: &'static str,
    port: u16,
    up: Duration,
    down: Duration,
    open: Duration,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mebibytes: u32 = std::env::var("BENCH_MEBIBYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(1024);
    let bytes = u64::from(mebibytes) << 20;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let direct = listener.local_addr()?.port();
    let mut server = JoinSet::new();
    server.spawn(serve(listener));

    let sshd = Sshd::start().await?;
    let forwarded = port::reserve()?;
    let _ssh = forward(&sshd, forwarded, direct)?;
    let gateway = Box::pin(Gateway::start(&[Route::tcp(DESTINATION, format!("127.0.0.1:{direct}"))])).await?;
    let cli = Cli::new(&gateway, "alice")?;
    let (_client, tunnel) = cli.listen(DESTINATION).await?;

    let way = |name, port| Way { name, port, up: Duration::MAX, down: Duration::MAX, open: Duration::MAX };
    let mut ways = [way("direct", direct), way("ssh -L", forwarded), way("tunnel", tunnel)];
    for way in &ways {
        wait::until(way.name, || async { ask(way.port).await.ok() }).await?;
    }
    for _ in 0..ROUNDS {
        for way in &mut ways {
            way.up = way.up.min(up(way.port, bytes).await?);
            way.down = way.down.min(down(way.port, bytes).await?);
            way.open = way.open.min(median_opening(way.port).await?);
        }
    }
    print(&ways, mebibytes);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn print(ways: &[Way], mebibytes: u32) {
    println!("{mebibytes} MiB, best of {ROUNDS}; opening: first byte back, median of {OPENINGS}\n");
    println!("{:8} {:>12} {:>12} {:>14}", "way", "up MiB/s", "down MiB/s", "open µs");
    for way in ways {
        let rate = |time: Duration| f64::from(mebibytes) / time.as_secs_f64();
        println!(
            "{:8} {:>12.0} {:>12.0} {:>14}",
            way.name,
            rate(way.up),
            rate(way.down),
            way.open.as_micros()
        );
    }
}

fn forward(sshd: &Sshd, from: u16, to: u16) -> anyhow::Result<Process> {
    let mut command = Command::new("ssh");
    command.args(sshd.client_options("bench")).args(["-N", "-c", "aes128-gcm@openssh.com", "-L"]);
    command.arg(format!("127.0.0.1:{from}:127.0.0.1:{to}"));
    command.args(["-p", &sshd.address.port().to_string(), "root@127.0.0.1"]);
    Process::spawn("ssh -L", &mut command, Input::None)
}

async fn serve(listener: TcpListener) {
    let mut streams = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // A measurement that is broken off shows at its other end.
        streams.spawn(async move { drop(serve_one(stream).await) });
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_one(mut stream: TcpStream) -> std::io::Result<()> {
    match stream.read_u8().await? {
        TAKE => {
            let mut left = stream.read_u64().await?;
            let mut buffer = vec![0; BUFFER_LEN];
            while left > 0 {
                let count = stream.read(&mut buffer).await?;
                if count == 0 {
                    return Ok(());
                }
                left = left.saturating_sub(count as u64);
            }
            stream.write_u8(1).await
        }
        GIVE => {
            let left = stream.read_u64().await?;
            give(&mut stream, left).await
        }
        _ => stream.write_u8(1).await,
    }
}

async fn give(stream: &mut TcpStream, mut left: u64) -> std::io::Result<()> {
    let buffer = vec![0; BUFFER_LEN];
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
        stream.write_all(&buffer[..size]).await?;
        left -= size as u64;
    }
    Ok(())
}

async fn up(port: u16, bytes: u64) -> anyhow::Result<Duration> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let begin = Instant::now();
    stream.write_u8(TAKE).await?;
    stream.write_u64(bytes).await?;
    give(&mut stream, bytes).await?;
    stream.read_u8().await.context("the last byte was not confirmed")?;
    Ok(begin.elapsed())
}

async fn down(port: u16, bytes: u64) -> anyhow::Result<Duration> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let begin = Instant::now();
    stream.write_u8(GIVE).await?;
    stream.write_u64(bytes).await?;
    let (mut buffer, mut got) = (vec![0; BUFFER_LEN], 0);
    while got < bytes {
        let count = stream.read(&mut buffer).await?;
        anyhow::ensure!(count > 0, "the stream ended after {got} of {bytes} bytes");
        got += count as u64;
    }
    Ok(begin.elapsed())
}

/// Connects, sends a byte and waits for one: only then a tunnel's stream is known to be open.
async fn ask(port: u16) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(ANSWER).await?;
    stream.read_u8().await?;
    Ok(begin.elapsed())
}

async fn median_opening(port: u16) -> anyhow::Result<Duration> {
    let mut times = Vec::with_capacity(OPENINGS);
    for _ in 0..OPENINGS {
        times.push(ask(port).await?);
    }
    times.sort_unstable();
    Ok(times[OPENINGS / 2])
}
