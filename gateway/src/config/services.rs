//! Which parts run, and the doors for other programs of the operator: forward auth and gRPC.

use std::net::{Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::{ForwardAuthDoor, GrpcDoor, GrpcTls, Services, Storage, section::Section};

/// `services`: `all`, its parts in any order, one of them alone, or all but `authorize`.
pub(super) fn services(top: &Section<'_>) -> Services {
    const NAME: &str = "services";
    const ALL: [&str; 4] = ["authenticate", "authorize", "databroker", "proxy"];
    let named: Vec<&str> = top
        .list(NAME)
        .unwrap_or_default()
        .iter()
        // An old name of the same.
        .map(|(name, _)| if *name == "cache" { "databroker" } else { *name })
        .collect();
    // The storage is with who signs people in.
    let is = |part: &str, names: &[&str]| {
        let besides: &[&str] = if part == "proxy" {
            &["proxy", "authenticate", "databroker"]
        } else {
            &["authenticate", "databroker"]
        };
        names.contains(&part) && names.iter().all(|name| besides.contains(name))
    };
    match named.as_slice() {
        [] | ["all"] => Services::All,
        ["authorize"] => Services::Authorize,
        names if ALL.iter().all(|part| names.contains(part)) && names.len() == ALL.len() => Services::All,
        ["proxy"] => Services::Proxy,
        names if is("authenticate", names) => Services::Authenticate,
        names if is("proxy", names) && names.contains(&"authenticate") => Services::AllButAuthorize,
        _ => {
            top.error(NAME, "expected all, authenticate, authorize, proxy, or proxy,authenticate");
            Services::All
        }
    }
}

/// Decisions need the sessions that another process makes.
pub(super) fn check_storage(top: &Section<'_>, services: Services, storage: Option<&Storage>) {
    let message = match services {
        Services::All => return,
        Services::Authorize => {
            "services: authorize reads the sessions of another process: use file, with the same folder, or postgres"
        }
        Services::AllButAuthorize => {
            "the authorize service reads the sessions of this process: use file, with the same folder, or postgres"
        }
        Services::Authenticate => {
            "the other services read the sessions of this process: use file, with the same folder, or postgres"
        }
        Services::Proxy => {
            "services: proxy reads the sessions of another process: use file, with the same folder, or postgres"
        }
    };
    if storage == Some(&Storage::Memory) {
        top.error("databroker_storage_type", message);
    }
}

/// `grpc_address`, `grpc_insecure` and `grpc_client_ca`.
pub(super) fn grpc(top: &Section<'_>, services: Services, address: Option<SocketAddr>) -> Option<GrpcDoor> {
    const ADDRESS: &str = "grpc_address";
    const INSECURE: &str = "grpc_insecure";
    const ROOTS: &str = "grpc_client_ca";
    let is_apart = services == Services::Authorize;
    let everywhere = || SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 443);
    let address = address.or_else(|| (is_apart && !top.has(ADDRESS)).then(everywhere));
    let roots = top.roots(ROOTS);
    let is_insecure = top.flag(INSECURE).unwrap_or_else(|| !is_apart && roots.is_none());
    let address = address?;
    let tls = match roots {
        Some(_) if is_insecure => {
            top.error(INSECURE, format!("must be false with {ROOTS}: certificates are shown over TLS alone"));
            return None;
        }
        Some(roots) => GrpcTls::Mutual(roots),
        None if is_insecure => GrpcTls::None,
        None => GrpcTls::Token,
    };
    let needs_token = !matches!(tls, GrpcTls::Mutual(_));
    if needs_token && !["shared_secret", "shared_secret_file"].iter().any(|name| top.has(name)) {
        let message = format!("callers prove themselves with shared_secret: set it, or {ROOTS}");
        top.error(ADDRESS, message);
    }
    if tls == GrpcTls::None && !address.ip().is_loopback() {
        top.warn(
            INSECURE,
            "carries credentials without TLS: keep it within a network of its own, or set it to false",
        );
    }
    Some(GrpcDoor { address, tls })
}

/// Each door has an address of its own.
pub(super) fn check_addresses(top: &Section<'_>, doors: &[(&str, Option<SocketAddr>)]) {
    for (index, (name, address)) in doors.iter().enumerate() {
        let earlier = doors[..index].iter().find(|(_, other)| address.is_some() && other == address);
        if let Some((other, _)) = earlier {
            top.error(name, format!("must differ from {other}"));
        }
    }
}

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
