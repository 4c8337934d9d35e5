//! `login`: sign in now, and remember the gateway.

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{GatewayArg, Shared, print, remember, user_cache};
use crate::{access::Caller, failure::Failure};

/// Sign in to a gateway. Any host of it will do; later commands use this gateway when none is named.
#[derive(Debug, Args)]
pub(crate) struct Login {
    #[command(flatten)]
    gateway: GatewayArg,
    #[command(flatten)]
    shared: Shared,
    /// Show a code to type in a browser on another machine, instead of opening one here
    #[arg(long, conflicts_with_all = ["browser_cmd", "no_browser", "service_account", "service_account_file"])]
    device: bool,
}

impl Login {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let gateway = self.gateway.resolve(user_cache().as_ref())?;
        let tracker = TaskTracker::new();
        let access = if self.device {
            self.shared.access_of(Caller::Device, gateway, &tracker)?
        } else {
            self.shared.access(gateway, &tracker)?
        };
        let signed_in = access.signed_in_for_long().await;
        access.link().close().await;
        let token = signed_in?;
        remember(access.gateway());
        let person = token.person().map(|name| format!(" as {name}")).unwrap_or_default();
        print(&format!("Signed in to {}{person}.\n", access.gateway()))
    }
}
