//! The ways, and how each is brought up.

use std::path::Path;

use anyhow::{Context as _, ensure};
use support::{
    cli::{Cli, loopback_port},
    gateway::{Gateway, Route},
    namespace::ip,
    network::{Far, NEAR, signed_in},
    port,
    process::{Input, Process},
    sshd::Sshd,
    wireguard::{self, Ends, Implementation},
};
use tempfile::TempDir;

pub(crate) const IPERF_PORT: u16 = 5201;
pub(crate) const ASK_PORT: u16 = 5202;
const HOST: &str = "apps.corp.test";
/// What WireGuard leaves of the wire's 1400 octets.
const INNER_MTU: &str = "1320";

/// A way from the far machine to the apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Tun,
    Forward,
    WireGuard(Implementation),
    Ssh,
}

/// A way that is up, for as long as this is held.
pub(crate) struct Up {
    pub(crate) host: String,
    /// Where iperf3 is reached, and who answers an octet.
    pub(crate) iperf: u16,
    pub(crate) ask: u16,
    _processes: Vec<Process>,
    _behind: Behind,
}

/// What a way stands on; held until it is not needed any more.
#[expect(dead_code, reason = "dropped, they end")]
enum Behind {
    Nothing,
    Gateway(Box<(Gateway, Cli)>),
    Sshd(Sshd),
    Files(TempDir),
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::Direct,
        Self::Tun,
        Self::Forward,
        Self::WireGuard(Implementation::WireGuardGo),
        Self::WireGuard(Implementation::BoringTun),
        Self::Ssh,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "no tunnel",
            Self::Tun => "pomerium-cli, TUN mode",
            Self::Forward => "pomerium-cli, forward",
            Self::WireGuard(Implementation::WireGuardGo) => "wireguard-go",
            Self::WireGuard(Implementation::BoringTun) => "boringtun-cli",
            Self::Ssh => "ssh -L",
        }
    }

    pub(crate) async fn up(self, far: &Far) -> anyhow::Result<Up> {
        match self {
            Self::Direct => Ok(Up {
                host: NEAR.to_string(),
                iperf: IPERF_PORT,
                ask: ASK_PORT,
                _processes: Vec::new(),
                _behind: Behind::Nothing,
            }),
            Self::Tun => through_device(far).await,
            Self::Forward => through_ports(far).await,
            Self::WireGuard(implementation) => through_wireguard(far, implementation).await,
            Self::Ssh => through_ssh(far).await,
        }
    }
}

/// A gateway, and a client that has signed in.
async fn behind_gateway() -> anyhow::Result<Box<(Gateway, Cli)>> {
    let route = |port: u16| Route::tcp(&format!("{HOST}:{port}"), format!("127.0.0.1:{port}"));
    let routes = [route(IPERF_PORT), route(ASK_PORT)];
    signed_in(&routes, &format!("{HOST}:{ASK_PORT}")).await.map(Box::new)
}

fn client(far: &Far, cli: &Cli, words: &[&str]) -> anyhow::Result<Process> {
    let mut command = far.command(&cli.words(words)?);
    cli.environment(&mut command);
    Process::spawn("pomerium-cli, far away", &mut command, Input::None)
}

async fn through_device(far: &Far) -> anyhow::Result<Up> {
    let behind = behind_gateway().await?;
    let process = client(far, &behind.1, &["connect", "--tun"])?;
    let connected = process.output.line_with("gateway: connected").await;
    connected.with_context(|| format!("{}{}", process.output.text(), process.errors.text()))?;
    Ok(Up {
        host: HOST.to_owned(),
        iperf: IPERF_PORT,
        ask: ASK_PORT,
        _processes: vec![process],
        _behind: Behind::Gateway(behind),
    })
}

async fn through_ports(far: &Far) -> anyhow::Result<Up> {
    let behind = behind_gateway().await?;
    let (mut processes, mut ports) = (Vec::new(), Vec::new());
    for port in [IPERF_PORT, ASK_PORT] {
        let process = client(far, &behind.1, &["tcp", &format!("{HOST}:{port}"), "--listen", "127.0.0.1:0"])?;
        ports.push(loopback_port(&process, "").await?);
        processes.push(process);
    }
    Ok(Up {
        host: "127.0.0.1".to_owned(),
        iperf: ports[0],
        ask: ports[1],
        _processes: processes,
        _behind: Behind::Gateway(behind),
    })
}

async fn through_wireguard(far: &Far, implementation: Implementation) -> anyhow::Result<Up> {
    let files = tempfile::tempdir()?;
    let listen = port::reserve()?;
    // Of its own: the device of the one before may not be gone yet.
    let net = match implementation {
        Implementation::WireGuardGo => "10.98.0",
        Implementation::BoringTun => "10.98.1",
    };
    let (inner_here, inner_there) = (format!("{net}.1"), format!("{net}.2"));
    let (device_here, device_there) = (format!("here{listen}"), format!("there{listen}"));
    let ends = Ends::new(files.path(), (NEAR.into(), listen), (&inner_here, &inner_there)).await?;
    let here = implementation.run(&device_here, &ends.here).await?;
    ip(&["addr", "add", &format!("{inner_here}/24"), "dev", &device_here]).await?;
    ip(&["link", "set", "mtu", INNER_MTU, "up", "dev", &device_here]).await?;
    let mut command = far.command(&implementation.words(&device_there)?);
    let there = Process::spawn(&device_there, &mut command, Input::None)?;
    let set = ["wg", "setconf", &device_there, path(&ends.there)?];
    wireguard::answers(&device_there).await?;
    does(far, &set).await?;
    does(far, &["ip", "addr", "add", &format!("{inner_there}/24"), "dev", &device_there]).await?;
    does(far, &["ip", "link", "set", "mtu", INNER_MTU, "up", "dev", &device_there]).await?;
    Ok(Up {
        host: inner_here,
        iperf: IPERF_PORT,
        ask: ASK_PORT,
        _processes: vec![here, there],
        _behind: Behind::Files(files),
    })
}

async fn through_ssh(far: &Far) -> anyhow::Result<Up> {
    let sshd = Sshd::start_at(NEAR).await?;
    let mut words = vec!["ssh".to_owned(), "-N".to_owned()];
    words.extend(sshd.client_options("bench"));
    words.extend(["-c".to_owned(), "aes128-gcm@openssh.com".to_owned()]);
    for port in [IPERF_PORT, ASK_PORT] {
        words.extend(["-L".to_owned(), format!("127.0.0.1:{port}:127.0.0.1:{port}")]);
    }
    words.extend(["-p".to_owned(), sshd.address.port().to_string(), format!("root@{NEAR}")]);
    let process = Process::spawn("ssh -L", &mut far.command(&words), Input::None)?;
    Ok(Up {
        host: "127.0.0.1".to_owned(),
        iperf: IPERF_PORT,
        ask: ASK_PORT,
        _processes: vec![process],
        _behind: Behind::Sshd(sshd),
    })
}

async fn does(far: &Far, words: &[&str]) -> anyhow::Result<()> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let output = far.command(&words).output().await?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn path(file: &Path) -> anyhow::Result<&str> {
    file.to_str().context("the path is text")
}
