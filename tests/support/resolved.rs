//! systemd-resolved, on a system bus of its own, in a story's namespace: it answers at 127.0.0.53 and asks one server.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    bus::{Bus, Kind},
    process::{Input, Process, run},
    wait,
};

/// Who it is once it runs.
const USER: &str = "systemd-resolve";
/// A number that nobody else has.
const NUMBER: u32 = 64_553;

/// A running systemd-resolved.
#[derive(Debug)]
pub struct Resolved {
    /// `DBUS_SYSTEM_BUS_ADDRESS` of programs beside it.
    pub bus: String,
    service: Process,
    _bus: Bus,
    _folder: TempDir,
}

impl Resolved {
    /// Starts it; `server` knows the names of the world. Only within [`crate::namespace::inside`]: files that it reads and writes are
    /// mounted over those of the machine.
    ///
    /// # Errors
    /// It is not there: see `tests/install`.
    pub async fn start(server: IpAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for place in ["/run/systemd", "/etc/systemd"] {
            run("mount", &["-t", "tmpfs", "tmpfs", place]).await?;
        }
        let settings = format!("[Resolve]\nDNS={server}\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n");
        fs::write("/etc/systemd/resolved.conf", settings)?;
        for (file, line) in [
            ("passwd", format!("{USER}:x:{NUMBER}:{NUMBER}::/:/usr/sbin/nologin\n")),
            ("group", format!("{USER}:x:{NUMBER}:\n")),
        ] {
            let (own, machines) = (folder.path().join(file), format!("/etc/{file}"));
            fs::write(&own, fs::read_to_string(&machines)? + &line)?;
            run("mount", &["--bind", &own.display().to_string(), &machines]).await?;
        }
        let bus = Bus::start(Kind::System).await?;
        let service = service(&bus.address)?;
        let resolved = Self { bus: bus.address.clone(), service, _bus: bus, _folder: folder };
        resolved.ready().await?;
        Ok(resolved)
    }

    /// Kills it, and starts it again.
    ///
    /// # Errors
    /// As for starting it.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.service.kill().await?;
        // What it knows of devices is not to come from there.
        let _nothing = fs::remove_dir_all("/run/systemd/resolve");
        self.service = service(&self.bus)?;
        self.ready().await
    }

    async fn ready(&self) -> anyhow::Result<()> {
        wait::until("systemd-resolved", async || {
            let mut ask = Command::new("dbus-send");
            ask.args(["--system", "--print-reply", "--dest=org.freedesktop.resolve1"]);
            ask.args(["/org/freedesktop/resolve1", "org.freedesktop.DBus.Peer.Ping"]);
            let output = ask.env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus).output().await.ok()?;
            output.status.success().then_some(())
        })
        .await
        .with_context(|| self.service.errors.text())
    }
}

fn service(bus: &str) -> anyhow::Result<Process> {
    let (program, library) = program()?;
    let mut command = Command::new(program);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
    if let Some(library) = library {
        command.env("LD_LIBRARY_PATH", library);
    }
    Process::spawn("systemd-resolved", &mut command, Input::None)
}

/// The machine's, or the one that `tests/install` has unpacked, with the folder of its library.
fn program() -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
    let machines = Path::new("/lib/systemd/systemd-resolved");
    if machines.exists() {
        return Ok((machines.to_owned(), None));
    }
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/systemd-resolved");
    let program = peers.join("lib/systemd/systemd-resolved").canonicalize();
    let program = program.context("systemd-resolved is not there: run tests/install")?;
    let mut folders =
        fs::read_dir(peers.join("usr/lib"))?.filter_map(|entry| Some(entry.ok()?.path().join("systemd")));
    Ok((program, folders.find(|folder| folder.exists())))
}
