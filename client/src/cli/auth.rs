//! `auth`: a token for other programs.

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{Shared, print, remember};
use crate::failure::Failure;

/// Print a valid token (a secret), signing in if there is none. Send it as `Authorization: Pomerium TOKEN`.
///
/// The token is for other programs, and so bound to no device: whoever has it has your access until it expires.
#[derive(Debug, Args)]
pub(crate) struct Auth {
    /// Any host of the gateway, as https://host:port
    #[arg(value_name = "SERVER_URL", env = "POMERIUM_URL")]
    server_url: String,
    #[command(flatten)]
    shared: Shared,
}

impl Auth {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let shared = self.shared.without_device_key();
        let access = shared.access(self.server_url.parse()?, &TaskTracker::new())?;
        let signed_in = access.signed_in().await;
        access.link().close().await;
        let token = signed_in?;
        remember(access.gateway());
        print(&format!("{}\n", token.expose()))
    }
}
