//! `logout`: end the session of this machine, and forget its token.

use std::time::Duration;

use clap::Args;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{GatewayArg, Shared, print, user_cache};
use crate::{
    exit,
    failure::Failure,
    gateway::Gateway,
    local_api::wire::{Reply, Request},
};

/// How long the gateway may take to hear of it: the token is forgotten in any case.
const PATIENCE: Duration = Duration::from_secs(5);

/// End the session of this machine at a gateway, and forget its token. The browser's own session is not touched.
#[derive(Debug, Args)]
pub(crate) struct Logout {
    #[command(flatten)]
    gateway: GatewayArg,
    #[command(flatten)]
    shared: Shared,
}

impl Logout {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let cache = user_cache().ok_or(Failure::NoCache)?;
        let gateway = self.gateway.resolve(Some(&cache))?;
        if let Some(daemon) = self.shared.daemon()
            && let Some(mut line) = daemon.line().await
        {
            let request = Request::Logout { gateway: gateway.to_string() };
            let Reply::SignedOut { had_one } = line.ask(request, |_| {}).await? else {
                return Err(Failure::BadAnswer { what: "a sign-out" });
            };
            return done(&gateway, had_one);
        }
        if cache.clone().for_device().token(&gateway)?.is_some() {
            let access = self.shared.access(gateway.clone(), &TaskTracker::new())?;
            let ended = timeout(PATIENCE, access.end_session(access.token_at_hand())).await;
            access.link().close().await;
            match ended {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(
                    error = %exit::chain(&error),
                    "the gateway was not told: the session goes on there until it expires"
                ),
                Err(_) => {
                    tracing::warn!("the gateway was not told: the session goes on there until it expires")
                }
            }
        }
        let had_one = cache.forget_any(&gateway)? | cache.for_device().forget_any(&gateway)?;
        done(&gateway, had_one)
    }
}

fn done(gateway: &Gateway, had_one: bool) -> Result<(), Failure> {
    let told = if had_one { "Signed out of" } else { "There was no token for" };
    print(&format!("{told} {gateway}.\n"))
}
