//! What `tcp` and `udp` are asked to reach: the destination, and the gateway that leads there.

use std::str::FromStr;

use pomerium_shared::destination::{Destination, DestinationError};

use crate::gateway::{Gateway, GatewayError};

/// A destination and the gateway in front of it, in any of the forms that a route's `from` has.
///
/// | text | gateway | destination |
/// | --- | --- | --- |
/// | `host:port` | `https://host` | `host:port` |
/// | `tcp+https://host:port` | `https://host` | `host:port` |
/// | `tcp+https://proxy:8443/dest:port` | `https://proxy:8443` | `dest:port` |
/// | `tcp+http://…` | the same without TLS, port 80 | the same |
/// | `udp+https://…` | as for TCP | as for TCP |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The gateway to dial.
    pub(crate) gateway: Gateway,
    /// The `:authority` of the `CONNECT`.
    pub(crate) destination: Destination,
}

/// Why a text is no [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// The part that is reached is wrong.
    #[error("bad destination: {0}")]
    Destination(#[from] DestinationError),
    /// The part that leads there is wrong.
    #[error("bad gateway: {0}")]
    Gateway(#[from] GatewayError),
    /// A scheme that this command does not carry.
    #[error("the scheme must be tcp+https, udp+https or tcp+http")]
    BadScheme,
}

impl Target {
    /// The same destination behind another gateway, as `--pomerium-url` asks.
    pub(crate) fn through(self, gateway: Option<Gateway>) -> Self {
        Self { gateway: gateway.unwrap_or(self.gateway), destination: self.destination }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("tcp+https" | "udp+https" | "https", rest)) => (true, rest),
            Some(("tcp+http" | "http", rest)) => (false, rest),
            Some(_) => return Err(TargetError::BadScheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let segment = path.split(['/', '?', '#']).next().unwrap_or("");
        if segment.is_empty() {
            let destination: Destination = authority.parse()?;
            let port = if tls { 443 } else { 80 };
            return Ok(Self { gateway: Gateway::new(tls, destination.host(), port), destination });
        }
        let scheme = if tls { "https" } else { "http" };
        Ok(Self { gateway: format!("{scheme}://{authority}").parse()?, destination: segment.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_names_its_gateway_and_its_destination() {
        for (text, gateway, destination) in [
            ("ssh.corp.example:22", "https://ssh.corp.example", "ssh.corp.example:22"),
            ("tcp+https://ssh.corp.example:22", "https://ssh.corp.example", "ssh.corp.example:22"),
            ("tcp+https://ssh.corp.example:22/", "https://ssh.corp.example", "ssh.corp.example:22"),
            ("tcp+https://proxy.example:8443/db:5432", "https://proxy.example:8443", "db:5432"),
            ("tcp+https://proxy.example/db:5432/more", "https://proxy.example", "db:5432"),
            ("udp+https://dns.corp.example:53", "https://dns.corp.example", "dns.corp.example:53"),
            ("tcp+http://ssh.corp.example:22", "http://ssh.corp.example", "ssh.corp.example:22"),
            ("tcp+http://proxy.example/db:5432", "http://proxy.example", "db:5432"),
            ("[2001:db8::1]:22", "https://[2001:db8::1]", "[2001:db8::1]:22"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.gateway.to_string(), gateway, "{text}");
            assert_eq!(target.destination.to_string(), destination, "{text}");
        }
    }

    #[test]
    fn a_named_gateway_replaces_only_the_gateway() {
        let target: Target = "db:5432".parse().unwrap();
        let target = target.through(Some("https://gate.example:8443".parse().unwrap()));
        assert_eq!(target.gateway.to_string(), "https://gate.example:8443");
        assert_eq!(target.destination.to_string(), "db:5432");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["", "host", "ssh://host:22", "tcp+https://", "tcp+https://host", "https://p/x", "h:0"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _unneeded = text.parse::<Target>();
        }
    }
}
