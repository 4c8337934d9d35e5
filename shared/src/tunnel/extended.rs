//! Extended CONNECT (RFC 9220): which protocol a request asks for.
//!
//! `h3` has a closed list of protocols, on which WebSocket is not, and calls a request for any other malformed. So `:protocol`
//! is taken out of the field section before `h3` reads it, and judged here. What is left of the section is `h3`'s to
//! check as ever: of QPACK (RFC 9204) no more is understood here than where a field line ends, and one word.

use bytes::{Bytes, BytesMut};

/// What an extended CONNECT asks for; stands in the extensions of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// RFC 9220.
    WebSocket,
    /// RFC 9298.
    ConnectUdp,
    /// Anything else, and more than one at a time.
    Other,
}

/// A word in each of its two spellings: a Huffman code (RFC 7541, 5.2) has one way to write a word.
struct Word {
    plain: &'static [u8],
    huffman: &'static [u8],
}

const NAME: Word = Word { plain: b":protocol", huffman: b"\xb9\x5d\x87\x49\xc8\x7a\x3f" };
const WEB_SOCKET: Word = Word { plain: b"websocket", huffman: b"\xf0\x58\xd0\x72\x75\x2a\x7f" };
const CONNECT_UDP: Word = Word { plain: b"connect-udp", huffman: b"\x21\xea\xa8\xa4\x4a\xd6\xc9\x5f" };

/// A string as it stands in a field section.
struct Text<'a> {
    octets: &'a [u8],
    is_huffman: bool,
}

impl Text<'_> {
    fn is(&self, word: &Word) -> bool {
        self.octets == if self.is_huffman { word.huffman } else { word.plain }
    }
}

/// Takes `:protocol` out of an encoded field section. One that is not understood stays as it is: `h3` refuses it.
pub(super) fn take_protocol(section: &mut Bytes) -> Option<Protocol> {
    let (protocol, rest) = without_protocol(section)?;
    *section = rest;
    Some(protocol)
}

/// The protocol and the section without it; `None` if there is none, or no field section.
fn without_protocol(section: &[u8]) -> Option<(Protocol, Bytes)> {
    let mut rest = section;
    // The prefix (RFC 9204, 4.5.1): without a dynamic table it says nothing.
    integer(&mut rest, 8)?;
    integer(&mut rest, 7)?;
    let mut kept = BytesMut::from(&section[..section.len() - rest.len()]);
    let mut found = None;
    while !rest.is_empty() {
        let line = rest;
        match skip_line(&mut rest)? {
            Some(protocol) => found = Some(found.map_or(protocol, |_| Protocol::Other)),
            None => kept.extend_from_slice(&line[..line.len() - rest.len()]),
        }
    }
    found.map(|protocol| (protocol, kept.freeze()))
}

/// Goes past one field line (RFC 9204, 4.5.2 to 4.5.6), and says what it asks for if it is `:protocol`.
#[expect(clippy::option_option, reason = "whether there is a line, and whether it is the one")]
fn skip_line(rest: &mut &[u8]) -> Option<Option<Protocol>> {
    let first = *rest.first()?;
    match first.leading_zeros() {
        // Indexed.
        0 => integer(rest, 6).map(|_| None),
        // A literal with the name of another.
        1 => {
            integer(rest, 4)?;
            text(rest, 7).map(|_| None)
        }
        // A literal with a name of its own: no table has `:protocol`.
        2 => {
            let is_protocol = text(rest, 3)?.is(&NAME);
            let value = text(rest, 7)?;
            Some(is_protocol.then(|| {
                if value.is(&WEB_SOCKET) {
                    Protocol::WebSocket
                } else if value.is(&CONNECT_UDP) {
                    Protocol::ConnectUdp
                } else {
                    Protocol::Other
                }
            }))
        }
        // Of the dynamic table, which nobody has been given.
        _ => None,
    }
}

/// An integer in the last `bits` of the first octet, or beginning there (RFC 7541, 5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut after) = rest.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        // Four octets say more than a field section may be long.
        for shift in [0, 7, 14, 21] {
            let (octet, behind) = after.split_first()?;
            after = behind;
            value += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                *rest = after;
                return Some(value);
            }
        }
        return None;
    }
    *rest = after;
    Some(value)
}

/// A string whose length has `bits`, with the bit before them for Huffman's code (RFC 7541, 5.2).
fn text<'a>(rest: &mut &'a [u8], bits: u32) -> Option<Text<'a>> {
    let is_huffman = rest.first()? & (1 << bits) != 0;
    let len = integer(rest, bits)?;
    let (octets, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(Text { octets, is_huffman })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A literal with a name of its own, in plain letters or in Huffman's code.
    fn line(name: &str, value: &str, is_huffman: bool) -> Vec<u8> {
        let encode = |text: &str| {
            let mut octets = Vec::new();
            httlib_huffman::encode(text.as_bytes(), &mut octets).unwrap();
            if is_huffman { octets } else { text.as_bytes().to_vec() }
        };
        let (name, value) = (encode(name), encode(value));
        let flag = u8::from(is_huffman);
        let mut line = vec![0x20 | flag << 3 | 7, u8::try_from(name.len()).unwrap() - 7];
        line.extend(name);
        assert!(value.len() < 127);
        line.push(flag << 7 | u8::try_from(value.len()).unwrap());
        line.extend(value);
        line
    }

    /// `:method: CONNECT` of the static table, `:path: /x` by its name there, and these lines.
    fn section(lines: &[Vec<u8>]) -> Bytes {
        let mut section = vec![0, 0, 0xc0 | 15, 0x51, 2, b'/', b'x'];
        section.extend(lines.concat());
        section.into()
    }

    #[test]
    fn the_protocol_is_taken_out_in_each_spelling_and_nothing_else_is() {
        let other = line("x-protocol", "websocket", false);
        for is_huffman in [false, true] {
            for (value, protocol) in [
                ("websocket", Protocol::WebSocket),
                ("connect-udp", Protocol::ConnectUdp),
                ("webtransport", Protocol::Other),
                ("WebSocket", Protocol::Other),
                ("websocket2", Protocol::Other),
                ("", Protocol::Other),
            ] {
                let asked = line(":protocol", value, is_huffman);
                let mut lines = section(&[other.clone(), asked, other.clone()]);
                assert_eq!(take_protocol(&mut lines), Some(protocol), "{value}");
                assert_eq!(lines, section(&[other.clone(), other.clone()]), "{value}");
            }
        }
    }

    #[test]
    fn who_asks_for_two_protocols_asks_for_none_that_is_spoken() {
        for second in ["websocket", "connect-udp"] {
            let asked = [line(":protocol", "websocket", true), line(":protocol", second, false)];
            let mut lines = section(&asked);
            assert_eq!(take_protocol(&mut lines), Some(Protocol::Other));
            assert_eq!(lines, section(&[]));
        }
    }

    #[test]
    fn a_section_that_makes_no_sense_stays_as_it_is() {
        let asked = line(":protocol", "websocket", false);
        let long = [0x27, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        for after in [&[0x10][..], &[0x00, 0x00], &[0x27, 0x7f], &[0xff], &long] {
            let mut lines = section(&[asked.clone(), after.to_vec()]);
            let before = lines.clone();
            assert_eq!(take_protocol(&mut lines), None, "{after:x?}");
            assert_eq!(lines, before);
        }
        assert_eq!(take_protocol(&mut section(&[])), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_to_their_end(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut section = Bytes::from(octets);
            let before = section.clone();
            let taken = take_protocol(&mut section);
            prop_assert_eq!(taken.is_none(), section == before);
            prop_assert!(section.len() <= before.len());
        }
    }
}
