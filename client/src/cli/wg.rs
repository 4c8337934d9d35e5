//! `wg`: devices that come in by WireGuard. The key pair is made here, and its secret half stays in the file that is written here.

mod file;

use std::{io::IsTerminal as _, path::PathBuf};

use clap::{Args, Subcommand};
use pomerium_shared::wireguard::{ListedPeer, NewPeer, PeerName, PrivateKey, wg_quick};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use tokio_util::task::TaskTracker;

use self::file::NewFile;
use super::{Shared, named_or_last, print, remember, user_cache};
use crate::{access::Access, failure::Failure, forward::board::aligned, link::answer::shown};

/// Let a phone, a router or any other machine with WireGuard come in as you, while you are signed in.
#[derive(Debug, Args)]
pub(crate) struct Wg {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a device: makes its key, and writes its file for wg-quick and the WireGuard apps
    Add(Add),
    /// List your devices
    List(List),
    /// Give a device another name
    Rename(Rename),
    /// Remove a device: its key is never accepted again
    Remove(Remove),
}

/// Where to ask.
#[derive(Debug, Args)]
struct Where {
    /// Any host of the gateway, as https://host:port; the one used last if not given
    #[arg(long, alias = "pomerium-url", value_name = "URL", env = "POMERIUM_URL")]
    gateway: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Args)]
struct Add {
    /// What you call the device
    name: String,
    /// Write this file, which must not be there yet [default: NAME.conf]; - prints it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show no QR code
    #[arg(long)]
    no_qr: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
struct Rename {
    /// The device, by its name or the beginning of its id
    device: String,
    /// Its new name
    name: String,
    #[command(flatten)]
    at: Where,
}

#[derive(Debug, Args)]
struct Remove {
    /// The device, by its name or the beginning of its id
    device: String,
    #[command(flatten)]
    at: Where,
}

impl Wg {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::Add(add) => add.run().await,
            Verb::List(list) => list.run().await,
            Verb::Rename(rename) => rename.run().await,
            Verb::Remove(remove) => remove.run().await,
        }
    }
}

impl Where {
    /// Asks the gateway, and hangs up.
    async fn ask<T>(&self, call: impl AsyncFnOnce(&Access) -> Result<T, Failure>) -> Result<T, Failure> {
        let gateway = named_or_last(self.gateway.as_deref(), user_cache().as_ref())?;
        let access = self.shared.access(gateway, &TaskTracker::new())?;
        let said = call(&access).await;
        access.link().close().await;
        if said.is_ok() {
            remember(access.gateway());
        }
        said
    }
}

impl Add {
    async fn run(self) -> Result<(), Failure> {
        let name: PeerName = self.name.parse()?;
        let prints = self.output.as_deref().is_some_and(|path| path == "-");
        // Before anything is asked: what cannot be written must not be enrolled.
        let path = self.output.clone().unwrap_or_else(|| file::name_for(&name));
        let file = if prints { None } else { Some(NewFile::create(path)?) };
        let private_key = new_key()?;
        let new = NewPeer { name, public_key: private_key.public_key() };
        let enrolment = self.at.ask(async |access| access.add_peer(&new).await).await?;
        let text = wg_quick(&private_key, &enrolment);
        let Some(file) = file else { return print(&text) };
        let path = file.write(&text)?;
        // `wg-quick` takes a word without a slash for the name of an interface that it knows.
        let path = std::path::absolute(&path).unwrap_or(path);
        if !self.no_qr && std::io::stdout().is_terminal() {
            print(&picture(&text))?;
        }
        print(&format!(
            "Wrote {}, which only you can read. Import it into the WireGuard app, or run: sudo wg-quick up {}\n",
            path.display(),
            path.display(),
        ))
    }
}

fn new_key() -> Result<PrivateKey, Failure> {
    let mut random = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| std::io::Error::other("the system has no randomness"))?;
    Ok(PrivateKey::from_random(random))
}

/// A QR code in black on white, whatever the colours of the terminal; empty for what does not fit into one.
fn picture(text: &str) -> String {
    const BLACK_ON_WHITE: &str = "\u{1b}[38;5;16;48;5;231m";
    const RESET: &str = "\u{1b}[0m";
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else { return String::new() };
    // A dark module is drawn, and a light one is not: the colours above do the rest.
    let drawn = code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
    drawn.lines().map(|line| format!("{BLACK_ON_WHITE}{line}{RESET}\n")).collect()
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let peers = self.at.ask(Access::peers).await?;
        if self.json {
            let text = serde_json::to_string_pretty(&peers).map_err(std::io::Error::other)?;
            return print(&format!("{text}\n"));
        }
        print(&table(&peers))
    }
}

fn table(peers: &[ListedPeer]) -> String {
    let moment = |seconds: u64| {
        let at = i64::try_from(seconds).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
        at.map(|at| format!("{at:.0}")).unwrap_or_default()
    };
    let lines = peers.iter().map(|peer| {
        let until = peer.active_until.map(moment).unwrap_or_default();
        [
            peer.name.to_string(),
            peer.state.as_str().to_owned(),
            until,
            peer.address_v4.to_string(),
            moment(peer.created_at),
            peer.id.clone(),
        ]
        .map(|text| shown(&text))
    });
    aligned(["NAME", "STATE", "UNTIL", "ADDRESS", "ADDED", "ID"].map(str::to_owned), lines)
}

impl Rename {
    async fn run(self) -> Result<(), Failure> {
        let name: PeerName = self.name.parse()?;
        let rename = async |access: &Access| {
            let peers = access.peers().await?;
            let peer = one(&peers, &self.device)?;
            access.rename_peer(peer, &name).await?;
            Ok(peer.name.clone())
        };
        let old = self.at.ask(rename).await?;
        print(&format!("{old} is called {name} now.\n"))
    }
}

impl Remove {
    async fn run(self) -> Result<(), Failure> {
        let remove = async |access: &Access| {
            let peers = access.peers().await?;
            let peer = one(&peers, &self.device)?;
            access.remove_peer(peer).await?;
            Ok(peer.name.clone())
        };
        let name = self.at.ask(remove).await?;
        print(&format!("Removed {name}.\n"))
    }
}

/// The one peer that is called so, or whose id begins so.
fn one<'a>(peers: &'a [ListedPeer], device: &str) -> Result<&'a ListedPeer, Failure> {
    let named: Vec<_> = peers.iter().filter(|peer| peer.name.as_str() == device).collect();
    let found = if named.is_empty() {
        peers.iter().filter(|peer| !device.is_empty() && peer.id.starts_with(device)).collect()
    } else {
        named
    };
    match found.as_slice() {
        [peer] => Ok(peer),
        [] => Err(Failure::NoSuchPeer { device: device.to_owned() }),
        _ => Err(Failure::SeveralPeers { device: device.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use pomerium_shared::wireguard::PeerState;

    use super::*;

    fn peer(id: &str, name: &str) -> ListedPeer {
        ListedPeer {
            id: id.to_owned(),
            name: name.parse().unwrap(),
            public_key: PrivateKey::from_random([7; 32]).public_key(),
            address_v4: "100.96.0.7".parse().unwrap(),
            address_v6: "fd00::7".parse().unwrap(),
            created_at: 1_700_000_000,
            state: PeerState::Active,
            active_until: Some(1_700_003_600),
        }
    }

    #[test]
    fn a_device_is_named_by_its_name_or_by_the_beginning_of_its_id() {
        let peers = [peer("abc1", "phone"), peer("abd2", "router"), peer("phone", "router")];
        assert_eq!(one(&peers, "phone").unwrap().id, "abc1", "the name goes first");
        assert_eq!(one(&peers, "abd").unwrap().id, "abd2");
        for (device, is_several) in [("ab", true), ("router", true), ("none", false), ("", false)] {
            let failure = one(&peers, device).unwrap_err();
            assert_eq!(matches!(failure, Failure::SeveralPeers { .. }), is_several, "{device}");
        }
    }

    #[test]
    fn the_list_says_whether_a_device_may_come_in_and_until_when() {
        let text = table(&[peer("abc1", "phone")]);
        let line = text.lines().nth(1).unwrap();
        for part in ["phone", "active", "2023-11-14T23:13:20Z", "100.96.0.7", "2023-11-14T22:13:20Z", "abc1"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn a_picture_is_black_on_white_in_any_terminal() {
        let drawn = picture("[Interface]\nPrivateKey = x\n");
        assert!(drawn.lines().count() > 10);
        assert!(
            drawn
                .lines()
                .all(|line| line.starts_with("\u{1b}[38;5;16;48;5;231m") && line.ends_with("\u{1b}[0m"))
        );
        assert_eq!(picture(&"x".repeat(4_000)), "", "too long for one");
    }
}
