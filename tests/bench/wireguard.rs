//! Measures the WireGuard door: bytes a second beside other implementations, and many peers at once.
//!
//! Runs on the far one of two machines (`wireguard.sh` makes them); what is near is reached by `ip netns exec`.
#![forbid(unsafe_code)]

#[path = "wireguard/peers.rs"]
mod peers;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use support::{
    cli::Cli,
    gateway::{Gateway, Options, Route},
    process::{Input, Process},
    wait::until,
    wireguard::{Ends, Implementation, answers},
};
use tempfile::TempDir;
use tokio::process::Command;

const FAR: &str = "10.77.0.1";
const DOOR: &str = "wireguard_address: 10.77.0.1:51820\nwireguard_endpoint: 10.77.0.1:51820\n\
                    wireguard_peers_per_user: 1000\n";
const IPERF: &str = "iperf.corp.test:5201";
/// The far end of the peers' own tunnels.
const PEER_FAR: &str = "10.99.0.1";
const PEER_NEAR: &str = "10.99.0.2";
const ROUNDS: usize = 2;

/// Who is at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Gateway,
    Peer(Implementation),
}

const CONTENDERS: [(Contender, &str); 3] = [
    (Contender::Gateway, "our gateway"),
    (Contender::Peer(Implementation::WireGuardGo), "wireguard-go"),
    (Contender::Peer(Implementation::BoringTun), "boringtun-cli"),
];

/// Streams, and whether they go down.
const KINDS: [(usize, bool); 4] = [(1, false), (8, false), (1, true), (8, true)];

/// A command on the near machine.
pub(crate) fn near(program: &str) -> anyhow::Result<Command> {
    let namespace = std::env::var("BENCH_NEAR").context("run tests/bench/wireguard.sh")?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace, program]).kill_on_drop(true);
    Ok(command)
}

/// Has a program on the near machine do something.
pub(crate) async fn near_does(words: &[&str]) -> anyhow::Result<String> {
    let (program, arguments) = words.split_first().context("there is a program")?;
    let output = near(program)?.args(arguments).output().await?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// wireguard-go on the near machine, set up by a file of `wg setconf`.
async fn near_end(config: &Path, addresses: &[&str], networks: &[&str]) -> anyhow::Result<Process> {
    let mut command = near("wireguard-go")?;
    command.args(["--foreground", "wgnear"]);
    let process = Process::spawn("wireguard-go near", &mut command, Input::None)?;
    let file = config.to_str().context("the path is text")?;
    answers("wgnear").await?;
    near_does(&["wg", "setconf", "wgnear", file]).await?;
    for address in addresses {
        near_does(&["ip", "addr", "add", address, "dev", "wgnear"]).await?;
    }
    near_does(&["ip", "link", "set", "mtu", "1420", "up", "dev", "wgnear"]).await?;
    for network in networks {
        near_does(&["ip", "route", "add", network, "dev", "wgnear"]).await?;
    }
    Ok(process)
}

/// Megabits a second that iperf3 gets through.
async fn measured(to: &str, streams: usize, is_down: bool, seconds: u64) -> anyhow::Result<f64> {
    let (streams, seconds) = (streams.to_string(), seconds.to_string());
    let mut words = vec!["iperf3", "-c", to, "-J", "-O", "1", "-t", &seconds, "-P", &streams];
    if is_down {
        words.push("-R");
    }
    let text = until("iperf3", async || near_does(&words).await.ok()).await?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 says how much")?;
    Ok(bits / 1e6)
}

/// All kinds of one contender.
async fn contend(contender: Contender, seconds: u64) -> anyhow::Result<[f64; 4]> {
    let folder = tempfile::tempdir()?;
    let mut server = Command::new("iperf3");
    server.args(["-s", "-p", "5201"]);
    let _server = Process::spawn("iperf3 -s", &mut server, Input::None)?;
    match contender {
        Contender::Gateway => behind_gateway(&folder, seconds).await,
        Contender::Peer(implementation) => behind_peer(&folder, implementation, seconds).await,
    }
}

async fn all_kinds(to: &str, seconds: u64) -> anyhow::Result<[f64; 4]> {
    let mut results = [0.0; 4];
    for (result, (streams, is_down)) in results.iter_mut().zip(KINDS) {
        *result = measured(to, streams, is_down, seconds).await?;
    }
    Ok(results)
}

async fn behind_gateway(folder: &TempDir, seconds: u64) -> anyhow::Result<[f64; 4]> {
    let options = Options { more: DOOR, ..Options::default() };
    let gateway = Gateway::start_with(&[Route::tcp(IPERF, "127.0.0.1:5201")], &options).await?;
    let cli = Cli::new(&gateway, "alice")?;
    let file = folder.path().join("near.conf");
    let path = file.to_str().context("the path is text")?;
    let output = cli.command(&["wg", "add", "near", "--no-qr", "--output", path])?.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&file)?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).context("the file is whole");
    let own = value("Address = ")?.split(", ").next().context("there is one")?;
    let stripped: String = text
        .lines()
        .filter(|line| !line.starts_with("Address") && !line.starts_with("DNS"))
        .fold(String::new(), |all, line| all + line + "\n");
    std::fs::write(&file, stripped)?;
    let _near = near_end(&file, &[own], &["100.64.0.0/11"]).await?;
    // The name server inside the tunnel says which address it is.
    let to = until("the app's address", async || {
        let host = IPERF.split(':').next()?;
        near_does(&["/usr/bin/python3", "-c", LOOK_UP, host]).await.ok()
    });
    let to = to.await?;
    all_kinds(to.trim(), seconds).await
}

/// Asks 100.64.0.1 for the address of a host, and prints it.
const LOOK_UP: &str = "import socket, struct, sys\n\
name = b''.join(bytes([len(l)]) + l.encode() for l in sys.argv[1].split('.')) + b'\\0'\n\
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n\
s.sendto(struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + name + struct.pack('>2H', 1, 1), ('100.64.0.1', 53))\n\
print(socket.inet_ntoa(s.recv(512)[-4:]))\n";

async fn behind_peer(
    folder: &TempDir,
    implementation: Implementation,
    seconds: u64,
) -> anyhow::Result<[f64; 4]> {
    let ends = Ends::new(folder.path(), (FAR.parse()?, 51821), (PEER_FAR, PEER_NEAR)).await?;
    let _far = implementation.run("wgfar", &ends.here).await?;
    support::namespace::ip(&["addr", "add", &format!("{PEER_FAR}/24"), "dev", "wgfar"]).await?;
    support::namespace::ip(&["link", "set", "mtu", "1420", "up", "dev", "wgfar"]).await?;
    let _near = near_end(&ends.there, &[&format!("{PEER_NEAR}/24")], &[]).await?;
    all_kinds(PEER_FAR, seconds).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(command) = peers::asked() {
        return command.run().await;
    }
    let seconds = number("BENCH_SECONDS", 10);
    if seconds > 0 {
        Box::pin(throughput(seconds)).await?;
    }
    Box::pin(peers::many()).await
}

/// Each contender in turn, several times.
#[expect(clippy::print_stdout, reason = "the measurements are what this program is for")]
async fn throughput(seconds: u64) -> anyhow::Result<()> {
    let mut best = [[0.0_f64; 4]; CONTENDERS.len()];
    for round in 0..ROUNDS {
        for ((contender, name), best) in CONTENDERS.into_iter().zip(&mut best) {
            let results = Box::pin(contend(contender, seconds)).await.with_context(|| name)?;
            println!("round {}: {name}: {results:.0?} Mbit/s", round + 1);
            for (best, result) in best.iter_mut().zip(results) {
                *best = best.max(result);
            }
            // Sockets of the one are gone before the next begins.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    println!("\nMbit/s, the better of {ROUNDS} rounds of {seconds} s");
    println!("| wireguard-go to | 1 up | 8 up | 1 down | 8 down |\n| --- | --- | --- | --- | --- |");
    for ((_, name), best) in CONTENDERS.into_iter().zip(&best) {
        println!("| {name} | {:.0} | {:.0} | {:.0} | {:.0} |", best[0], best[1], best[2], best[3]);
    }
    let ratio = |kind: usize| best[0][kind] / best[1][kind].max(best[2][kind]);
    println!(
        "| ours to the better other | {:.2} | {:.2} | {:.2} | {:.2} |",
        ratio(0),
        ratio(1),
        ratio(2),
        ratio(3)
    );
    Ok(())
}
