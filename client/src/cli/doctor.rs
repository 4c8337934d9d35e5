//! `doctor`: what is in the way, and what to do about it.

use clap::Args;
use pomerium_shared::{clock::Now, finding::Finding};

use super::{Shared, daemon_status, keeping, named_or_last, print, user_cache};
use crate::{
    doctor::{self, facts::Seen},
    failure::Failure,
    link::answer::shown,
};

/// Look at everything between this machine and the gateway, and say what is in the way and what to do about it.
///
/// Name servers, other VPNs, TCP and UDP, the certificate, the clock, packet sizes, socket buffers, proxy variables, daemon and
/// session. Nothing is changed, nobody is signed in.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Any host of the gateway, as https://host:port; the one used last if not given
    #[arg(value_name = "GATEWAY", env = "POMERIUM_URL")]
    gateway: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shared: Shared,
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let findings = examine(&self.shared, self.gateway.as_deref()).await?;
        if self.json {
            let text = serde_json::to_string_pretty(&findings).map_err(std::io::Error::other)?;
            print(&format!("{text}\n"))?;
        } else {
            print(&Finding::text(&findings))?;
        }
        if Finding::bad(&findings) == 0 { Ok(()) } else { Err(Failure::Unwell) }
    }
}

/// Looks, and says what it means.
pub(super) async fn examine(shared: &Shared, gateway: Option<&str>) -> Result<Vec<Finding>, Failure> {
    let gateway = named_or_last(gateway, user_cache().as_ref())?;
    let trust = shared.trust()?;
    let (mut facts, daemon) = tokio::join!(doctor::gather(&gateway, &trust), daemon_status());
    facts.daemon = daemon.ok().flatten().map(|status| shown(&status.program));
    facts.keyring = match keeping::decided() {
        Some(keeping::Keeping::Sealed(_)) => Seen::Got(()),
        Some(keeping::Keeping::Plain(why)) => Seen::Failed(why.clone()),
        None => Seen::NotTried,
    };
    let token = user_cache().and_then(|cache| {
        let bound = cache.clone().for_device().token(&gateway).ok().flatten();
        bound.or_else(|| cache.token(&gateway).ok().flatten())
    });
    let token = token.filter(|token| !token.is_expired(Now::read().wall));
    facts.person = token.map(|token| token.person().unwrap_or_else(|| "somebody".to_owned()));
    Ok(doctor::check(&facts))
}
