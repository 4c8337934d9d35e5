//! Which hosts need a certificate.

use std::{collections::BTreeSet, net::IpAddr};

use rustls::{client::verify_server_name, server::ParsedCertificate};
use rustls_pki_types::ServerName;

use crate::config::{HostPattern, RouteFrom, Settings};

/// Every host that a client may name in its handshake and that no configured certificate is for: the sign-in host, those of
/// web routes without a wildcard, and of streams. Names that no authority knows are left out: addresses, and names without a dot.
pub(crate) fn of(settings: &Settings) -> BTreeSet<String> {
    let of_routes = settings.routes.iter().filter_map(|route| match &route.from {
        RouteFrom::Http { host: HostPattern::Exact(host), .. } => Some(host.clone()),
        RouteFrom::Http { host: HostPattern::Wildcard(_), .. } => None,
        RouteFrom::Tcp { .. } | RouteFrom::Udp { .. } => gateway_of(&route.from_url),
    });
    // Of several processes, each gets those of the hosts that it serves, and can prove.
    let services = settings.services;
    let sign_in = settings.authenticate_url.host_str().map(str::to_owned);
    let of_routes = of_routes.filter(|_| services.proxies());
    of_routes
        .chain(sign_in.filter(|_| services.signs_in()))
        .filter(|host| is_public_name(host) && !is_covered(settings, host))
        .collect()
}

/// The host that a client dials for `tcp+https://host:port` or `tcp+https://gateway:port/host:port`.
fn gateway_of(from_url: &str) -> Option<String> {
    let authority = from_url.split_once("://")?.1.split('/').next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    Some(host.to_ascii_lowercase())
}

fn is_public_name(host: &str) -> bool {
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    is_name && host.contains('.') && host.parse::<IpAddr>().is_err()
}

fn is_covered(settings: &Settings, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host.to_owned()) else { return false };
    settings.certificates.iter().any(|certificate| {
        let leaf = certificate.chain.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        leaf.is_some_and(|leaf| verify_server_name(&leaf, &name).is_ok())
    })
}
