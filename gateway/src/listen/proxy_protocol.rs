//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): who is at the other end of a connection that a balancer
//! passes on.
//!
//! Where it is switched on, every connection must begin with it: whoever reaches the port past the balancer could name any
//! address, and one that says nothing would count as the balancer.

use std::{io, net::SocketAddr};

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with, as far as it takes to tell.
const SIGNATURE_V2: &[u8; 8] = b"\r\n\r\n\0\r\nQ";
/// Octets of version 2 before its addresses.
const FIXED_LEN_V2: usize = 16;
/// Octets of addresses and extensions at most; balancers send a few dozen.
const VARIABLE_LEN_MAX: usize = 2048;
/// Octets of version 1 with its line end.
const LEN_MAX_V1: usize = 107;

/// Takes the header off a connection, and not an octet more: the client's address, or `None` where the balancer speaks for itself
/// (a health check).
///
/// # Errors
/// `InvalidData` for what is no such header; what the connection says.
pub(super) async fn client_of(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE_V2.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE_V2 {
        read_more(stream, &mut header, FIXED_LEN_V2 - SIGNATURE_V2.len()).await?;
        let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if len > VARIABLE_LEN_MAX {
            return Err(invalid("the PROXY header is too long"));
        }
        read_more(stream, &mut header, len).await?;
    } else if header.starts_with(b"PROXY ") {
        // Nothing but the line end tells its length.
        while !header.ends_with(b"\r\n") {
            if header.len() == LEN_MAX_V1 {
                return Err(invalid("the PROXY line does not end"));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(invalid("the connection does not begin with the PROXY protocol"));
    }
    parse(&header)
}

async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
    len: usize,
) -> io::Result<()> {
    let known = header.len();
    header.resize(known + len, 0);
    stream.read_exact(&mut header[known..]).await.map(drop)
}

fn parse(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ends) => Some((ends.source_address, ends.source_port).into()),
            v1::Addresses::Tcp6(ends) => Some((ends.source_address, ends.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ends) => Some((ends.source_address, ends.source_port).into()),
            v2::Addresses::IPv6(ends) => Some((ends.source_address, ends.source_port).into()),
            v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(invalid("the PROXY header is malformed")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is told, and what is left for TLS.
    fn read(sent: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut stream = sent;
            let client = client_of(&mut stream).await;
            (client, stream.to_vec())
        })
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
        header.extend(addresses);
        header
    }

    #[test]
    fn both_versions_name_the_client_and_leave_the_rest() {
        let v4: Option<SocketAddr> = Some("203.0.113.7:4711".parse().unwrap());
        let v6: Option<SocketAddr> = Some("[2001:db8::1]:4711".parse().unwrap());
        let mut six = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
        six.extend([0; 16]);
        six.extend([0x12, 0x67, 1, 187]);
        // With an extension behind the addresses, which is passed over.
        let four = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187, 0x04, 0, 1, 0];
        for (header, expected) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec(), v4),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n".to_vec(), v6),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &four), v4),
            (v2(1, 0x21, &six), v6),
            (v2(0, 0x00, &[]), None),
            (v2(0, 0x11, &four), None),
            (v2(1, 0x00, &[]), None),
        ] {
            let (client, rest) = read(&[&header[..], b"\x16\x03\x01"].concat());
            assert_eq!(client.unwrap(), expected, "{header:?}");
            assert_eq!(rest, b"\x16\x03\x01", "{header:?}");
        }
    }

    #[test]
    fn what_is_no_such_header_is_refused() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        for sent in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
            b"PROXY TCP4 203.0.113.7\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY ",
            b"",
            &endless,
            &v2(1, 0x11, &[0; 4]),
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x11, &[0; 3000]),
        ] {
            assert!(read(sent).0.is_err(), "{sent:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(start in 0_usize..3, rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let sent = [[&b""[..], b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"][start], &rest].concat();
            let (_, left) = read(&sent);
            prop_assert!(sent.ends_with(&left));
        }
    }
}
