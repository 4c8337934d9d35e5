//! A person's desktop: a session bus of its own, on it GNOME's keyring, and on a screen that nobody sees the panel of Xfce.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    bus::{Bus, Kind},
    process::{Input, Process},
};

/// A running session bus.
#[derive(Debug)]
pub struct Desktop {
    /// `DBUS_SESSION_BUS_ADDRESS` of programs on it.
    pub address: String,
    bus: Bus,
    keyring: Option<Process>,
    screen: Option<Screen>,
}

#[derive(Debug)]
struct Screen {
    display: String,
    _server: Process,
    _panel: Process,
}

impl Desktop {
    /// Starts a bus; nothing is on it.
    ///
    /// # Errors
    /// `dbus-daemon` is not installed.
    pub async fn start() -> anyhow::Result<Self> {
        Self::on_bus(false).await
    }

    /// Starts a bus, and a screen with a panel that shows the icons of programs.
    ///
    /// # Errors
    /// `Xvfb` or `xfce4-panel` is not installed.
    pub async fn with_panel() -> anyhow::Result<Self> {
        // The panel has its settings from a service that the bus starts.
        let mut desktop = Self::on_bus(true).await?;
        let mut server = Command::new("Xvfb");
        server.args(["-displayfd", "1", "-screen", "0", "800x480x24", "-nolisten", "tcp"]);
        let server = Process::spawn("screen", &mut server, Input::None)?;
        let number =
            server.output.find("the number of the display", |line| line.trim().parse::<u32>().ok()).await?;
        let display = format!(":{number}");
        let mut panel = Command::new("xfce4-panel");
        desktop.environment(&mut panel);
        panel.arg("--disable-wm-check").env("DISPLAY", &display).env("XFCE_PANEL_MIGRATE_DEFAULT", "1");
        panel
            .env("XDG_CONFIG_HOME", desktop.home().join("config"))
            .env("XDG_CACHE_HOME", desktop.home().join("cache"));
        let panel = Process::spawn("panel", &mut panel, Input::None)?;
        desktop.screen = Some(Screen { display, _server: server, _panel: panel });
        Ok(desktop)
    }

    /// What the panel says to a call of D-Bus: `DESTINATION PATH METHOD ARGUMENT...`, as `dbus-send` takes them.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn call(&self, destination: &str, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("dbus-send");
        self.environment(&mut command);
        command.args(["--print-reply", &format!("--dest={destination}")]).args(words);
        let output = command.output().await?;
        anyhow::ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Whether a colour (`#2F9D66`) is anywhere on the screen.
    ///
    /// # Errors
    /// There is no screen, or no ImageMagick.
    pub async fn shows(&self, colour: &str) -> anyhow::Result<bool> {
        let screen = self.screen.as_ref().context("the desktop has a screen")?;
        let mut command = Command::new("import");
        command.args([
            "-window",
            "root",
            "-display",
            &screen.display,
            "-format",
            "%c",
            "-depth",
            "8",
            "histogram:info:-",
        ]);
        let output = command.output().await?;
        anyhow::ensure!(output.status.success(), "import: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).contains(colour))
    }

    /// Keeps a picture of the screen.
    ///
    /// # Errors
    /// As for [`Self::shows`].
    pub async fn picture(&self, file: &Path) -> anyhow::Result<()> {
        let screen = self.screen.as_ref().context("the desktop has a screen")?;
        let mut command = Command::new("import");
        let status =
            command.args(["-window", "root", "-display", &screen.display]).arg(file).status().await?;
        anyhow::ensure!(status.success(), "import: {status}");
        Ok(())
    }

    /// Clicks at a place of the screen.
    ///
    /// # Errors
    /// `xdotool` is not installed.
    pub async fn click(&self, x: u32, y: u32) -> anyhow::Result<()> {
        let screen = self.screen.as_ref().context("the desktop has a screen")?;
        let mut command = Command::new("xdotool");
        command
            .args(["mousemove", &x.to_string(), &y.to_string(), "click", "1"])
            .env("DISPLAY", &screen.display);
        anyhow::ensure!(command.status().await?.success(), "xdotool fails");
        Ok(())
    }

    async fn on_bus(with_services: bool) -> anyhow::Result<Self> {
        let bus = Bus::start(Kind::Session { with_services }).await?;
        Ok(Self { address: bus.address.clone(), bus, keyring: None, screen: None })
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
        self.bus.folder().to_owned()
    }
}
