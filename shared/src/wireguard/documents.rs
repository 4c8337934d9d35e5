//! What a client posts, what it is told, and the file that comes of it.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{PresharedKey, PrivateKey, PublicKey};
use crate::destination::Destination;

/// Characters of a peer's name at most.
pub const NAME_LEN_MAX: usize = 64;

/// Seconds between signs of life of a client that has nothing to say: address translators forget a silent flow after half a
/// minute, and what comes back to the client later would be lost.
const KEEPALIVE_SECONDS: u16 = 25;

/// What a person calls their peer: 1 to [`NAME_LEN_MAX`] characters, none of which steers a terminal or a line of text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerName(String);

/// Why a text is no [`PeerName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {NAME_LEN_MAX} characters, none of them invisible")]
pub struct PeerNameError;

impl PeerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim();
        let is_name =
            !name.is_empty() && name.chars().count() <= NAME_LEN_MAX && !name.chars().any(is_invisible);
        is_name.then(|| Self(name.to_owned())).ok_or(PeerNameError)
    }
}

/// Control characters, line separators, and those that turn the direction of what follows: a name must look like itself in a
/// list, a log and a terminal.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for PeerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a client posts to enrol a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPeer {
    /// What the person calls it.
    pub name: PeerName,
    /// The public half of the pair that the client has made.
    pub public_key: PublicKey,
}

/// What the gateway tells once, when a peer is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Names the peer.
    pub id: String,
    /// What the person calls it.
    pub name: PeerName,
    /// Its own addresses in the tunnel.
    pub address_v4: Ipv4Addr,
    /// The same.
    pub address_v6: Ipv6Addr,
    /// The secret of both; told now and never again.
    pub preshared_key: PresharedKey,
    /// Names the gateway in handshakes.
    pub gateway_public_key: PublicKey,
    /// Where the gateway listens.
    #[serde(with = "as_text")]
    pub endpoint: Destination,
    /// Who answers questions about names: first the gateway, in the tunnel, which knows those of routes and refuses all others;
    /// then whom the operator names for these.
    pub dns: Vec<IpAddr>,
    /// What lies behind the tunnel.
    #[serde(with = "networks_as_text")]
    pub allowed_ips: Vec<IpNet>,
}

/// One peer in a person's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedPeer {
    /// Names the peer.
    pub id: String,
    /// What the person calls it.
    pub name: PeerName,
    /// Names it in handshakes.
    pub public_key: PublicKey,
    /// Its own addresses in the tunnel.
    pub address_v4: Ipv4Addr,
    /// The same.
    pub address_v6: Ipv6Addr,
    /// When it was enrolled, in seconds since 1970.
    pub created_at: u64,
    /// Whether it may come in.
    pub state: PeerState,
    /// Until when, without another sign-in, in seconds since 1970; of an active peer.
    #[serde(default)]
    pub active_until: Option<u64>,
}

/// Whether a peer may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It may.
    Active,
    /// Not before its person signs in again.
    SignedOut,
    /// Never again: an administrator said so.
    Revoked,
    /// Never again: the gateway's networks have changed, and its addresses are not of them.
    Misplaced,
}

impl PeerState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::SignedOut => "signed out",
            Self::Revoked => "revoked",
            Self::Misplaced => "misplaced",
        }
    }
}

/// The file of a peer, as `wg-quick` and the apps read it. All of it was parsed: no value can be a line of its own.
#[must_use]
pub fn wg_quick(private_key: &PrivateKey, enrolment: &Enrolment) -> String {
    let Enrolment {
        name,
        address_v4,
        address_v6,
        preshared_key,
        gateway_public_key,
        endpoint,
        dns,
        allowed_ips,
        ..
    } = enrolment;
    let allowed: Vec<String> = allowed_ips.iter().map(ToString::to_string).collect();
    let dns: Vec<String> = dns.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "# {name}\n[Interface]\nPrivateKey = {}\nAddress = {address_v4}/32, {address_v6}/128\nDNS = {}\n\n\
         [Peer]\nPublicKey = {gateway_public_key}\nPresharedKey = {}\nEndpoint = {endpoint}\nAllowedIPs = {}\n\
         PersistentKeepalive = {KEEPALIVE_SECONDS}\n",
        STANDARD.encode(private_key.expose()),
        dns.join(", "),
        STANDARD.encode(preshared_key.expose()),
        allowed.join(", "),
    );
    text
}

/// A value by its text form.
mod as_text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Networks by their text form.
mod networks_as_text {
    use ipnet::IpNet;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(networks: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
    }
}
