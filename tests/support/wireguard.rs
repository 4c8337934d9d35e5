//! An unmodified WireGuard app, set up from a `wg-quick` file as that program would do it: device, addresses, routes, name server.
//! Inside a namespace, where all of these are the story's own.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::{net::UnixStream, process::Command};

use crate::{
    namespace::ip,
    process::{Input, Process},
    wait,
};

/// Which app it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// Debian's `wireguard-go`.
    WireGuardGo,
    /// `boringtun-cli`.
    BoringTun,
}

impl Implementation {
    /// What it is called with to have such a device.
    ///
    /// # Errors
    /// It is not installed.
    pub fn words(self, device: &str) -> anyhow::Result<Vec<String>> {
        let mut words = match self {
            Self::WireGuardGo => vec!["wireguard-go".to_owned()],
            // A connected socket keeps to the address that it began with.
            Self::BoringTun => {
                let program = boringtun()?.display().to_string();
                vec![program, "--disable-drop-privileges".to_owned(), "--disable-connected-udp".to_owned()]
            }
        };
        words.extend(["--foreground".to_owned(), device.to_owned()]);
        Ok(words)
    }

    /// Runs it, with what `wg setconf` takes from `file`.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub async fn run(self, device: &str, file: &Path) -> anyhow::Result<Process> {
        let words = self.words(device)?;
        let (program, arguments) = words.split_first().context("there is a program")?;
        let mut command = Command::new(program);
        command.args(arguments);
        let process = Process::spawn(device, &mut command, Input::None)?;
        answers(device).await?;
        wg(&["setconf", device, file.to_str().context("the path is text")?]).await?;
        Ok(process)
    }
}

/// Waits until the app of a device takes commands. Not by asking `wg`, which removes a socket that nobody listens on yet.
///
/// # Errors
/// It does not.
pub async fn answers(device: &str) -> anyhow::Result<()> {
    let socket = control_socket(device);
    wait::until("the WireGuard app to answer", async || UnixStream::connect(&socket).await.ok().map(drop))
        .await
}

fn control_socket(device: &str) -> PathBuf {
    format!("/var/run/wireguard/{device}.sock").into()
}

/// The files, as `wg setconf` takes them, of two ends that know each other.
#[derive(Debug)]
pub struct Ends {
    /// The one that listens.
    pub here: PathBuf,
    /// The one that calls.
    pub there: PathBuf,
}

impl Ends {
    /// Writes them into `folder`: `here` listens at this address and port, and inside they have these addresses, `here` first.
    ///
    /// # Errors
    /// `wg` is not installed.
    pub async fn new(
        folder: &Path,
        (address, port): (IpAddr, u16),
        inner: (&str, &str),
    ) -> anyhow::Result<Self> {
        let (own, other) = (keys(folder).await?, keys(folder).await?);
        let here = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {port}\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n",
            own.0, other.1, inner.1
        );
        let there = format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {}\nAllowedIPs = {}/32\n\
             PersistentKeepalive = 25\n",
            other.0,
            own.1,
            SocketAddr::new(address, port),
            inner.0
        );
        let ends = Self { here: folder.join("here.conf"), there: folder.join("there.conf") };
        std::fs::write(&ends.here, here)?;
        std::fs::write(&ends.there, there)?;
        Ok(ends)
    }
}

/// A private key and its public one.
async fn keys(folder: &Path) -> anyhow::Result<(String, String)> {
    let private = wg(&["genkey"]).await?.trim().to_owned();
    let file = folder.join("key");
    std::fs::write(&file, &private)?;
    let mut command = Command::new("sh");
    command.args(["-c", "wg pubkey < \"$0\""]).arg(&file);
    let public = String::from_utf8(command.output().await?.stdout)?.trim().to_owned();
    Ok((private, public))
}

/// The app, with its device up; the device goes with it.
#[derive(Debug)]
pub struct WireGuardApp {
    /// Its device.
    pub device: String,
    _process: Process,
}

impl WireGuardApp {
    /// Brings up what `file` says.
    ///
    /// # Errors
    /// The app is not installed, or there is no network device to be had.
    pub async fn up(file: &Path, implementation: Implementation) -> anyhow::Result<Self> {
        // The apps' control sockets are files, which namespaces share.
        let name = format!("wg{}", std::process::id());
        let device = name.as_str();
        let text = std::fs::read_to_string(file)?;
        let keys = values(&text);
        let stripped = file.with_extension("setconf");
        std::fs::write(&stripped, strip(&text))?;
        let process = implementation.run(device, &stripped).await?;
        let list = |key: &str| keys.get(key).map(|value| value.split(", ").collect::<Vec<_>>());
        for address in list("Address").context("the file has addresses")? {
            ip(&["addr", "add", address, "dev", device]).await?;
        }
        ip(&["link", "set", "mtu", "1420", "up", "dev", device]).await?;
        for network in list("AllowedIPs").context("the file has networks")? {
            ip(&["route", "add", network, "dev", device]).await?;
        }
        if let Some(server) = keys.get("DNS") {
            std::fs::write("/etc/resolv.conf", format!("nameserver {server}\n"))?;
        }
        Ok(Self { device: name, _process: process })
    }

    /// What the app says of its peer.
    ///
    /// # Errors
    /// The app has ended.
    pub async fn shown(&self) -> anyhow::Result<String> {
        wg(&["show", &self.device, "dump"]).await
    }

    /// Waits until the two have shaken hands.
    ///
    /// # Errors
    /// They have not within the limit.
    pub async fn connected(&self) -> anyhow::Result<()> {
        let is_up = |shown: &str| {
            shown.lines().nth(1).and_then(|peer| peer.split('\t').nth(4)).is_some_and(|when| when != "0")
        };
        wait::until("a handshake", async || self.shown().await.ok().filter(|shown| is_up(shown))).await?;
        Ok(())
    }
}

impl Drop for WireGuardApp {
    fn drop(&mut self) {
        // Killed, it leaves the file of its control socket.
        let _gone = std::fs::remove_file(control_socket(&self.device));
    }
}

/// Where `tests/install` puts it: target/debug/deps/e2e-0123 → target/peers/bin.
fn boringtun() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().find(|folder| folder.join("peers/bin").is_dir());
    Ok(target.context("tests/install has not run")?.join("peers/bin/boringtun-cli"))
}

/// Has `wg` do something.
///
/// # Errors
/// What it says.
pub async fn wg(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("wg").args(words).output().await.context("install wireguard-tools")?;
    if !output.status.success() {
        bail!("wg {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The keys of the file; none of them is there twice in ours.
fn values(text: &str) -> HashMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(" = ")).collect()
}

/// What `wg` itself reads, as `wg-quick strip` gives it.
fn strip(text: &str) -> String {
    let is_quicks =
        |line: &&str| ["Address", "DNS", "MTU"].iter().any(|key| line.starts_with(&format!("{key} =")));
    text.lines().filter(|line| !is_quicks(line)).map(|line| format!("{line}\n")).collect()
}
