//! SOCKS5 (RFC 1928): what a program says, and what it is answered. `CONNECT` without a password; names are resolved by the
//! gateway, never here.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use pomerium_shared::destination::Destination;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::exit::Exit;

/// The first octet of all that a program sends.
pub(super) const VERSION: u8 = 5;
const NO_PASSWORD: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

/// The answer to a request (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Answer {
    Open = 0,
    Failed = 1,
    NotAllowed = 2,
    Unreachable = 4,
    AppRefused = 5,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

impl Answer {
    /// The answer that says most of a failure.
    pub(super) const fn to(exit: Exit) -> Self {
        match exit {
            Exit::NotAllowed | Exit::NotSignedIn => Self::NotAllowed,
            Exit::AppDown => Self::AppRefused,
            Exit::Unreachable | Exit::Untrusted => Self::Unreachable,
            Exit::Ours | Exit::Usage => Self::Failed,
        }
    }
}

/// What a program asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A stream to a destination.
    Stream(Destination),
    /// Something that it does not get.
    Other(Answer),
}

/// Reads the greeting and the request, not an octet more.
///
/// # Errors
/// What is no SOCKS5, or offers nothing that is spoken here.
pub(super) async fn asked(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Asked> {
    let (version, methods) = (stream.read_u8().await?, stream.read_u8().await?);
    let mut offered = vec![0; usize::from(methods)];
    stream.read_exact(&mut offered).await?;
    if version != VERSION || !offered.contains(&NO_PASSWORD) {
        stream.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(invalid("no SOCKS5 without a password"));
    }
    stream.write_all(&[VERSION, NO_PASSWORD]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return Err(invalid("no request of SOCKS5"));
    }
    let host = match kind {
        1 => Some(Ipv4Addr::from_bits(stream.read_u32().await?).to_string()),
        3 => {
            let mut name = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).ok()
        }
        4 => Some(Ipv6Addr::from_bits(stream.read_u128().await?).to_string()),
        _ => return Ok(Asked::Other(Answer::NoSuchAddress)),
    };
    let port = stream.read_u16().await?;
    if command != CONNECT {
        return Ok(Asked::Other(Answer::NoSuchCommand));
    }
    let destination = host.and_then(|host| Destination::new(host.trim_end_matches('.'), port).ok());
    Ok(destination.map_or(Asked::Other(Answer::NoSuchAddress), Asked::Stream))
}

/// Says what became of the request.
pub(super) async fn say(stream: &mut (impl AsyncWrite + Unpin), answer: Answer) -> io::Result<()> {
    // Where the stream begins is nobody's business: 0.0.0.0:0.
    stream.write_all(&[VERSION, answer as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::join;

    use super::*;

    async fn heard(said: &[u8]) -> (io::Result<Asked>, Vec<u8>, usize) {
        let (mut from, mut answered) = (said, Vec::new());
        let asked = asked(&mut join(&mut from, &mut answered)).await;
        (asked, answered, from.len())
    }

    fn request(command: u8, address: &[u8]) -> Vec<u8> {
        [&[5, 2, 1, 0, 5, command, 0], address, &[0x15, 0x38, b'x']].concat()
    }

    #[tokio::test]
    async fn names_and_addresses_are_understood_and_nothing_is_read_beyond() {
        let name = [&[3, 8][..], b"DB.corp."].concat();
        for (address, meant) in [
            (name.as_slice(), "db.corp:5432"),
            (&[1, 10, 0, 0, 7], "10.0.0.7:5432"),
            (&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "[::1]:5432"),
        ] {
            let (asked, answered, left) = heard(&request(CONNECT, address)).await;
            assert_eq!(asked.unwrap(), Asked::Stream(meant.parse().unwrap()));
            assert_eq!((answered.as_slice(), left), (&[5, 0][..], 1));
        }
    }

    #[tokio::test]
    async fn what_is_not_spoken_is_refused_by_its_code() {
        let (bind, ..) = heard(&request(2, &[1, 10, 0, 0, 7])).await;
        assert_eq!(bind.unwrap(), Asked::Other(Answer::NoSuchCommand));
        let (udp, ..) = heard(&request(3, &[1, 10, 0, 0, 7])).await;
        assert_eq!(udp.unwrap(), Asked::Other(Answer::NoSuchCommand));
        let (odd, ..) = heard(&request(CONNECT, &[9])).await;
        assert_eq!(odd.unwrap(), Asked::Other(Answer::NoSuchAddress));
        let spaced = [&[3, 3][..], b"a b"].concat();
        assert_eq!(heard(&request(CONNECT, &spaced)).await.0.unwrap(), Asked::Other(Answer::NoSuchAddress));
        let (refused, answered, _) = heard(&[5, 1, 2]).await;
        assert!(refused.is_err() && answered == [5, 0xff], "a password alone is not offered");
        assert!(heard(&[4, 1, 0, 80]).await.0.is_err(), "SOCKS4");
    }

    proptest! {
        #[test]
        fn nothing_that_a_program_says_panics(said: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _any = runtime.block_on(heard(&said));
        }
    }
}
