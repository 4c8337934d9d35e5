//! A person's desktop without a screen: a session bus of its own, and GNOME's keyring on it.

use std::{path::PathBuf, process::Stdio};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::process::{Input, Process};

/// A running session bus.
#[derive(Debug)]
pub struct Desktop {
    /// `DBUS_SESSION_BUS_ADDRESS` of programs on it.
    pub address: String,
    folder: TempDir,
    _bus: Process,
    keyring: Option<Process>,
}

impl Desktop {
    /// Starts a bus; nothing is on it.
    ///
    /// # Errors
    /// `dbus-daemon` is not installed.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // Services that are installed on this machine are not started: a test has those that it starts.
        let config = folder.path().join("bus.conf");
        std::fs::write(
            &config,
            format!(
                "<busconfig><type>session</type><listen>unix:path={}/bus</listen><policy context=\"default\">\
                 <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
                folder.path().display()
            ),
        )?;
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--print-address", "--config-file"]).arg(config);
        let bus = Process::spawn("session bus", &mut command, Input::None)?;
        let address = bus
            .output
            .find("the address of the bus", |line| line.starts_with("unix:").then(|| line.trim().to_owned()));
        let address = address.await?;
        Ok(Self { address, folder, _bus: bus, keyring: None })
    }

    /// Starts the keyring and unlocks it, as signing in to the desktop does.
    ///
    /// # Errors
    /// `gnome-keyring-daemon` is not installed.
    pub async fn unlock_keyring(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("gnome-keyring-daemon");
        command.args(["--foreground", "--unlock", "--components=secrets"]);
        self.keyring = Some(self.keyring(command, "the person's password").await?);
        Ok(())
    }

    /// Ends the keyring, and starts it again as it is before the person has signed in.
    ///
    /// # Errors
    /// As for starting it.
    pub async fn lock_keyring(&mut self) -> anyhow::Result<()> {
        if let Some(mut keyring) = self.keyring.take() {
            keyring.kill().await?;
        }
        let mut command = Command::new("gnome-keyring-daemon");
        command.args(["--foreground", "--start", "--components=secrets"]);
        self.keyring = Some(self.keyring(command, "").await?);
        Ok(())
    }

    async fn keyring(&self, mut command: Command, password: &str) -> anyhow::Result<Process> {
        self.environment(&mut command);
        let mut keyring = Process::spawn("keyring", &mut command, Input::Pipe)?;
        let mut input = keyring.take_input().context("the keyring has an input")?;
        input.write_all(password.as_bytes()).await?;
        drop(input);
        crate::wait::until("the keyring", async || {
            let mut ask = Command::new("dbus-send");
            ask.args(["--print-reply", "--dest=org.freedesktop.secrets", "/org/freedesktop/secrets"]);
            ask.args(["org.freedesktop.DBus.Peer.Ping"]).stdout(Stdio::null()).stderr(Stdio::null());
            self.environment(&mut ask);
            ask.status().await.is_ok_and(|status| status.success()).then_some(())
        })
        .await?;
        Ok(keyring)
    }

    /// Puts a program on this desktop.
    pub fn environment(&self, command: &mut Command) {
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address).env("HOME", self.home()).kill_on_drop(true);
        command.env("XDG_RUNTIME_DIR", self.home()).env("XDG_DATA_HOME", self.home().join("data"));
        command.env_remove("DISPLAY");
    }

    fn home(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}
