//! `login`: sign in now, and remember the gateway.

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{GatewayArg, Shared, keeping, print, remember, user_cache};
use crate::{
    access::Caller,
    failure::Failure,
    gateway::Gateway,
    link::answer::shown,
    local_api::wire::{Reply, Request},
    login,
};

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
        let daemon = self.shared.daemon().filter(|_| !self.device);
        if let Some(daemon) = daemon
            && let Some(mut line) = daemon.line().await
        {
            let request = Request::Login { gateway: gateway.to_string() };
            let Reply::SignedIn { person } = line.ask(request, login::tell_page).await? else {
                return Err(Failure::BadAnswer { what: "a sign-in" });
            };
            return done(&gateway, person);
        }
        let access = if self.device {
            self.shared.access_of(Caller::Device, gateway, &tracker)?
        } else {
            self.shared.access(gateway, &tracker)?
        };
        let signed_in = access.signed_in_for_long().await;
        access.link().close().await;
        let token = signed_in?;
        // A session that the next command does not find is none.
        access.keep(&token)?;
        done(access.gateway(), token.person())
    }
}

fn done(gateway: &Gateway, person: Option<String>) -> Result<(), Failure> {
    remember(gateway);
    let person = person.map(|name| format!(" as {}", shown(&name))).unwrap_or_default();
    let kept = keeping::decided().map(|how| format!("The session is kept {how}.\n")).unwrap_or_default();
    print(&format!("Signed in to {gateway}{person}.\n{kept}"))
}
