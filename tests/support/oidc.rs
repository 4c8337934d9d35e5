//! The OpenID provider: npm's certified `oidc-provider`, with the accounts `alice` and `bob`.

use std::path::Path;

use tokio::process::Command;

use crate::process::{Input, Process};

/// The secret of the one client, `pomerium`.
pub const CLIENT_SECRET: &str = "the-secret-of-the-tests-own-client";

/// A running provider.
#[derive(Debug)]
pub struct Oidc {
    /// The issuer, without a slash at the end.
    pub issuer: String,
    /// The process, for its log.
    pub process: Process,
}

impl Oidc {
    /// Starts a provider whose client may return to the authenticate host at `port`.
    ///
    /// # Errors
    /// It does not start; `tests/run` installs what it needs.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("idp");
        let host = format!("https://authenticate.localhost:{port}");
        let mut command = Command::new("node");
        command
            .arg("server.js")
            .current_dir(folder)
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("REDIRECT_URIS", format!("{host}/oauth2/callback"))
            .env("SIGNED_OUT_URIS", format!("{host}/.pomerium/signed_out"));
        let process = Process::spawn("identity provider", &mut command, Input::None)?;
        let issuer =
            process.output.find("issuer", |line| line.strip_prefix("issuer ").map(str::to_owned)).await?;
        Ok(Self { issuer, process })
    }
}
