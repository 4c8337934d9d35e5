//! The gateway under test, with a configuration, a certificate and a store of its own.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tempfile::TempDir;
use tokio::process::Command;
use url::Url;

use crate::{
    authority::Authority,
    log::Log,
    oidc::{CLIENT_SECRET, Oidc},
    person::Person,
    port,
    process::{Input, Process},
    wait::{self, until},
};

/// The shared secret of the gateway under test: a forger of the tests may know it.
pub const SHARED_SECRET: [u8; 32] = *b"the-tests-own-shared-secret-----";

const COOKIE_SECRET: [u8; 32] = *b"the-tests-own-cookie-secret-----";

/// Who is let in where nothing else is said.
const ALICE_ALONE: &str = "[{allow: {and: [{email: {is: alice@corp.example}}]}}]";

/// One entry of `routes`.
#[derive(Debug, Clone)]
pub struct Route {
    from: String,
    leads: String,
    policy: String,
    more: String,
}

impl Route {
    /// A TCP route from `destination` (`host:port`), for alice alone.
    #[must_use]
    pub fn tcp(destination: &str, to: impl std::fmt::Display) -> Self {
        Self::new(format!("tcp+https://{destination}"), format!("tcp://{to}"))
    }

    /// A UDP route from `destination` (`host:port`), for alice alone.
    #[must_use]
    pub fn udp(destination: &str, to: impl std::fmt::Display) -> Self {
        Self::new(format!("udp+https://{destination}"), format!("udp://{to}"))
    }

    /// A web route for a host, for alice alone. The gateway's port is added.
    #[must_use]
    pub fn web(host: &str, to: impl std::fmt::Display) -> Self {
        let mut route = Self::new(format!("https://{host}:PORT"), format!("http://{to}"));
        "\n    pass_identity_headers: true\n    allow_websockets: true\n    timeout: 0s"
            .clone_into(&mut route.more);
        route
    }

    /// A web route for a host that leads to no app, for alice alone: `redirect` or `response`, as YAML in one line.
    #[must_use]
    pub fn without_app(host: &str, leads: &str) -> Self {
        Self { leads: leads.to_owned(), ..Self::new(format!("https://{host}:PORT"), String::new()) }
    }

    /// Another `to`, as YAML in one line.
    #[must_use]
    pub fn to(mut self, yaml: &str) -> Self {
        self.leads = format!("to: {yaml}");
        self
    }

    /// Another policy, as PPL in one line.
    #[must_use]
    pub fn policy(mut self, ppl: &str) -> Self {
        ppl.clone_into(&mut self.policy);
        self
    }

    /// More keys of the route, each `key: value`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.more.push_str("\n    ");
        self.more.push_str(line);
        self
    }

    fn new(from: String, to: String) -> Self {
        Self { from, leads: format!("to: {to}"), policy: ALICE_ALONE.to_owned(), more: String::new() }
    }

    fn yaml(&self, port: u16) -> String {
        let from = self.from.replace("PORT", &port.to_string());
        format!("  - from: {from}\n    {}\n    policy: {}{}\n", self.leads, self.policy, self.more)
    }
}

/// What a gateway may be started with.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// More lines of configuration, each with its end; `ISSUER` stands for the identity provider's.
    pub more: &'a str,
    /// The port that browsers use, where another proxy has it.
    pub front: Option<u16>,
    /// How long the provider's access tokens live.
    pub token_life: Duration,
    /// The IP address to listen on.
    pub ip: &'a str,
    /// The connection string of a database that keeps the store, in the place of a folder.
    pub database: Option<&'a str>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { more: "", front: None, token_life: Duration::from_secs(600), ip: "127.0.0.1", database: None }
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Its port, on TCP and UDP.
    pub port: u16,
    /// What its certificate comes from.
    pub authority: Authority,
    /// The identity provider it asks.
    pub oidc: Oidc,
    process: Process,
    folder: TempDir,
}

impl Gateway {
    /// Starts an identity provider, and a gateway with these routes.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(routes: &[Route]) -> anyhow::Result<Self> {
        Self::start_with(routes, &Options::default()).await
    }

    /// Starts them with options.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_with(routes: &[Route], options: &Options<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path())?;
        let port = port::reserve()?;
        let public = options.front.unwrap_or(port);
        let oidc = Oidc::start(public, options.token_life, &authority.root).await?;
        let config = configuration(folder.path(), public, &oidc.issuer, &authority, routes)
            .replace(&format!("address: 127.0.0.1:{public}"), &format!("address: {}:{port}", options.ip))
            + &options.more.replace("ISSUER", &oidc.issuer);
        let config = match options.database {
            Some(database) => config
                .replace("storage_type: file", "storage_type: postgres")
                .replace(&format!("file://{}/store", folder.path().display()), database),
            None => config,
        };
        std::fs::write(folder.path().join("config.yaml"), config)?;
        let process = spawn(folder.path())?;
        let mut gateway = Self { port, authority, oidc, process, folder };
        Box::pin(gateway.wait_until_ready()).await?;
        Ok(gateway)
    }

    /// Its process.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.process.id()
    }

    /// Where a host of this gateway is found: `app.localhost` gives `https://app.localhost:PORT/`.
    ///
    /// # Errors
    /// The host is no host.
    pub fn url(&self, host: &str) -> anyhow::Result<Url> {
        Ok(Url::parse(&format!("https://{host}:{}/", self.port))?)
    }

    /// Everything it logs.
    #[must_use]
    pub fn log(&self) -> Logs<'_> {
        Logs { output: &self.process.output, errors: &self.process.errors }
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// The folder for files that belong to this gateway.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a configuration with other routes; the gateway takes it on SIGHUP, or when it looks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_routes(&self, routes: &[Route]) -> anyhow::Result<()> {
        let config = configuration(self.folder.path(), self.port, &self.oidc.issuer, &self.authority, routes);
        self.write_config(&config)
    }

    /// Replaces the configuration in one step, as an editor does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_config(&self, text: &str) -> anyhow::Result<()> {
        let new = self.folder.path().join("config.new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.config())?;
        Ok(())
    }

    /// Changes what the identity provider says of somebody.
    ///
    /// # Errors
    /// It knows nobody of this name.
    pub async fn change_person(&self, name: &str, claims: &serde_json::Value) -> anyhow::Result<()> {
        self.oidc.change(&self.authority.client_config(&[b"http/1.1"])?, name, claims).await
    }

    /// Sends SIGHUP.
    ///
    /// # Errors
    /// The gateway has ended.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.process.signal("HUP")
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// It has ended before, or ends with a failure.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait().await?;
        anyhow::ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again, with the same port, configuration and store.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = spawn(self.folder.path())?;
        Box::pin(self.wait_until_ready()).await
    }

    /// Starts a process beside it, with the same configuration (and `more`), folder and store.
    ///
    /// # Errors
    /// The system refuses.
    pub fn spawn_beside(&self, arguments: &[&str], more: &str) -> anyhow::Result<Process> {
        let file = self.folder.path().join("beside.yaml");
        std::fs::write(&file, format!("{more}{}", std::fs::read_to_string(self.config())?))?;
        let mut command = Command::new(binary("pomerium-gateway")?);
        command.args(["run", "--config"]).arg(file).args(arguments).current_dir(self.folder.path());
        Process::spawn("process beside the gateway", &mut command, Input::None)
    }

    /// Starts a process like this gateway at another address, on the same port and with the same folder and routes, and with `more`
    /// in the place of what is only its own.
    ///
    /// # Errors
    /// It is not built, or its file cannot be written.
    pub fn spawn_at(&self, address: Ipv4Addr, own: &str, more: &str) -> anyhow::Result<Process> {
        let file = self.folder.path().join(format!("at-{address}.yaml"));
        let config = std::fs::read_to_string(self.config())?;
        let line = |address| format!("address: {address}:{}\n", self.port);
        let here = line(Ipv4Addr::LOCALHOST);
        anyhow::ensure!(config.contains(&here) && config.contains(own), "{config}");
        std::fs::write(&file, config.replace(&here, &line(address)).replace(own, more))?;
        let mut command = Command::new(binary("pomerium-gateway")?);
        command.args(["run", "--config"]).arg(file).current_dir(self.folder.path());
        Process::spawn("gateway at another address", &mut command, Input::None)
    }

    /// Waits until a gateway answers at this one's address.
    ///
    /// # Errors
    /// None does.
    pub async fn answers(&self) -> anyhow::Result<()> {
        let person = Person::new("nobody", &self.authority)?;
        let ping = self.ping()?;
        let looking = until("a gateway to answer", async || is_up(&person, &ping).await.then_some(()));
        Box::pin(looking).await
    }

    fn ping(&self) -> anyhow::Result<Url> {
        Ok(Url::parse(&format!("https://localhost:{}/ping", self.port))?)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let person = Person::new("nobody", &self.authority)?;
        let ping = self.ping()?;
        let process = &mut self.process;
        let ready = async {
            loop {
                if is_up(&person, &ping).await {
                    return Ok(());
                }
                if !process.is_running() {
                    process.wait().await?;
                    bail!("the gateway ended:\n{}\n{}", process.output.text(), process.errors.text());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        Box::pin(wait::within("the gateway to answer", ready)).await?
    }
}

async fn is_up(person: &Person, ping: &Url) -> bool {
    person.get(ping).await.is_ok_and(|page| page.status.is_success())
}

/// The two logs of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Logs<'a> {
    output: &'a Log,
    errors: &'a Log,
}

impl Logs<'_> {
    /// How many lines contain `part`.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.output.count(part) + self.errors.count(part)
    }

    /// Waits for a line that contains all `parts`, and gives it.
    ///
    /// # Errors
    /// None came within the limit.
    pub async fn line_with(&self, parts: &[&str]) -> anyhow::Result<String> {
        let find = |log: &Log| {
            let (log, parts) = (log.clone(), parts.to_vec());
            async move {
                let choose =
                    |line: &str| parts.iter().all(|part| line.contains(part)).then(|| line.to_owned());
                log.find(&parts.join(", "), choose).await
            }
        };
        tokio::select! {
            line = find(self.output) => line,
            line = find(self.errors) => line,
        }
    }
}

/// A program under test, built beside the tests or in `POMERIUM_BIN_DIR`.
///
/// # Errors
/// It is not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("POMERIUM_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        // target/debug/deps/e2e-0123 → target/debug
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("tests run from the target folder")?
            .to_owned(),
    };
    let file = folder.join(name);
    if !file.is_file() {
        bail!("{} is not there: run `cargo build --workspace --bins`", file.display());
    }
    Ok(file)
}

fn spawn(folder: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("pomerium-gateway")?);
    command.args(["run", "--config"]).arg(folder.join("config.yaml")).current_dir(folder);
    Process::spawn("gateway", &mut command, Input::None)
}

fn configuration(folder: &Path, port: u16, issuer: &str, authority: &Authority, routes: &[Route]) -> String {
    let routes: String = routes.iter().map(|route| route.yaml(port)).collect();
    format!(
        "address: 127.0.0.1:{port}\n\
         authenticate_service_url: https://authenticate.localhost:{port}\n\
         certificates:\n  - cert: {}\n    key: {}\n\
         shared_secret: {}\n\
         cookie_secret: {}\n\
         idp_provider: oidc\n\
         idp_provider_url: {issuer}\n\
         idp_client_id: pomerium\n\
         idp_client_secret: {CLIENT_SECRET}\n\
         idp_scopes: [openid, profile, email, groups, offline_access]\n\
         databroker_storage_type: file\n\
         databroker_storage_connection_string: file://{}/store\n\
         log_level: info\n\
         jwt_claims_headers:\n  X-Pomerium-Claim-Email: email\n\
         routes:\n{routes}",
        authority.certificate.display(),
        authority.key.display(),
        STANDARD.encode(SHARED_SECRET),
        STANDARD.encode(COOKIE_SECRET),
        folder.display(),
    )
}
