//! Debian's Caddy in front of an app, with the configuration that `docs/forward-auth.md` tells people to write.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::{net::TcpStream, process::Command};

use crate::{
    gateway::Gateway,
    process::{Input, Process},
    wait,
};

/// A running Caddy.
#[derive(Debug)]
pub struct Caddy {
    _process: Process,
}

impl Caddy {
    /// Starts Caddy on `port` with `app.localhost` and the sign-in host. Asks the gateway at `door`.
    ///
    /// # Errors
    /// Caddy is not installed, or does not take the documented configuration.
    pub async fn start(
        port: u16,
        gateway: &Gateway,
        door: SocketAddr,
        app: SocketAddr,
    ) -> anyhow::Result<Self> {
        let folder = gateway.folder().display().to_string();
        let document = include_str!("../../docs/forward-auth.md");
        let block = document.split("```caddyfile\n").nth(1).and_then(|rest| rest.split("```").next());
        let site = |host: &str| {
            let tls = format!("tls {folder}/gateway.pem {folder}/gateway.key");
            format!("https://{host}:{port} {{\n    bind 127.0.0.1\n    {tls}\n")
        };
        let sites = block
            .context("docs/forward-auth.md has a block for Caddy")?
            .replace("grafana.corp.example {\n", &site("app.localhost"))
            .replace("authenticate.corp.example {\n", &site("authenticate.localhost"))
            .replace("authenticate.corp.example", "authenticate.localhost")
            .replace("/etc/caddy", &folder)
            .replace("127.0.0.1:5480", &door.to_string())
            .replace("127.0.0.1:8443", &format!("127.0.0.1:{}", gateway.port))
            .replace("10.0.0.5:3000", &app.to_string());
        let global = "{\n    admin off\n    auto_https off\n}\n";
        let file = gateway.folder().join("Caddyfile");
        std::fs::write(&file, format!("{global}{sites}"))?;
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
        // What it keeps of its own stays in the folder.
        command.env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder).env("HOME", &folder);
        let process = Process::spawn("caddy", &mut command, Input::None)?;
        let connect = || async { TcpStream::connect(("127.0.0.1", port)).await.ok() };
        wait::until("caddy", connect).await.with_context(|| process.errors.text())?;
        Ok(Self { _process: process })
    }
}
