//! `wireguard`: what an administrator does about people's WireGuard devices. Works on the store; a running gateway follows within
//! a second.

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use pomerium_shared::clock::Now;

use super::{on_store, people};
use crate::{
    config::Settings,
    store::{Store, User},
    wireguard_peer::{Networks, Peer},
};

/// Arguments of `wireguard`.
#[derive(Debug, Clone, Args)]
pub struct WireGuardArguments {
    /// The gateway's YAML file: it says where the store is.
    #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Shows all WireGuard devices, or those of one person.
    List {
        /// The person's id or email address.
        #[arg(long, value_name = "PERSON")]
        user: Option<String>,
    },
    /// Keeps a device out for good, at once; its person still sees it in their list.
    Revoke(Which),
    /// Removes a device; its key is never accepted again.
    Remove(Which),
}

/// Names a device.
#[derive(Debug, Clone, Args)]
struct Which {
    /// Its id, or the beginning of it.
    #[arg(value_name = "DEVICE")]
    id: String,
}

/// Runs the command; 78 if the configuration cannot be used.
#[must_use]
pub fn wireguard(arguments: &WireGuardArguments) -> ExitCode {
    on_store(&arguments.config, async |settings, store| act(settings, store, &arguments.command).await)
}

/// Does what is asked, and says what was done.
async fn act(settings: &Settings, store: &Store, command: &Command) -> anyhow::Result<String> {
    let (users, peers) = (store.users().await?, store.peers(None).await?);
    let now = Now::read().wall;
    let text = match command {
        Command::List { user } => {
            let whose = |(peer, _): &&(Peer, _)| people::is_meant(&users, &peer.user_id, user.as_deref());
            return Ok(table(settings, peers.iter().filter(whose), &users, now));
        }
        Command::Revoke(which) => {
            let peer = one(&peers, which)?;
            if !store.revoke_peer(&peer.id, now).await? {
                bail!("{} is revoked already", peer.id);
            }
            format!("Revoked {} ({}) of {}.\n", peer.id, peer.name, people::name(&users, &peer.user_id))
        }
        Command::Remove(which) => {
            let peer = one(&peers, which)?;
            store.remove_any_peer(&peer.id, now).await?;
            format!("Removed {} ({}) of {}.\n", peer.id, peer.name, people::name(&users, &peer.user_id))
        }
    };
    store.announce_outside_change().await?;
    Ok(text)
}

fn one<'a>(peers: &'a [(Peer, Option<SystemTime>)], which: &Which) -> anyhow::Result<&'a Peer> {
    let is_meant = |peer: &&Peer| !which.id.is_empty() && peer.id.as_str().starts_with(&which.id);
    let mut found = peers.iter().map(|(peer, _)| peer).filter(is_meant);
    let first = found.next().with_context(|| {
        format!("no WireGuard device begins with {}: `pomerium-gateway wireguard list` shows them", which.id)
    })?;
    if found.next().is_some() {
        bail!("several WireGuard devices begin with {}: give the whole id", which.id);
    }
    Ok(first)
}

fn table<'a>(
    settings: &Settings,
    peers: impl Iterator<Item = &'a (Peer, Option<SystemTime>)>,
    users: &[User],
    now: SystemTime,
) -> String {
    // Where WireGuard is off nobody comes in; what is said of them is what would be by default.
    let configured = settings.wireguard.as_ref();
    let networks = configured.map_or_else(Networks::default, |wireguard| wireguard.networks);
    let grace = configured.map_or(Duration::ZERO, |wireguard| wireguard.session_grace);
    let moment = |at| jiff::Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default();
    let mut text =
        format!("{:36}  {:10}  {:15}  {:20}  {}\n", "DEVICE", "STATE", "ADDRESS", "ADDED", "WHOSE");
    for (peer, session_ends) in peers {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:36}  {:10}  {:15}  {:20}  {} {}",
            peer.id,
            peer.state(&networks, *session_ends, grace, now).as_str(),
            peer.addresses.v4.to_string(),
            moment(peer.created_at),
            people::name(users, &peer.user_id),
            peer.name,
        );
    }
    text
}
