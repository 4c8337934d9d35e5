//! Answers DNS questions about the hosts of an [`AddressBook`] (RFC 1035).
//!
//! | question | answer |
//! | --- | --- |
//! | A, AAAA of a host | its address |
//! | any other type of a host | NOERROR without an answer |
//! | PTR of a virtual address | the host that has it, else NXDOMAIN |
//! | anything else | REFUSED: a resolver asks its next server, which NXDOMAIN would keep it from |
//! | two questions, none, a compressed one, garbage behind the header | FORMERR |
//! | another operation than a query | NOTIMP |
//! | less than a header, more than 1232 octets, a response | silence |
//!
//! Answers fit 512 octets, so no extension (RFC 6891) is needed or spoken, and no answer is much longer than its question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AddressBook, Host};

/// Octets of a question at most: what resolvers send without asking (DNS flag day 2020).
const QUERY_LEN_MAX: usize = 1232;
const HEADER: usize = 12;
/// Octets of a name on the wire at most (RFC 1035, 2.3.4).
const WIRE_NAME_MAX: usize = 255;
/// Seconds that an answer may be kept: short, for a route may go away.
const TTL: u32 = 60;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// Response codes (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    NoError = 0,
    FormErr = 1,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
}

/// The answer to `query`, one message each, without the length that TCP puts before it. `None`: it deserves none.
#[must_use]
pub fn answer(query: &[u8], book: &AddressBook) -> Option<Vec<u8>> {
    let header: &[u8; HEADER] = query.first_chunk()?;
    let is_response = header[2] & 0x80 != 0;
    if is_response || query.len() > QUERY_LEN_MAX {
        return None;
    }
    if header[2] & 0x78 != 0 {
        return Some(message(header, Code::NotImp, None, None));
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let has_one_question = (count(4), count(6), count(8)) == (1, 0, 0);
    let Some(question) = has_one_question.then(|| Question::parse(&query[HEADER..])).flatten() else {
        return Some(message(header, Code::FormErr, None, None));
    };
    let (code, data) = look_up(&question, book);
    Some(message(header, code, Some(&question), data.as_deref()))
}

/// One question, with its octets as they came: a resolver looks whether its odd capitals come back.
struct Question<'a> {
    octets: &'a [u8],
    name: String,
    kind: u16,
    class: u16,
}

impl<'a> Question<'a> {
    fn parse(octets: &'a [u8]) -> Option<Self> {
        let mut name = String::new();
        let mut at = 0;
        loop {
            let len = usize::from(*octets.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            // Two high bits would be a pointer, which has nothing to point at here.
            let label = octets.get(at..at + len).filter(|_| len <= super::LABEL_LEN_MAX)?;
            at += len;
            if at >= WIRE_NAME_MAX {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            // Odd octets, a dot among them, become what no host has.
            name.extend(label.iter().map(|&octet| match octet {
                b'.' => '\u{fffd}',
                octet if octet.is_ascii_graphic() => char::from(octet),
                _ => '\u{fffd}',
            }));
        }
        let tail: &[u8; 4] = octets.get(at..)?.first_chunk()?;
        Some(Self {
            octets: &octets[..at + 4],
            name,
            kind: u16::from_be_bytes([tail[0], tail[1]]),
            class: u16::from_be_bytes([tail[2], tail[3]]),
        })
    }
}

/// The response code, and the data of the one record.
fn look_up(question: &Question<'_>, book: &AddressBook) -> (Code, Option<Vec<u8>>) {
    if question.class != CLASS_IN {
        return (Code::Refused, None);
    }
    if let Some(address) = reversed(&question.name) {
        return match book.host_of(address) {
            Some(host) if question.kind == TYPE_PTR => (Code::NoError, Some(wire_name(host))),
            Some(_) => (Code::NoError, None),
            None if book.pools().contains(address) => (Code::NxDomain, None),
            None => (Code::Refused, None),
        };
    }
    let Some(addresses) = question.name.parse().ok().and_then(|host| book.addresses_of(&host)) else {
        return (Code::Refused, None);
    };
    let data = match question.kind {
        TYPE_A => Some(addresses.v4.octets().to_vec()),
        TYPE_AAAA => Some(addresses.v6.octets().to_vec()),
        _ => None,
    };
    (Code::NoError, data)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    let name = name.to_ascii_lowercase();
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0_u8; 4];
        let mut count = 0;
        for (octet, label) in octets.iter_mut().rev().zip(labels.split('.')) {
            *octet = label.parse().ok().filter(|octet: &u8| octet.to_string() == label)?;
            count += 1;
        }
        return (count == 4 && labels.split('.').count() == 4).then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let digit = u8::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
        bits = bits << 4 | u128::from(digit);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

fn wire_name(host: &Host) -> Vec<u8> {
    let mut wire = Vec::with_capacity(host.as_str().len() + 2);
    for label in host.as_str().split('.') {
        // A host's labels are not longer than 63.
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn message(
    query: &[u8; HEADER],
    code: Code,
    question: Option<&Question<'_>>,
    data: Option<&[u8]>,
) -> Vec<u8> {
    let is_ours = matches!(code, Code::NoError | Code::NxDomain);
    let mut message = Vec::with_capacity(512);
    message.extend_from_slice(&query[..2]);
    // A response to a query, authoritative for what is ours; "recursion desired" comes back as it came.
    message.push(0x80 | (query[2] & 0x79) | if is_ours { 0x04 } else { 0 });
    message.push(code as u8);
    for count in [u16::from(question.is_some()), u16::from(data.is_some()), 0, 0] {
        message.extend_from_slice(&count.to_be_bytes());
    }
    let Some(question) = question else { return message };
    message.extend_from_slice(question.octets);
    if let Some(data) = data {
        // The name is the question's, which begins behind the header.
        message.extend_from_slice(&[0xc0, 0x0c]);
        message.extend_from_slice(&question.kind.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message.extend_from_slice(&TTL.to_be_bytes());
        message.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        message.extend_from_slice(data);
    }
    message
}
