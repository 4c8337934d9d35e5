//! Where a browser may be sent: our own hosts, and for programs the hosts of the whitelist. Anything else is refused.

use std::net::IpAddr;

use url::{Host, Url};

use super::Authenticate;

impl Authenticate {
    /// Whether a browser may be sent here with a session: `https`, a host of ours, the gateway's public port.
    ///
    /// The port counts, since another port of the same name may belong to somebody else.
    pub(super) fn is_our_url(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        url.scheme() == "https"
            && is_plain(url)
            && (port == self.config.authenticate_url.port_or_known_default() || port == Some(443))
            && url.host_str().is_some_and(|host| (self.config.is_our_host)(host))
    }

    /// Whether a program may receive a handle here: `http` to loopback on any port, else `https` to a whitelisted host.
    pub(super) fn is_programmatic_target(&self, url: &Url) -> bool {
        if !is_plain(url) {
            return false;
        }
        let domains = &self.config.programmatic_redirect_domains;
        if is_loopback(url) {
            return matches!(url.scheme(), "http" | "https")
                && domains.iter().any(|domain| domain == "localhost");
        }
        let Some(host) = url.host_str() else { return false };
        url.scheme() == "https"
            && domains.iter().any(|domain| domain != "localhost" && domain.eq_ignore_ascii_case(host))
    }
}

/// Without a name or password in it, which exist to deceive the reader.
fn is_plain(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// Whether a URL leads to this computer.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}
