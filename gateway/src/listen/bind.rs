//! Sockets for an address of the configuration.
//!
//! A wildcard of IPv6 stands for every address of the machine, IPv4 included. Each family gets a socket of its own: an
//! IPv4 client then has an IPv4 address in policy and log, and QUIC answers from the address that it was asked at.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 1024;

/// The addresses to bind for one of the configuration.
pub(crate) fn addresses(configured: SocketAddr) -> Vec<SocketAddr> {
    match configured.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => {
            vec![configured, SocketAddr::from((Ipv4Addr::UNSPECIFIED, configured.port()))]
        }
        _ => vec![configured],
    }
}

/// TCP listeners for a configured address; at least one.
///
/// # Errors
/// What the system says. A machine without IPv6 is none, as long as IPv4 is meant as well.
pub(crate) fn tcp(configured: SocketAddr) -> io::Result<Vec<TcpListener>> {
    each(&addresses(configured), |address| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restart need not wait for connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    })
}

/// UDP sockets for a configured address; at least one.
///
/// # Errors
/// As [`tcp`].
pub(crate) fn udp(configured: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    each(&addresses(configured), pomerium_shared::quic::bind)
}

fn each<S>(addresses: &[SocketAddr], bind: impl Fn(SocketAddr) -> io::Result<S>) -> io::Result<Vec<S>> {
    let mut sockets = Vec::with_capacity(addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        match bind(*address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if is_family_missing(&error) && index + 1 < addresses.len() => {
                tracing::warn!(%address, %error, "this machine has no IPv6: listening on IPv4 alone");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Whether the machine does not have the address family at all.
fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// "Address family not supported by protocol" on Linux, for which the standard library has no kind.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_of_ipv6_is_both_families_and_nothing_else_is() {
        let shown = |text: &str| {
            addresses(text.parse().unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("[::]:443"), "[::]:443 0.0.0.0:443");
        assert_eq!(shown("0.0.0.0:443"), "0.0.0.0:443");
        assert_eq!(shown("127.0.0.1:8443"), "127.0.0.1:8443");
        assert_eq!(shown("[::1]:8443"), "[::1]:8443");
    }

    #[test]
    fn a_family_that_is_missing_leaves_the_other_but_never_none() {
        let both = addresses("[::]:443".parse().unwrap());
        let missing = || io::Error::from_raw_os_error(EAFNOSUPPORT);
        let only_v4 = |address: SocketAddr| if address.is_ipv6() { Err(missing()) } else { Ok(address) };
        assert_eq!(each(&both, only_v4).unwrap(), [both[1]]);
        assert!(each(&both, |_| Err::<(), _>(missing())).is_err());
        assert!(each(&both[..1], only_v4).is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let both = addresses("[::]:443".parse().unwrap());
        let taken = |address: SocketAddr| {
            if address.is_ipv6() { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
        };
        assert!(each(&both, taken).is_err());
    }
}
