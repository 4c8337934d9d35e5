//! OpenSSH's server, one process a connection (`sshd -i`), with keys of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

use crate::log::Log;

/// A running ssh server that lets the user of the tests in by key.
#[derive(Debug)]
pub struct Sshd {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the servers wrote.
    pub log: Log,
    folder: TempDir,
    _task: JoinSet<()>,
}

impl Sshd {
    /// Starts the server.
    ///
    /// # Errors
    /// OpenSSH is not installed, or the test does not run as root.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// Starts it at another address of this machine.
    ///
    /// # Errors
    /// As [`Sshd::start`].
    pub async fn start_at(ip: Ipv4Addr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // sshd wants this folder to be there, as its service unit would make it.
        std::fs::create_dir_all("/run/sshd").context("cannot make /run/sshd: the tests run as root")?;
        for name in ["host_key", "user_key"] {
            make_key(&folder.path().join(name)).await?;
        }
        let config = folder.path().join("sshd_config");
        std::fs::write(&config, configuration(folder.path()))?;
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let log = Log::default();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, config, log.clone()));
        Ok(Self { address, log, folder, _task: task })
    }

    /// Options of `ssh` and `scp` that leave the machine's own settings alone. `alias` stands for the host's key.
    #[must_use]
    pub fn client_options(&self, alias: &str) -> Vec<String> {
        let hosts = self.folder.path().join("known_hosts");
        let mut options = vec!["-F".to_owned(), "/dev/null".to_owned()];
        options.extend(["-i".to_owned(), self.folder.path().join("user_key").display().to_string()]);
        for option in [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=accept-new".to_owned(),
            format!("UserKnownHostsFile={}", hosts.display()),
            format!("HostKeyAlias={alias}"),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/user_key.pub\nPidFile none\nStrictModes no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         UsePAM no\nAllowTcpForwarding yes\nSubsystem sftp internal-sftp\nLogLevel VERBOSE\nPrintMotd no\n"
    )
}

async fn make_key(file: &Path) -> anyhow::Result<()> {
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).output().await?;
    if !made.status.success() {
        bail!("ssh-keygen failed: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}

async fn serve(listener: TcpListener, config: PathBuf, log: Log) {
    let mut servers = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (config, log) = (config.clone(), log.clone());
        servers.spawn(async move {
            if let Err(error) = serve_one(stream, &config, log.clone()).await {
                log.read(BufReader::new(format!("{error:#}\n").as_bytes())).await;
            }
        });
        while servers.try_join_next().is_some() {}
    }
}

async fn serve_one(stream: TcpStream, config: &Path, log: Log) -> anyhow::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let (input, output) = (OwnedFd::from(stream.try_clone()?), OwnedFd::from(stream));
    let mut child = Command::new("/usr/sbin/sshd")
        .args(["-i", "-e", "-f"])
        .arg(config)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start /usr/sbin/sshd")?;
    if let Some(errors) = child.stderr.take() {
        log.read(errors).await;
    }
    child.wait().await?;
    Ok(())
}
