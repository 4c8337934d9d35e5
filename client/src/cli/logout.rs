//! `logout`: forget the token on this machine.

use clap::Args;

use super::{GatewayArg, print, user_cache};
use crate::failure::Failure;

/// Forget the token of a gateway on this machine. The browser's own session is not touched.
#[derive(Debug, Args)]
pub(crate) struct Logout {
    #[command(flatten)]
    gateway: GatewayArg,
}

impl Logout {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let cache = user_cache().ok_or(Failure::NoCache)?;
        let gateway = self.gateway.resolve(Some(&cache))?;
        let had_one = cache.forget_any(&gateway)? | cache.for_device().forget_any(&gateway)?;
        let told = if had_one { "Signed out of" } else { "There was no token for" };
        print(&format!("{told} {gateway}.\n"))
    }
}
