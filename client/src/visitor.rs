//! Whose process is at the other end of a loopback connection: a local port has no permissions as a file has, and whoever
//! connects would have this person's access.
//!
//! Linux says it in `/proc/net/tcp`. What says nothing is a no.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpStream;

use crate::local_api::socket::own_uid;

/// Bytes of the kernel's table that are read at most: some 400,000 connections.
const TABLE_LEN_MAX: u64 = 64 * 1024 * 1024;

/// Whether the process that connected is this person's own.
pub(crate) fn is_own(stream: &TcpStream) -> io::Result<bool> {
    Ok(owner_of(stream)? == Some(own_uid()?))
}

/// Whether it is known to be another person's: neither this one's nor root's, who may do anything and on some systems carries
/// connections for others.
pub(crate) fn is_anothers(stream: &TcpStream) -> bool {
    match (owner_of(stream), own_uid()) {
        (Ok(owner), Ok(own)) => is_another(owner, own),
        _ => false,
    }
}

fn is_another(owner: Option<u32>, own: u32) -> bool {
    owner.is_some_and(|owner| owner != own && owner != 0)
}

/// The user of the process at the other end, if the kernel says.
fn owner_of(stream: &TcpStream) -> io::Result<Option<u32>> {
    let (theirs, ours) = (stream.peer_addr()?, stream.local_addr()?);
    // A program may reach an IPv4 address by an IPv6 socket: then the other table has it.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match read(table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        if let Some(uid) = owner(&text, theirs, ours) {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, TABLE_LEN_MAX), &mut text)?;
    Ok(text)
}

/// The user of the socket that is at `from` and connected to `to`, in a table of the form of `/proc/net/tcp`.
fn owner(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (address(words.next()?)?, address(words.next()?)?);
        let is_meant = local == plain(from) && remote == plain(to);
        // After the two addresses: state, queues, timer, retransmissions, user.
        if is_meant { words.nth(4)?.parse().ok() } else { None }
    })
}

fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// `0100007F:1F90`: words of 32 bits in the machine's own order, then the port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut octets = [0; 16];
            for (part, at) in octets.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                part.copy_from_slice(&word(at)?);
            }
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_of_this_process_is_its_own_persons() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at).await else { continue };
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            assert!(is_own(&accepted).unwrap() && !is_anothers(&accepted), "{at}");
        }
    }

    #[test]
    fn who_is_not_known_is_not_called_another() {
        for (owner, is_other) in [(Some(1000), false), (Some(0), false), (None, false), (Some(1001), true)] {
            assert_eq!(is_another(owner, 1000), is_other, "{owner:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_gone_is_nobodys() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (theirs, ours) = (accepted.peer_addr().unwrap(), accepted.local_addr().unwrap());
        let table = read("/proc/net/tcp").unwrap();
        assert!(owner(&table, theirs, ours).is_some() && owner(&table, theirs, theirs).is_none());
        drop(client);
        assert!(owner("", theirs, ours).is_none());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_lines_are_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:9C40 0100007F:0438 01 00000000:00000000 00:00000000 00000000  1000        0 36 1 0 20 4 30 10 -1\n   \
             1: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:0438 01 00000000:00000000 00:00000000 00000000    33        0 36\n";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner(table, at(40_000), at(1080)), Some(1000));
        assert_eq!(owner(table, at(40_001), at(1080)), Some(33), "an IPv4 address by an IPv6 socket");
        assert_eq!(owner(table, at(1080), at(40_000)), None, "the other end is another process");
    }

    proptest! {
        #[test]
        fn no_table_panics(line in ".{0,120}") {
            let at = SocketAddr::from(([127, 0, 0, 1], 1));
            let _any = owner(&format!("head\n{line}"), at, at);
        }
    }
}
