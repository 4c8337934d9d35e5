//! `wireguard_*`: WireGuard apps as clients.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use ipnet::IpNet;
use pomerium_shared::{destination::Destination, wireguard::PrivateKey};
use url::Url;

use super::{Codec, Services, Storage, section::Section};
use crate::{secret::Secret, wireguard_peer::Networks};

const ADDRESS: &str = "wireguard_address";

/// Every key but the first.
const OTHERS: [&str; 7] = [
    "wireguard_addresses",
    "wireguard_dns",
    "wireguard_endpoint",
    "wireguard_peers_per_user",
    "wireguard_private_key",
    "wireguard_private_key_file",
    "wireguard_session_grace",
];

/// A person's phone, laptop, tablet, and two to spare.
const PEERS_PER_USER_DEFAULT: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");
const PEERS_PER_USER_MAX: u32 = 1_000;

/// Longer than this nobody has signed in.
const SESSION_GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// `wireguard_*`.
#[derive(Debug, Clone)]
pub struct WireGuard {
    /// `wireguard_address`: the UDP socket.
    pub address: SocketAddr,
    /// `wireguard_addresses`: the networks inside the tunnel.
    pub networks: Networks,
    /// `wireguard_endpoint`: where clients are told to send.
    pub endpoint: Destination,
    /// `wireguard_dns`: whom clients ask about names that are no routes'.
    pub other_dns: Vec<IpAddr>,
    /// `wireguard_peers_per_user`.
    pub peers_per_user: NonZeroU32,
    /// `wireguard_private_key`: names the gateway in handshakes. `None`: one kept in the storage.
    pub private_key: Option<Secret<PrivateKey>>,
    /// `wireguard_session_grace`: how long a peer outlives the session that it stands on, if that was not ended before its time.
    pub session_grace: Duration,
}

/// What else is configured and matters here.
pub(super) struct Beside<'a> {
    pub(super) address: Option<SocketAddr>,
    pub(super) authenticate_url: Option<&'a Url>,
    pub(super) codec: Codec,
    pub(super) services: Services,
    pub(super) storage: Option<&'a Storage>,
}

/// Reads `wireguard_*`; `None` unless `address`, the value of `wireguard_address`, is given.
pub(super) fn wireguard(
    top: &Section<'_>,
    address: Option<SocketAddr>,
    beside: &Beside<'_>,
) -> Option<WireGuard> {
    // One file may be that of several processes; this one carries nothing and enrols nobody.
    if beside.services == Services::Authorize {
        return None;
    }
    if !top.has(ADDRESS) {
        for name in OTHERS.into_iter().filter(|name| top.has(name)) {
            top.warn(name, format!("has no effect without {ADDRESS}"));
        }
        return None;
    }
    check_door(top, address, beside);
    let networks = networks(top);
    let other_dns = other_dns(top);
    let peers_per_user = peers_per_user(top);
    let private_key = top.secret32("wireguard_private_key").map(private_key);
    let session_grace = session_grace(top);
    let endpoint = endpoint(top, address, beside.authenticate_url);
    Some(WireGuard {
        address: address?,
        networks: networks?,
        endpoint: endpoint?,
        other_dns,
        peers_per_user,
        private_key,
        session_grace,
    })
}

fn check_door(top: &Section<'_>, address: Option<SocketAddr>, beside: &Beside<'_>) {
    if address.is_some() && address == beside.address && beside.codec == Codec::All {
        top.error(ADDRESS, "must differ from address: HTTP/3 has that UDP port already");
    } else if address.is_some_and(|address| address.port() == 0) {
        top.error(ADDRESS, "must have a port that is not 0: clients are told where to send");
    }
    if beside.storage == Some(&Storage::Memory) {
        top.warn(
            ADDRESS,
            "peers are enrolled anew after each start: databroker_storage_type: memory forgets them",
        );
    }
}

fn private_key(secret: Secret<[u8; 32]>) -> Secret<PrivateKey> {
    Secret::new(PrivateKey::from_random(*secret.expose()))
}

fn endpoint(
    top: &Section<'_>,
    address: Option<SocketAddr>,
    authenticate_url: Option<&Url>,
) -> Option<Destination> {
    const NAME: &str = "wireguard_endpoint";
    let Some(text) = top.filled(NAME) else {
        let host = authenticate_url?.host_str()?;
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        return Destination::new(host, address?.port()).ok();
    };
    text.parse()
        .inspect_err(|error| {
            top.error(NAME, format!("expected host:port, like vpn.corp.example:51820: {error}"))
        })
        .ok()
}

/// One IPv4 and one IPv6 network.
fn networks(top: &Section<'_>) -> Option<Networks> {
    const NAME: &str = "wireguard_addresses";
    if !top.has(NAME) {
        return Some(Networks::default());
    }
    let texts = top.list(NAME)?;
    let parsed: Vec<Option<IpNet>> = texts.iter().map(|(text, _)| text.parse().ok()).collect();
    let (v4, v6) = match parsed.as_slice() {
        [Some(IpNet::V4(v4)), Some(IpNet::V6(v6))] | [Some(IpNet::V6(v6)), Some(IpNet::V4(v4))] => (*v4, *v6),
        _ => {
            top.error(NAME, "expected one IPv4 and one IPv6 network, like [100.64.0.0/10, fd00::/64]");
            return None;
        }
    };
    Networks::new(v4, v6).inspect_err(|error| top.error(NAME, error.to_string())).ok()
}

/// Addresses of resolvers.
fn other_dns(top: &Section<'_>) -> Vec<IpAddr> {
    const NAME: &str = "wireguard_dns";
    if !top.has(NAME) {
        let message = "clients resolve the names of routes alone while their tunnel is up: name resolvers for all others in \
                       wireguard_dns, like [9.9.9.9]";
        top.warn(ADDRESS, message);
        return Vec::new();
    }
    let texts = top.list(NAME).unwrap_or_default();
    let address = |(text, at): &(&str, _)| {
        let address = text.parse().ok();
        if address.is_none() {
            top.error_at(*at, NAME, "expected addresses of resolvers, like [9.9.9.9, \"2620:fe::fe\"]");
        }
        address
    };
    texts.iter().filter_map(address).collect()
}

fn peers_per_user(top: &Section<'_>) -> NonZeroU32 {
    const NAME: &str = "wireguard_peers_per_user";
    let Some(given) = top.whole(NAME) else { return PEERS_PER_USER_DEFAULT };
    let count =
        u32::try_from(given).ok().filter(|count| *count <= PEERS_PER_USER_MAX).and_then(NonZeroU32::new);
    count.unwrap_or_else(|| {
        top.error(NAME, format!("expected a number from 1 to {PEERS_PER_USER_MAX}"));
        PEERS_PER_USER_DEFAULT
    })
}

fn session_grace(top: &Section<'_>) -> Duration {
    const NAME: &str = "wireguard_session_grace";
    let grace = top.duration(NAME).flatten().unwrap_or(Duration::ZERO);
    if grace > SESSION_GRACE_MAX {
        top.error(NAME, "must not be longer than 720h: let the session last longer instead (cookie_expire)");
    }
    grace
}
