//! Which host a request is for, and whether everything that names one agrees.

use std::net::Ipv6Addr;

use http::{HeaderMap, Uri, header};

/// The host (lower case, without port and brackets' case changed) and port that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

/// Why a request's host cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No host, several, or one that is malformed: 400.
    #[error("the request names no host, or a malformed one")]
    Missing,
    /// `Host` and `:authority` (or the absolute URL) differ: 400.
    #[error("the request names two different hosts")]
    Contradiction,
    /// The host is not the one that TLS was opened for: 421, so that the browser opens a connection of its own.
    #[error("the request names another host than the TLS connection")]
    Misdirected,
}

impl Authority {
    /// A host by itself, as the configuration has it: lower case.
    pub(crate) fn of_host(host: &str) -> Self {
        Self { host: host.to_owned(), port: None }
    }

    /// Reads the host of a request (RFC 9110, 7.2; RFC 9113, 8.3.1) and holds it against the TLS server name, if
    /// the client sent one.
    pub(crate) fn of(
        uri: &Uri,
        headers: &HeaderMap,
        server_name: Option<&str>,
    ) -> Result<Self, AuthorityError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let header = match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Err(AuthorityError::Contradiction),
            (Some(value), None) => Some(Self::parse(value.to_str().map_err(|_| AuthorityError::Missing)?)?),
            (None, None) => None,
        };
        let target = uri.authority().map(|authority| Self::parse(authority.as_str())).transpose()?;
        let authority = match (target, header) {
            (Some(a), Some(b)) if a != b => return Err(AuthorityError::Contradiction),
            (Some(a), _) | (None, Some(a)) => a,
            (None, None) => return Err(AuthorityError::Missing),
        };
        match server_name {
            Some(name) if !name.eq_ignore_ascii_case(&authority.host) => Err(AuthorityError::Misdirected),
            _ => Ok(authority),
        }
    }

    /// Parses `host[:port]`; user information is refused.
    ///
    /// # Errors
    /// It is no host, or the port is none.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        let parsed: http::uri::Authority = text.parse().map_err(|_| AuthorityError::Missing)?;
        if text.contains('@') || !is_host(parsed.host()) {
            return Err(AuthorityError::Missing);
        }
        let after_host = &text[parsed.host().len()..];
        let port = match after_host.strip_prefix(':') {
            Some(_) => Some(parsed.port_u16().ok_or(AuthorityError::Missing)?),
            None => None,
        };
        Ok(Self { host: parsed.host().to_ascii_lowercase(), port })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// `host` or `host:port`, without the port that HTTPS implies.
    pub(crate) fn to_host_port(&self) -> String {
        match self.port {
            Some(port) if port != 443 => format!("{}:{port}", self.host),
            _ => self.host.clone(),
        }
    }
}

/// A DNS name (with underscores, which some networks have) or an address; not all that RFC 3986 lets pass as `reg-name`.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, hosts: &[&str], server_name: Option<&str>) -> Result<String, AuthorityError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        Authority::of(&uri.parse().unwrap(), &headers, server_name).map(|a| a.to_host_port())
    }

    #[test]
    fn hosts_that_disagree_are_refused() {
        use AuthorityError::{Contradiction, Misdirected, Missing};
        assert_eq!(of("/", &["App.example:443"], None).as_deref(), Ok("app.example"));
        assert_eq!(of("/", &[], None), Err(Missing));
        assert_eq!(of("/", &["a", "a"], None), Err(Contradiction));
        assert_eq!(of("https://a/", &["b"], None), Err(Contradiction));
        assert_eq!(of("https://a:1/", &["a:2"], None), Err(Contradiction));
        assert_eq!(of("/", &["u@a"], None), Err(Missing));
        assert_eq!(of("/", &["a:x"], None), Err(Missing));
        for odd in ["$[", "[", "[x]", "a;b", "a'b", "%61", ":443", "$[::1]:443"] {
            assert_eq!(of("/", &[odd], None), Err(Missing), "{odd}");
        }
        assert_eq!(of("/", &["[::1]:8443"], None).as_deref(), Ok("[::1]:8443"));
        assert_eq!(of("/", &["a"], Some("b")), Err(Misdirected));
        assert_eq!(of("/", &["A:8443"], Some("a")).as_deref(), Ok("a:8443"));
    }
}
