//! The PROXY protocol towards an app (HAProxy's `proxy-protocol.txt`): whose connection it is that the gateway opens.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ppp::{
    v1,
    v2::{Builder, Command, Protocol, Version},
};

use crate::config::ProxyProtocol;

/// What a connection to `app` begins with, on behalf of `client`. Addresses of two families are both written as IPv6.
///
/// # Errors
/// None that these addresses could cause; what the library says.
pub(super) fn header(version: ProxyProtocol, client: SocketAddr, app: SocketAddr) -> io::Result<Vec<u8>> {
    let (client, app) = of_one_family(client, app);
    match version {
        ProxyProtocol::V1 => Ok(v1::Addresses::from((client, app)).to_string().into_bytes()),
        ProxyProtocol::V2 => {
            Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, (client, app)).build()
        }
    }
}

fn of_one_family(client: SocketAddr, app: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let (client, app) = (plain(client), plain(app));
    if client.is_ipv4() == app.is_ipv4() { (client, app) } else { (wide(client), wide(app)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: ProxyProtocol, client: &str, app: &str) -> Vec<u8> {
        header(version, client.parse().unwrap(), app.parse().unwrap()).unwrap()
    }

    #[test]
    fn version_1_is_a_line() {
        for (client, app, expected) in [
            ("203.0.113.7:4711", "10.0.0.1:22", "PROXY TCP4 203.0.113.7 10.0.0.1 4711 22\r\n"),
            ("[::ffff:203.0.113.7]:4711", "10.0.0.1:22", "PROXY TCP4 203.0.113.7 10.0.0.1 4711 22\r\n"),
            ("[2001:db8::1]:4711", "[2001:db8::2]:22", "PROXY TCP6 2001:db8::1 2001:db8::2 4711 22\r\n"),
            ("[2001:db8::1]:4711", "10.0.0.1:22", "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 4711 22\r\n"),
        ] {
            assert_eq!(String::from_utf8(written(ProxyProtocol::V1, client, app)).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend([203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 22]);
        assert_eq!(written(ProxyProtocol::V2, "203.0.113.7:4711", "10.0.0.1:22"), expected);
        let wide = written(ProxyProtocol::V2, "[2001:db8::1]:4711", "10.0.0.1:22");
        assert_eq!((wide[13], wide.len()), (0x21, 16 + 36));
    }
}
