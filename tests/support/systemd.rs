//! The service manager: systemd as it is for one user, with the units that a story writes, in namespaces of its own, so that all it has
//! started ends with it.

use std::{os::unix::fs::FileTypeExt as _, path::PathBuf};

use anyhow::ensure;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    process::{Input, Process},
    wait,
};

/// It starts where the machine itself was started by systemd, or looks so.
const START: &str = "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && \
    { /usr/lib/systemd/systemd --user --log-target=console & wait; }";

/// What it wants to be there.
const TARGETS: [&str; 4] = ["default", "basic", "shutdown", "exit"];

/// A running service manager.
#[derive(Debug)]
pub struct Systemd {
    folder: TempDir,
    process: Process,
}

impl Systemd {
    /// Starts it without any service.
    ///
    /// # Errors
    /// It does not start: the tests run as root.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (run, units) = (folder.path().join("run"), folder.path().join("units"));
        std::fs::create_dir(&run)?;
        std::fs::create_dir(&units)?;
        for target in TARGETS {
            std::fs::write(units.join(format!("{target}.target")), "[Unit]\nDefaultDependencies=no\n")?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "--pid", "--mount-proc", "--kill-child"]);
        command.args(["sh", "-c", START]).env("XDG_RUNTIME_DIR", &run).env("SYSTEMD_UNIT_PATH", &units);
        let process = Process::spawn("systemd --user", &mut command, Input::None)?;
        let socket = run.join("systemd").join("private");
        let listens =
            async || std::fs::metadata(&socket).is_ok_and(|file| file.file_type().is_socket()).then_some(());
        wait::until("systemd to listen", listens).await?;
        Ok(Self { folder, process })
    }

    /// Writes the unit of a service; `service` is its section, in lines. Gives the file that its output goes to.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn write(&self, name: &str, service: &str) -> anyhow::Result<PathBuf> {
        let log = self.folder.path().join(format!("{name}.log"));
        let (file, to) = (self.folder.path().join("units").join(format!("{name}.service")), log.display());
        let output = format!("StandardOutput=append:{to}\nStandardError=append:{to}\n");
        std::fs::write(file, format!("[Unit]\nDefaultDependencies=no\n[Service]\n{service}{output}"))?;
        self.tell(&["daemon-reload"]).await?;
        Ok(log)
    }

    /// Says something to it by `systemctl`, waits until it is done, and gives the answer.
    ///
    /// # Errors
    /// It says no.
    pub async fn tell(&self, words: &[&str]) -> anyhow::Result<String> {
        // It answers nobody whose process it cannot see.
        let unshare = self.process.id()?;
        let inside = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", inside.trim())).args(["--mount", "--pid", "systemctl", "--user"]);
        command.args(words).env("XDG_RUNTIME_DIR", self.folder.path().join("run"));
        let output = wait::within("systemctl", command.kill_on_drop(true).output()).await??;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}
