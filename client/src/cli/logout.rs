//! `logout`: end the session of this machine, and forget its token.

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{GatewayArg, Shared, print, user_cache};
use crate::{
    access::Caller,
    exit,
    failure::Failure,
    gateway::Gateway,
    link::answer::shown,
    local_api::wire::{Reply, Request},
};

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
            let Reply::SignedOut { had_one, untold } = line.ask(request, |_| {}).await? else {
                return Err(Failure::BadAnswer { what: "a sign-out" });
            };
            return done(&gateway, had_one, untold.as_deref());
        }
        // Whoever signs out is a person, whatever account the programs here have.
        let person = Caller::Person(self.shared.browser());
        let access = self.shared.access_of(person, gateway.clone(), &TaskTracker::new())?;
        let signed_out = access.sign_out().await?;
        access.link().close().await;
        let untold = signed_out.untold.map(|why| exit::chain(&why));
        done(&gateway, signed_out.had_one, untold.as_deref())
    }
}

fn done(gateway: &Gateway, had_one: bool, untold: Option<&str>) -> Result<(), Failure> {
    print(&in_words(gateway, had_one, untold))
}

fn in_words(gateway: &Gateway, had_one: bool, untold: Option<&str>) -> String {
    match (had_one, untold) {
        (_, Some(why)) => format!(
            "Signed out of {gateway} on this machine, where no token is left. The gateway was not told ({}): there the session \
             goes on until it expires.\n",
            shown(why)
        ),
        (true, None) => format!("Signed out of {gateway}.\n"),
        (false, None) => format!("There was no token for {gateway}.\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_was_not_told_is_told_of() {
        let gateway: Gateway = "gate.example".parse().unwrap();
        let of = |had_one, untold| in_words(&gateway, had_one, untold);
        assert_eq!(of(true, None), "Signed out of https://gate.example.\n");
        assert_eq!(of(false, None), "There was no token for https://gate.example.\n");
        let untold = of(true, Some("the gateway answered 503"));
        for part in ["no token is left", "(the gateway answered 503)", "until it expires"] {
            assert!(untold.contains(part), "{untold}");
        }
    }
}
