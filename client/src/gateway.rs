//! Where the gateway is: scheme, host and port of any of its hosts, and nothing else of a URL.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use url::{Host, Url};

/// One gateway as the person wrote it: `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Gateway {
    tls: bool,
    /// Lower case; an IPv6 address without brackets.
    host: String,
    port: u16,
}

/// Why a text is no [`Gateway`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatewayError {
    /// Not a URL at all.
    #[error("not a URL: write https://host or https://host:port")]
    NoUrl,
    /// A scheme other than `https` and `http`.
    #[error("the scheme must be https (or http for a gateway without TLS)")]
    BadScheme,
    /// User name or password in the URL: secrets do not belong there.
    #[error("a user name or password in the URL is not supported: sign in with the browser")]
    Credentials,
}

impl Gateway {
    /// A gateway of its parts; the host is taken as it is, without brackets.
    pub(crate) fn new(tls: bool, host: &str, port: u16) -> Self {
        Self { tls, host: host.to_ascii_lowercase(), port }
    }

    /// The host name or address, lower case, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The TCP and UDP port number.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS is spoken; without it only HTTP/1.1 over TCP.
    pub(crate) const fn tls(&self) -> bool {
        self.tls
    }

    /// The key of this gateway in the token cache: `host:port|true` (TLS) or `host:port|false`.
    #[must_use]
    pub(crate) fn cache_key(&self) -> String {
        format!("{}:{}|{}", self.bracketed(), self.port, self.tls)
    }

    /// `host` or `host:port`, the port only when it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.bracketed() } else { format!("{}:{}", self.bracketed(), self.port) }
    }

    fn bracketed(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl FromStr for Gateway {
    type Err = GatewayError;

    /// Takes `host`, `host:port` and `http(s)://host[:port][/…]`; path and query are left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&with_scheme).map_err(|_| GatewayError::NoUrl)?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(GatewayError::BadScheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(GatewayError::Credentials);
        }
        let host = match url.host().ok_or(GatewayError::NoUrl)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(GatewayError::NoUrl)?;
        Ok(Self { tls, host, port })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_of_a_gateway_are_understood() {
        for (text, shown, key) in [
            ("HTTPS://A.example/", "https://a.example", "a.example:443|true"),
            ("a.example:8443", "https://a.example:8443", "a.example:8443|true"),
            ("https://a.example:443/x?y", "https://a.example", "a.example:443|true"),
            ("http://a.example", "http://a.example", "a.example:80|false"),
            ("https://[::1]:8443", "https://[::1]:8443", "[::1]:8443|true"),
            ("localhost", "https://localhost", "localhost:443|true"),
        ] {
            let gateway: Gateway = text.parse().unwrap();
            assert_eq!((gateway.to_string().as_str(), gateway.cache_key().as_str()), (shown, key), "{text}");
        }
    }

    #[test]
    fn what_is_no_gateway_is_refused() {
        for (text, error) in [
            ("", GatewayError::NoUrl),
            ("ftp://a.example", GatewayError::BadScheme),
            ("https://me:secret@a.example", GatewayError::Credentials),
            ("https://a.example:0", GatewayError::NoUrl),
            ("https://a.example:99999", GatewayError::NoUrl),
        ] {
            assert_eq!(text.parse::<Gateway>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(text in ".{0,60}") {
            if let Ok(gateway) = text.parse::<Gateway>() {
                prop_assert_eq!(gateway.to_string().parse::<Gateway>(), Ok(gateway));
            }
        }
    }
}
