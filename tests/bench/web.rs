//! Measures the gateway as a web proxy beside nginx and HAProxy: the same certificate, the same app behind, the same load. The
//! peers proxy and no more; the gateway finds the session, asks policy, signs an identity and logs, for each request.
#![forbid(unsafe_code)]

mod fronts;
mod websockets;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use support::port;
use tokio::process::Command;

use fronts::{Front, gateway, nginx, peer_haproxy, peer_nginx, used};

/// How long each load lasts.
const SECONDS: &str = "5";

/// Octets of the small answer, and of the large one.
const SMALL_LEN: usize = 128;
const LARGE_LEN: usize = 1 << 20;

/// One kind of load.
#[derive(Clone, Copy)]
struct Load {
    protocol: &'static str,
    connections: usize,
    /// Requests under way on each connection.
    streams: usize,
    path: &'static str,
}

/// What came of it.
struct Figures {
    per_second: f64,
    median_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    memory_mib: f64,
    failed: u64,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the table is what it is for")]
async fn main() -> anyhow::Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    if only == "websockets" {
        return Box::pin(websockets::measure()).await;
    }
    let folder = tempfile::tempdir()?;
    let app_port = port::reserve()?;
    let mut app = nginx(folder.path(), "app", &app(folder.path(), app_port)?, app_port).await?;
    let (gateway, cookie, first) = gateway(app_port, "/small").await?;
    let fronts = [
        first,
        peer_nginx(folder.path(), &gateway, app_port).await?,
        peer_haproxy(folder.path(), &gateway, app_port).await?,
    ];
    println!("| load | proxy | requests/s | p50 ms | p99 ms | CPU µs/request | memory MiB | failed |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let loads = ["/small", "/large"].into_iter().flat_map(|path| {
        // With 1,000 connections of ten streams h2load itself does not come to an end, whatever proxy it asks.
        let all =
            [("h1", 1, 1), ("h1", 64, 1), ("h1", 1000, 1), ("h2", 1, 10), ("h2", 64, 10), ("h2", 1000, 1)];
        all.map(|(protocol, connections, streams)| Load { protocol, connections, streams, path })
    });
    for load in loads {
        let Load { protocol, connections, streams, path } = load;
        let name = format!("{protocol}, {connections} x {streams}, {path}");
        if !name.contains(&only) {
            continue;
        }
        for front in &fronts {
            let Figures { per_second, median_ms, p99_ms, cpu_us, memory_mib, failed } =
                measure(folder.path(), front, load, &cookie).await?;
            println!(
                "| {name} | {} | {per_second:.0} | {median_ms:.2} | {p99_ms:.2} | \
                 {cpu_us:.0} | {memory_mib:.0} | {failed} |",
                front.name
            );
        }
    }
    for mut front in fronts {
        front.process.kill().await?;
    }
    app.kill().await?;
    drop(gateway);
    Ok(())
}

/// The app behind: nginx over plain HTTP/1.1.
fn app(folder: &Path, port: u16) -> anyhow::Result<String> {
    std::fs::write(folder.join("small"), "s".repeat(SMALL_LEN))?;
    std::fs::write(folder.join("large"), "l".repeat(LARGE_LEN))?;
    let root = folder.display();
    Ok(format!(
        "access_log off; sendfile on; keepalive_requests 1000000;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}"
    ))
}

async fn measure(folder: &Path, front: &Front, load: Load, cookie: &str) -> anyhow::Result<Figures> {
    let id = front.process.id().context("the proxy has ended")?;
    run_load(folder, front, load, cookie, "1").await?;
    let before = used(id)?.processor_seconds;
    let (text, mut times) = run_load(folder, front, load, cookie, SECONDS).await?;
    let after = used(id)?;
    let number = |after: &str| {
        let rest =
            text.split(after).nth(1).and_then(|rest| rest.split([' ', ',']).find(|word| !word.is_empty()));
        rest.and_then(|word| word.parse::<f64>().ok()).with_context(|| format!("no {after} in:\n{text}"))
    };
    let per_second = text
        .lines()
        .find(|line| line.starts_with("finished in"))
        .and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    let done = number("status codes:")?;
    let failed = text
        .split(" done, ")
        .nth(1)
        .and_then(|rest| rest.split(" succeeded, ").nth(1)?.split(' ').next()?.parse().ok());
    if times.is_empty() || done == 0.0 {
        bail!("{} answered nothing:\n{text}", front.name);
    }
    times.sort_unstable();
    let at = |share: usize| Duration::from_micros(times[(times.len() - 1) * share / 100]).as_secs_f64() * 1e3;
    Ok(Figures {
        per_second: per_second.context("no rate")?,
        median_ms: at(50),
        p99_ms: at(99),
        cpu_us: (after.processor_seconds - before) * 1e6 / done,
        memory_mib: after.memory_kib / 1024.0,
        failed: failed.context("no count of failures")?,
    })
}

/// Puts load on a proxy; gives what h2load says, and the microseconds of each answer of status 200.
async fn run_load(
    folder: &Path,
    front: &Front,
    load: Load,
    cookie: &str,
    seconds: &str,
) -> anyhow::Result<(String, Vec<u64>)> {
    let log = folder.join("times");
    let _absent = std::fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command
        .args([
            "-t",
            "1",
            "-D",
            seconds,
            "-c",
            &load.connections.to_string(),
            "-m",
            &load.streams.to_string(),
        ])
        .arg(format!("--connect-to=127.0.0.1:{}", front.port))
        .arg(format!("--log-file={}", log.display()))
        .args(["-H", &format!("cookie: _pomerium={cookie}")]);
    if load.protocol == "h1" {
        command.arg("--h1");
    }
    command.arg(format!("https://app.localhost:{}{}", front.port, load.path)).kill_on_drop(true);
    let output = command.output().await.context("h2load is not installed")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let times = std::fs::read_to_string(&log).unwrap_or_default();
    // `start status microseconds`
    let of_line = |line: &str| {
        let mut words = line.split('\t').skip(1);
        (words.next()? == "200").then(|| words.next()?.trim().parse().ok()).flatten()
    };
    Ok((text, times.lines().filter_map(of_line).collect()))
}
