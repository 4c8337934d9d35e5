//! Which endpoints an issuer may name.

use std::net::IpAddr;

use url::Url;

use crate::https_client::{address, is_loopback};

/// Whether an issuer may name `endpoint` as its own. One out there names nothing on this machine or this very link, where
/// only we can reach: that is no endpoint, but a way in. One on this machine may do as it likes here.
pub(in crate::authenticate) fn is_endpoint_of(issuer: &Url, endpoint: &Url) -> bool {
    let host = endpoint.host_str().unwrap_or_default();
    if is_loopback(issuer.host_str().unwrap_or_default()) && is_loopback(host) {
        return matches!(endpoint.scheme(), "http" | "https");
    }
    endpoint.scheme() == "https" && !is_loopback(host) && !is_link_local(host)
}

fn is_link_local(host: &str) -> bool {
    address(host).is_some_and(|address| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_out_there_cannot_point_inside() {
        let outside = "https://idp.example.com".parse().unwrap();
        let inside = "http://127.0.0.1:9000".parse().unwrap();
        for (endpoint, of_outside, of_inside) in [
            ("https://keys.example.com/jwks", true, true),
            ("http://idp.example.com/jwks", false, false),
            ("http://127.0.0.1:9000/jwks", false, true),
            ("https://127.0.0.1/jwks", false, true),
            ("https://localhost/jwks", false, true),
            ("https://app.localhost/jwks", false, true),
            ("https://[::1]/jwks", false, true),
            ("https://[::ffff:127.0.0.1]/jwks", false, true),
            ("https://0.0.0.0/jwks", false, true),
            ("https://169.254.169.254/latest/meta-data", false, false),
            ("https://[fe80::1]/jwks", false, false),
            ("file:///etc/passwd", false, false),
        ] {
            let url = endpoint.parse().unwrap();
            assert_eq!(is_endpoint_of(&outside, &url), of_outside, "{endpoint}");
            assert_eq!(is_endpoint_of(&inside, &url), of_inside, "{endpoint}");
        }
    }
}
