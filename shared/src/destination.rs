//! What a person wants to reach: `host:port`, and the gateway that leads there.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// Octets of a host name at most (RFC 1035, 2.3.4).
const HOST_LEN_MAX: usize = 253;

/// A `host:port` behind the gateway: the `:authority` of a `CONNECT` (RFC 9110, 9.3.6).
///
/// The host is lower case; an IPv6 address stands without its brackets.
///
/// ```
/// use pomerium_shared::destination::Destination;
/// let ssh: Destination = "SSH.corp.example:22".parse().unwrap();
/// assert_eq!((ssh.host(), ssh.port()), ("ssh.corp.example", 22));
/// assert_eq!("[2001:DB8::1]:5432".parse::<Destination>().unwrap().to_string(), "[2001:db8::1]:5432");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    host: String,
    port: u16,
}

/// Why a text is no [`Destination`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// No port behind the last colon.
    #[error("the port is missing: write host:port")]
    NoPort,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    BadPort,
    /// The host is empty, too long, or has characters that no host has.
    #[error("the host must be a name, an IPv4 address or an IPv6 address in brackets")]
    BadHost,
}

impl Destination {
    /// A destination of a host (without brackets) and a port that is not 0.
    ///
    /// # Errors
    /// [`DestinationError::BadHost`] and [`DestinationError::BadPort`], as for parsing.
    pub fn new(host: &str, port: u16) -> Result<Self, DestinationError> {
        if port == 0 {
            return Err(DestinationError::BadPort);
        }
        if let Ok(address) = host.parse::<Ipv6Addr>() {
            return Ok(Self { host: address.to_string(), port });
        }
        let is_name = !host.is_empty()
            && host.len() <= HOST_LEN_MAX
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if !is_name {
            return Err(DestinationError::BadHost);
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// The host name or address, lower case, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(DestinationError::NoPort)?;
        // `u16::from_str` takes a leading `+`, which no authority has.
        if !port.bytes().all(|b| b.is_ascii_digit()) || port.is_empty() {
            return Err(DestinationError::BadPort);
        }
        let port = port.parse().map_err(|_| DestinationError::BadPort)?;
        match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => {
                let address: Ipv6Addr = inner.parse().map_err(|_| DestinationError::BadHost)?;
                Self::new(&address.to_string(), port)
            }
            None if host.contains(':') => Err(DestinationError::BadHost),
            None => Self::new(host, port),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_destination_is_refused() {
        use DestinationError::{BadHost, BadPort, NoPort};
        for (text, error) in [
            ("", NoPort),
            ("ssh.corp.example", NoPort),
            (":22", BadHost),
            ("ssh:", BadPort),
            ("ssh:0", BadPort),
            ("ssh:+22", BadPort),
            ("ssh:65536", BadPort),
            ("a b:22", BadHost),
            ("user@ssh:22", BadHost),
            ("ssh/../x:22", BadHost),
            ("2001:db8::1:22", BadHost),
            ("[ssh]:22", BadHost),
            ("[::1:22", BadHost),
        ] {
            assert_eq!(text.parse::<Destination>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_comes_back_the_same(text in ".{0,80}") {
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert_eq!(destination.to_string().parse::<Destination>(), Ok(destination));
            }
        }

        #[test]
        fn names_and_ports_survive(host in "[a-z0-9]([a-z0-9-]{0,20})(\\.[a-z]{2,8}){0,3}", port in 1_u16..) {
            let text = format!("{host}:{port}");
            prop_assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
    }
}
