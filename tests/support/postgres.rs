//! A PostgreSQL cluster of the test's own, reachable on loopback without a password.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command};

use crate::{
    port,
    process::{Input, Process},
    wait,
};

/// The user that owns the cluster: the server refuses to run as root.
const SYSTEM_USER: &str = "postgres";

/// In connection strings. The server asks for none.
pub const PASSWORD: &str = "database-password-canary";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    process: Process,
    folder: TempDir,
}

impl Postgres {
    /// Makes a cluster and starts a server on it.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or the test does not run as root.
    pub async fn start() -> anyhow::Result<Self> {
        let (user, group) = (id("-u").await?, id("-g").await?);
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::chown(folder.path(), Some(user), Some(group))?;
        let cluster = folder.path().join("cluster");
        let made = Command::new(programs()?.join("initdb"))
            .arg("-D")
            .arg(&cluster)
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync"])
            .current_dir(folder.path())
            .uid(user)
            .gid(group)
            .output()
            .await?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        let port = port::reserve()?;
        let process = Self::serve(&folder, port).await?;
        Ok(Self { port, process, folder })
    }

    async fn serve(folder: &TempDir, port: u16) -> anyhow::Result<Process> {
        let (user, group) = (id("-u").await?, id("-g").await?);
        let mut command = Command::new(programs()?.join("postgres"));
        command.arg("-D").arg(folder.path().join("cluster")).current_dir(folder.path()).uid(user).gid(group);
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "unix_socket_directories=".to_owned(),
            "fsync=off".to_owned(),
            "dynamic_shared_memory_type=mmap".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let process = Process::spawn("postgres", &mut command, Input::None)?;
        process.errors.line_with("ready to accept connections").await?;
        Ok(process)
    }

    /// Stops the server; its clients are cut off.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal("INT")?;
        wait::within("the server's end", self.process.ended()).await??;
        Ok(())
    }

    /// Starts it again, with what it held.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = Self::serve(&self.folder, self.port).await?;
        Ok(())
    }

    /// A connection string, with a password that no log may show.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://postgres:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// `psql` or `pg_dump` against 127.0.0.1 and `port`, which may be a tunnel's.
    #[must_use]
    pub fn client(program: &str, port: u16) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg(port.to_string());
        command.env("PGCONNECT_TIMEOUT", "60").env_remove("PGPASSWORD").kill_on_drop(true);
        command
    }

    /// Runs SQL directly, past any gateway.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<String> {
        let ran = Self::client("psql", self.port).args(["-X", "-A", "-t", "-c", sql]).output().await?;
        if !ran.status.success() {
            bail!("psql failed: {}", String::from_utf8_lossy(&ran.stderr));
        }
        Ok(String::from_utf8(ran.stdout)?.trim().to_owned())
    }

    /// Waits until the port answers.
    ///
    /// # Errors
    /// It does not within the limit.
    pub async fn reachable(port: u16) -> anyhow::Result<()> {
        wait::until("the database port", || async { TcpStream::connect(("127.0.0.1", port)).await.ok() })
            .await?;
        Ok(())
    }
}

impl Drop for Postgres {
    /// Stops the server at once but in order, so that it leaves no shared memory behind.
    fn drop(&mut self) {
        if self.process.signal("QUIT").is_ok() {
            for _ in 0..100 {
                if !self.process.is_running() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// The folder of the newest server that is installed.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let newest = versions
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .context("PostgreSQL is not installed")?;
    Ok(Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin"))
}

async fn id(what: &str) -> anyhow::Result<u32> {
    let output = Command::new("id").args([what, SYSTEM_USER]).output().await?;
    String::from_utf8(output.stdout)?
        .trim()
        .parse()
        .with_context(|| format!("there is no user {SYSTEM_USER}"))
}
