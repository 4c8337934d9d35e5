//! Which parts run, and the doors for other programs of the operator: forward auth and gRPC.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::{ForwardAuthDoor, section::Section};

/// `forward_auth_address` and `forward_auth_trusted_peers`.
///
/// Whoever reaches that door says which host and which client a request is of. So it is closed unless asked for, and off
/// loopback the peers must be named.
pub(super) fn forward_auth(top: &Section<'_>, address: Option<SocketAddr>) -> Option<ForwardAuthDoor> {
    const ADDRESS: &str = "forward_auth_address";
    const PEERS: &str = "forward_auth_trusted_peers";
    let peers = trusted_peers(top, PEERS);
    let Some(address) = address else {
        if top.has(PEERS) && !top.has(ADDRESS) {
            top.error(PEERS, format!("has no effect without {ADDRESS}"));
        }
        return None;
    };
    let trusted_peers = match peers {
        Some(peers) => peers,
        None if address.ip().is_loopback() => loopback(),
        None => {
            let message = format!(
                "is not a loopback address: name the proxies that may ask in {PEERS}, like [10.0.0.5, 10.1.0.0/24]"
            );
            top.error(ADDRESS, message);
            return None;
        }
    };
    if !address.ip().is_loopback() {
        top.warn(ADDRESS, "carries credentials without TLS: keep it within a network of its own");
    }
    Some(ForwardAuthDoor { address, trusted_peers })
}

fn trusted_peers(top: &Section<'_>, name: &str) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for (text, at) in top.list(name)? {
        let network =
            text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        match network {
            Some(network) if network.prefix_len() == 0 => {
                top.error_at(at, name, "trusts every address: name the proxies that may ask");
            }
            Some(network) => networks.push(network),
            None => top.error_at(at, name, "expected addresses or networks, like 10.0.0.5 or 10.1.0.0/24"),
        }
    }
    Some(networks)
}

fn loopback() -> Vec<IpNet> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    [(Ipv4Addr::new(127, 0, 0, 0).into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)]
        .into_iter()
        .filter_map(|(address, length)| IpNet::new(address, length).ok())
        .collect()
}
