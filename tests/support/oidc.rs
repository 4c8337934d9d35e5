//! The OpenID provider: npm's certified `oidc-provider`, with the accounts `alice` and `bob`.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use rustls::ClientConfig;
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
    /// Starts a provider whose client may return to the authenticate host at `port`, whose access tokens end after `life`
    /// (the gateway refreshes a minute ahead), and which believes the authority in the file `trusted`.
    ///
    /// # Errors
    /// It does not start; `tests/run` installs what it needs.
    pub async fn start(port: u16, life: Duration, trusted: &Path) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("idp");
        let host = format!("https://authenticate.localhost:{port}");
        let mut command = Command::new("node");
        command
            .arg("server.js")
            .current_dir(folder)
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("ACCESS_TOKEN_SECONDS", life.as_secs().to_string())
            .env("REDIRECT_URIS", format!("{host}/oauth2/callback"))
            .env("BACK_CHANNEL_URI", format!("{host}/oauth2/backchannel_logout"))
            .env("NODE_EXTRA_CA_CERTS", trusted)
            .env("SIGNED_OUT_URIS", format!("{host}/.pomerium/signed_out"));
        let process = Process::spawn("identity provider", &mut command, Input::None)?;
        let issuer =
            process.output.find("issuer", |line| line.strip_prefix("issuer ").map(str::to_owned)).await?;
        Ok(Self { issuer, process })
    }

    /// Changes what the provider says of somebody from now on: `claims` is merged into theirs.
    ///
    /// # Errors
    /// There is nobody of this name.
    pub async fn change(
        &self,
        tls: &Arc<ClientConfig>,
        name: &str,
        claims: &serde_json::Value,
    ) -> anyhow::Result<()> {
        let uri = format!("{}/people/{name}", self.issuer);
        let body = Full::new(Bytes::from(claims.to_string()));
        let request = Request::post(uri).header(header::CONTENT_TYPE, "application/json").body(body)?;
        let page = crate::http::send(tls, request).await?;
        anyhow::ensure!(page.status.is_success(), "{} answered {}: {}", page.url, page.status, page.text());
        Ok(())
    }
}
