//! Let's Encrypt's Pebble, a certificate authority for tests that speaks ACME, with a DNS server to which every name is this
//! machine.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use tokio::{net::TcpStream, process::Command};

use crate::{
    authority::Authority,
    gateway::Gateway,
    person::Person,
    port,
    process::{Input, Process},
    wait,
};

/// A running authority.
#[derive(Debug)]
pub struct Pebble {
    /// Its directory.
    pub directory: String,
    management: u16,
    process: Process,
    _dns: Process,
}

impl Pebble {
    /// Starts one that looks for proofs by TLS at the gateway's port.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start(gateway: &Gateway) -> anyhow::Result<Self> {
        Self::start_looking_at(gateway, port::reserve()?, gateway.port).await
    }

    /// Starts one that looks for proofs by plain HTTP at port 80, and where nobody is by TLS.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start_for_http(gateway: &Gateway) -> anyhow::Result<Self> {
        Self::start_looking_at(gateway, 80, port::reserve()?).await
    }

    async fn start_looking_at(gateway: &Gateway, http: u16, tls: u16) -> anyhow::Result<Self> {
        let folder = gateway.folder();
        let dns = port::reserve()?;
        let nameserver = nameserver(dns)?;
        let (listen, management) = (port::reserve()?, port::reserve()?);
        let Authority { certificate, key, .. } = &gateway.authority;
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": certificate, "privateKey": key,
            "httpPort": http, "tlsPort": tls,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        let file = folder.join("pebble.json");
        std::fs::write(&file, config.to_string())?;
        let process = pebble(&file, dns)?;
        let connect = || async { TcpStream::connect(("127.0.0.1", listen)).await.ok() };
        wait::until("pebble", connect).await.with_context(|| process.errors.text())?;
        Ok(Self {
            directory: format!("https://localhost:{listen}/dir"),
            management,
            process,
            _dns: nameserver,
        })
    }

    /// The certificate that everything it gives comes from, PEM.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn root(&self, gateway: &Gateway) -> anyhow::Result<String> {
        let url = format!("https://localhost:{}/roots/0", self.management).parse()?;
        Ok(Person::new("nobody", &gateway.authority)?.get(&url).await?.text())
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.output.text() + &self.process.errors.text()
    }
}

fn nameserver(port: u16) -> anyhow::Result<Process> {
    let mut command = Command::new("pebble-challtestsrv");
    let address = format!("127.0.0.1:{port}");
    command.args(["-dns01", &address, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
    // All that it could do besides.
    command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management"]);
    command.arg(format!("127.0.0.1:{}", port::reserve()?));
    Process::spawn("pebble-challtestsrv", &mut command, Input::None)
}

fn pebble(config: &Path, dns: u16) -> anyhow::Result<Process> {
    let mut command = Command::new("pebble");
    command.arg("-config").arg(config).args(["-strict", "-dnsserver"]).arg(format!("127.0.0.1:{dns}"));
    // It sleeps for up to 15 seconds before it looks, unless it is asked not to.
    command.env("PEBBLE_VA_NOSLEEP", "1");
    Process::spawn("pebble", &mut command, Input::None)
}
