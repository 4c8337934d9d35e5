//! The path of a CONNECT-UDP request: which destination it names (RFC 9298, 2), by the default template of its section 2.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use crate::destination::Destination;

/// What every such path begins with.
pub const PREFIX: &str = "/.well-known/masque/udp/";

/// The path that names a destination.
///
/// ```
/// use pomerium_shared::udp::path;
/// let to = "[2001:db8::1]:53".parse().unwrap();
/// assert_eq!(path::of(&to), "/.well-known/masque/udp/2001%3Adb8%3A%3A1/53/");
/// assert_eq!(path::parse(&path::of(&to)), Some(to));
/// ```
#[must_use]
pub fn of(to: &Destination) -> String {
    format!("{PREFIX}{}/{}/", to.host().replace(':', "%3A"), to.port())
}

/// The destination that a path names; `None` for anything else. The slash at its end must be there.
#[must_use]
pub fn parse(path: &str) -> Option<Destination> {
    let (host, port) = path.strip_prefix(PREFIX)?.strip_suffix('/')?.split_once('/')?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let host = percent_decode_str(host).decode_utf8().ok()?;
    // A zone is of the sender's machine, and names nothing here.
    if host.contains(':') && host.parse::<Ipv6Addr>().is_err() {
        return None;
    }
    Destination::new(&host, port.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_names_no_destination_is_refused() {
        for path in [
            "/.well-known/masque/udp/dns.corp.example/53",
            "/.well-known/masque/udp/dns.corp.example/53/x",
            "/.well-known/masque/udp/dns.corp.example/53//",
            "/.well-known/masque/udp/dns.corp.example//",
            "/.well-known/masque/udp//53/",
            "/.well-known/masque/udp/dns.corp.example/0/",
            "/.well-known/masque/udp/dns.corp.example/+53/",
            "/.well-known/masque/udp/dns.corp.example/65536/",
            "/.well-known/masque/udp/fe80::1%25eth0/53/",
            "/.well-known/masque/udp/[2001:db8::1]/53/",
            "/.well-known/masque/udp/a%2Fb/53/",
            "/.well-known/masque/udp/a%00b/53/",
            "/.well-known/masque/udp/%ff/53/",
            "/.well-known/masque/tcp/dns.corp.example/53/",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
        let plain = parse("/.well-known/masque/udp/2001:db8::1/53/").unwrap();
        assert_eq!(plain.to_string(), "[2001:db8::1]:53");
    }

    proptest! {
        #[test]
        fn any_path_is_refused_or_comes_back_the_same(path in "/.well-known/masque/udp/[a-z0-9%:.\\[\\]/-]{0,40}") {
            if let Some(to) = parse(&path) {
                prop_assert_eq!(parse(&of(&to)), Some(to));
            }
        }
    }
}
