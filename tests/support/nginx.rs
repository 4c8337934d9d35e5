//! Debian's nginx in front of apps, with the configuration that `docs/forward-auth.md` tells people to write.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use tokio::{net::TcpStream, process::Command};

use crate::{
    gateway::Gateway,
    process::{Input, Process},
    wait,
};

/// What the documentation calls the parts, and the folder of its files.
const FOLDER: &str = "/etc/nginx/";
const APP_HOST: &str = "grafana.corp.example";
const SIGN_IN_HOST: &str = "authenticate.corp.example";
const APP: &str = "10.0.0.5:3000";
const DOOR: &str = "127.0.0.1:5480";
const GATEWAY: &str = "127.0.0.1:8443";

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
}

impl Nginx {
    /// Starts nginx on `port` with these apps (host and address) and the sign-in host. Asks the gateway at `door`.
    ///
    /// # Errors
    /// nginx is not installed, or does not take the documented configuration.
    pub async fn start(
        port: u16,
        gateway: &Gateway,
        door: SocketAddr,
        apps: &[(&str, SocketAddr)],
    ) -> anyhow::Result<Self> {
        let folder = gateway.folder();
        let document = include_str!("../../docs/forward-auth.md");
        let mut blocks = document.split("```nginx\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut block = || {
            let text = blocks.next().context("docs/forward-auth.md has three blocks for nginx")?;
            anyhow::Ok(adapted(text, folder, port, gateway.port, door))
        };
        let (asks, app, sign_in) = (block()?, block()?, block()?);
        let apps: String = apps
            .iter()
            .map(|(host, address)| app.replace(APP_HOST, host).replace(APP, &address.to_string()))
            .collect();
        std::fs::write(folder.join("pomerium.conf"), asks)?;
        let file = folder.join("nginx.conf");
        std::fs::write(&file, whole(folder, &format!("{apps}{sign_in}")))?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(&file);
        let process = Process::spawn("nginx", &mut command, Input::None)?;
        let connect = || async { TcpStream::connect(("127.0.0.1", port)).await.ok() };
        wait::until("nginx", connect).await.with_context(|| process.errors.text())?;
        Ok(Self { process })
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.errors.text()
    }
}

/// The documented text with the names and ports of the test.
fn adapted(text: &str, folder: &Path, port: u16, gateway: u16, door: SocketAddr) -> String {
    text.replace(FOLDER, &format!("{}/", folder.display()))
        .replace(SIGN_IN_HOST, "authenticate.localhost")
        .replace(DOOR, &door.to_string())
        .replace(GATEWAY, &format!("127.0.0.1:{gateway}"))
        .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
        // Names in URLs have the port of the test; the name in TLS has none.
        .replace("$host", &format!("$host:{port}"))
        .replace(&format!("proxy_ssl_name $host:{port}"), "proxy_ssl_name $host")
}

/// One process in the foreground, with all its files in `folder`.
fn whole(folder: &Path, servers: &str) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {folder}/nginx-{name};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{servers}}}\n"
    )
}
