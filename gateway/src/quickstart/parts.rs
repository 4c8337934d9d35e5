//! Starts what stands behind and beside the quickstart's gateway: the development identity provider, an app, a TCP
//! service. Each has its port before the configuration is written, and keeps it.

use anyhow::Context as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Options,
    dev_idp::{self, DevIdp},
    hello,
    loopback::LoopbackListener,
    sample_app::{self, AssertionKeys},
};
use crate::secret::Secret;

/// The app's host as browsers name it. Browsers take every name under `localhost` for this machine (RFC 6761, 6.3).
pub(super) const APP_HOST: &str = "app.localhost";

/// The TCP service as clients name it.
pub(super) const SERVICE: &str = "hello.corp.example:7000";

/// Whom policy allows.
pub(super) const ALLOWED_EMAIL: &str = "alice@corp.example";

/// What the configuration needs to know of the parts.
#[derive(Debug)]
pub(super) struct Parts {
    /// The loopback port of the development identity provider.
    pub(super) identity_provider: u16,
    /// What the gateway shows to it: another one at each start.
    pub(super) client_secret: Secret<String>,
    /// The loopback port of the app.
    pub(super) app: u16,
    /// The loopback port of the TCP service.
    pub(super) service: u16,
}

/// Starts the parts on loopback ports of the system's choice; they end with `stop`.
pub(super) async fn start(
    options: &Options,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Parts> {
    let idp_listener = LoopbackListener::bind().await?;
    let app_listener = LoopbackListener::bind().await?;
    let hello_listener = LoopbackListener::bind().await?;
    let parts = Parts {
        identity_provider: idp_listener.port(),
        client_secret: Secret::new(dev_idp::random()),
        app: app_listener.port(),
        service: hello_listener.port(),
    };
    let redirect_uri = format!("https://authenticate.localhost:{}/oauth2/callback", options.port);
    let idp = DevIdp::new(idp_listener.port(), redirect_uri, parts.client_secret.clone())
        .context("cannot make the development identity provider's key")?;
    let keys = AssertionKeys::new(options.port, &options.folder.join("ca.pem"))
        .context("cannot read the certificate authority")?;
    tracker.spawn(idp.serve(idp_listener, tracker.clone(), stop.clone()));
    tracker.spawn(sample_app::serve(app_listener, keys, tracker.clone(), stop.clone()));
    tracker.spawn(hello::serve(hello_listener, tracker.clone(), stop.clone()));
    Ok(parts)
}
