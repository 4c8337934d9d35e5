//! Debian's Chromium over WebDriver. It trusts the test's authority by the person's own certificate store, and
//! checks certificates as always.

use std::path::Path;

use anyhow::{Context as _, bail};
use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use url::Url;

use crate::{
    authority::Authority,
    process::{Input, Process},
};

const ARGUMENTS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-proxy-server",
    "--host-resolver-rules=MAP *.localhost 127.0.0.1",
];

/// A running browser.
#[derive(Debug)]
pub struct Browser {
    /// The window.
    pub client: Client,
    _driver: Process,
    _home: TempDir,
}

impl Browser {
    /// Starts a browser that trusts `authority`.
    ///
    /// # Errors
    /// Chromium, its driver or `certutil` is not installed.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        Self::start_with(authority, &[]).await
    }

    /// Starts a browser that speaks nothing but HTTP/3 to these origins (`host:port`).
    ///
    /// # Errors
    /// As [`Browser::start`].
    pub async fn start_over_quic(authority: &Authority, origins: &[String]) -> anyhow::Result<Self> {
        // For QUIC, Chromium takes no authority that a person has added: it takes this one key instead.
        let pin = format!("--ignore-certificate-errors-spki-list={}", authority.pin);
        let force = format!("--origin-to-force-quic-on={}", origins.join(","));
        Self::start_with(authority, &[pin, force]).await
    }

    /// Starts a browser that may speak HTTP/3 to these hosts, and has to find out by itself where.
    ///
    /// # Errors
    /// As [`Browser::start`].
    pub async fn start_for_any_protocol(authority: &Authority, hosts: &[&str]) -> anyhow::Result<Self> {
        // What is said of a port counts for the trust in its host: nothing is at this one.
        let elsewhere: Vec<String> = hosts.iter().map(|host| format!("{host}:1")).collect();
        Self::start_over_quic(authority, &elsewhere).await
    }

    async fn start_with(authority: &Authority, more: &[String]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        trust(home.path(), authority).await?;
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", home.path()).env("XDG_CONFIG_HOME", home.path().join(".config"));
        // The driver starts a browser of many processes: they end with it, as one group.
        command.process_group(0);
        command.env("XDG_CACHE_HOME", home.path().join(".cache")).env_remove("XDG_DATA_HOME");
        let driver = Process::spawn("chromedriver", &mut command, Input::None)?;
        let port = driver
            .output
            .find("started successfully on port", |line| {
                line.split("successfully on port ").nth(1)?.trim_end_matches('.').trim().parse::<u16>().ok()
            })
            .await?;
        let profile = format!("--user-data-dir={}", home.path().join("profile").display());
        let arguments: Vec<&str> =
            ARGUMENTS.into_iter().chain([profile.as_str()]).chain(more.iter().map(String::as_str)).collect();
        let options = json!({ "args": arguments });
        let capabilities = [("goog:chromeOptions".to_owned(), options)].into_iter().collect();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await?;
        Ok(Self { client, _driver: driver, _home: home })
    }

    /// Plugs in an authenticator for WebAuthn whose person always agrees (W3C Web Authentication, 11).
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn add_authenticator(&self) -> anyhow::Result<()> {
        self.client.issue_cmd(AddAuthenticator).await?;
        Ok(())
    }

    /// Shows pages as a screen of this width and taste would, in CSS pixels.
    ///
    /// # Errors
    /// The driver refuses.
    pub async fn look_as(&self, width: u32, is_dark: bool) -> anyhow::Result<()> {
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.client.issue_cmd(DevTools("Emulation.setEmulatedMedia", media)).await?;
        let screen = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.client.issue_cmd(DevTools("Emulation.setDeviceMetricsOverride", screen)).await?;
        Ok(())
    }

    /// What keeps people with disabilities from using the page that is shown, as far as a program can tell (axe-core, for
    /// WCAG 2.2 at level AA), a line a fault.
    ///
    /// # Errors
    /// axe-core is not installed, or the driver refuses.
    pub async fn accessibility_faults(&self) -> anyhow::Result<Vec<String>> {
        const RUN: &str = "const done = arguments[0]; axe.run().then((found) => done(found.violations.flatMap((fault) => \
            fault.nodes.map((node) => `${fault.id}: ${node.html}: ${node.failureSummary}`))), (error) => done([String(error)]))";
        let axe =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("accessibility/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&axe).context("run tests/install")?;
        self.client.execute(&axe, vec![]).await?;
        let faults = self.client.execute_async(RUN, vec![]).await?;
        Ok(serde_json::from_value(faults)?)
    }

    /// Asks for pages in this language from now on.
    ///
    /// # Errors
    /// The driver does not answer.
    pub async fn prefer(&self, language: &str) -> anyhow::Result<()> {
        self.client.issue_cmd(DevTools("Network.enable", json!({}))).await?;
        let headers = json!({"headers": {"Accept-Language": language}});
        self.client.issue_cmd(DevTools("Network.setExtraHTTPHeaders", headers)).await?;
        Ok(())
    }

    /// Closes the window and the browser; dropping kills it.
    ///
    /// # Errors
    /// The driver does not answer.
    pub async fn close(self) -> anyhow::Result<()> {
        self.client.close().await?;
        Ok(())
    }
}

/// A command of the DevTools protocol, with its parameters.
#[derive(Debug)]
struct DevTools(&'static str, serde_json::Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, url::ParseError> {
        base_url.join(&format!("session/{}/goog/cdp/execute", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({"cmd": self.0, "params": self.1}).to_string()))
    }
}

/// The extension command "Add Virtual Authenticator".
#[derive(Debug)]
struct AddAuthenticator;

impl WebDriverCompatibleCommand for AddAuthenticator {
    fn endpoint(&self, base: &Url, session_id: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/webauthn/authenticator", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _url: &Url) -> (Method, Option<String>) {
        let authenticator = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": false,
            "hasUserVerification": true, "isUserConsenting": true, "isUserVerified": true,
        });
        (Method::POST, Some(authenticator.to_string()))
    }
}

/// Puts the authority into the certificate store of a home folder.
async fn trust(home: &Path, authority: &Authority) -> anyhow::Result<()> {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store)?;
    let database = format!("sql:{}", store.display());
    run(Command::new("certutil").args(["-N", "--empty-password", "-d", &database])).await?;
    let name = ["-n", "Pomerium tests", "-t", "C,,"];
    run(Command::new("certutil").args(["-A", "-d", &database]).args(name).arg("-i").arg(&authority.root))
        .await
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
