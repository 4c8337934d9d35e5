//! A D-Bus of a story's own, on which everybody may say and do everything.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Input, Process};

/// Which of the two that a machine has it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A person's. Services that are installed on this machine are started on it only where a story wants them.
    Session {
        /// Whether it does.
        with_services: bool,
    },
    /// The machine's.
    System,
}

/// A running bus.
#[derive(Debug)]
pub struct Bus {
    /// Where programs find it.
    pub address: String,
    folder: TempDir,
    _process: Process,
}

impl Bus {
    /// Starts one; nothing is on it.
    ///
    /// # Errors
    /// `dbus-daemon` is not installed.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (name, services) = match kind {
            Kind::Session { with_services: true } => ("session", "<standard_session_servicedirs/>"),
            Kind::Session { with_services: false } => ("session", ""),
            Kind::System => {
                // A service drops its rights, and has to get to its bus.
                fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
                ("system", "")
            }
        };
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>{name}</type><listen>unix:path={}/bus</listen>{services}<policy context=\"default\">\
             <allow user=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            folder.path().display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--print-address", "--config-file"]).arg(config);
        let process = Process::spawn(&format!("{name} bus"), &mut command, Input::None)?;
        let address = |line: &str| line.starts_with("unix:").then(|| line.trim().to_owned());
        let address = process.output.find("the address of the bus", address).await?;
        Ok(Self { address, folder, _process: process })
    }

    /// A folder that is there as long as it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
