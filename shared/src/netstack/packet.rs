//! Packets from the wire, and the few that are not TCP's own, to the wire. Nothing here remembers anything.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, IpRepr, Ipv4Packet,
        Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
    },
};

use super::{Refusal, counters::Dropped, pair::Pair, settings::MTU_MIN};

/// Octets of a segment that a peer may at least ask for; smaller ones cost more headers than they carry (RFC 9293, 3.7.1, has 536).
const SEGMENT_SIZE_MIN: u16 = 88;
/// Hops that our packets may take.
const HOPS: u8 = 64;
/// Octets of an ICMP header.
const ICMP_HEADER: usize = 8;
/// Octets of an IPv4 error at most (RFC 1812, 4.3.2.3).
const ICMPV4_ERROR_MAX: usize = 576;

/// A packet that is whole, from one machine to one, and of a kind that is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// From the first octet of the IP header to the last of the payload, without padding.
    pub(super) bytes: &'a [u8],
    pub(super) body: Body<'a>,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Tcp(Segment),
    Udp {
        source_port: u16,
        destination_port: u16,
        payload: &'a [u8],
    },
    /// A whole ICMP message, an echo request.
    Echo(&'a [u8]),
}

/// What has to be known of a TCP segment before there is a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) kind: SegmentKind,
    /// Its first sequence number, and the one behind its last.
    pub(super) sequence: TcpSeqNumber,
    pub(super) sequence_end: TcpSeqNumber,
    pub(super) acknowledgement: Option<TcpSeqNumber>,
    /// As on the wire, not scaled.
    pub(super) window: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentKind {
    /// Asks for a connection.
    Syn,
    Reset,
    Other,
}

impl<'a> Packet<'a> {
    /// Reads a packet, all checksums included.
    pub(super) fn parse(bytes: &'a [u8], mtu: usize) -> Result<Self, Dropped> {
        if bytes.len() > mtu {
            return Err(Dropped::Oversized);
        }
        match bytes.first().ok_or(Dropped::Truncated)? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => Err(Dropped::Malformed),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Dropped> {
        let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Dropped::Truncated)?;
        if packet.header_len() < 20 {
            return Err(Dropped::Malformed);
        }
        if !packet.verify_checksum() {
            return Err(Dropped::BadChecksum);
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            return Err(Dropped::Fragment);
        }
        let bytes = bytes.get(..usize::from(packet.total_len())).ok_or(Dropped::Truncated)?;
        let (source, destination) = (IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr()));
        Self::parse_body(bytes, (source, destination), packet.next_header(), packet.payload())
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Dropped> {
        let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Dropped::Truncated)?;
        let bytes = bytes.get(..packet.total_len()).ok_or(Dropped::Truncated)?;
        let (source, destination) = (IpAddr::V6(packet.src_addr()), IpAddr::V6(packet.dst_addr()));
        Self::parse_body(bytes, (source, destination), packet.next_header(), packet.payload())
    }

    fn parse_body(
        bytes: &'a [u8],
        (source, destination): (IpAddr, IpAddr),
        protocol: IpProtocol,
        payload: &'a [u8],
    ) -> Result<Self, Dropped> {
        if is_martian(source) || is_martian(destination) || source == destination {
            return Err(Dropped::Martian);
        }
        let ends = (IpAddress::from(source), IpAddress::from(destination));
        let body = match protocol {
            IpProtocol::Tcp => Body::Tcp(Segment::parse(payload, ends)?),
            IpProtocol::Udp => parse_udp(payload, ends)?,
            IpProtocol::Icmp if source.is_ipv4() => parse_echo_v4(payload)?,
            IpProtocol::Icmpv6 if source.is_ipv6() => parse_echo_v6(payload, ends)?,
            IpProtocol::Ipv6Frag => return Err(Dropped::Fragment),
            IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                return Err(Dropped::ExtensionHeader);
            }
            _ => return Err(Dropped::Protocol),
        };
        Ok(Self { source, destination, bytes, body })
    }

    /// Between whom it goes.
    pub(super) const fn pair(&self, source_port: u16, destination_port: u16) -> Pair {
        Pair {
            source: SocketAddr::new(self.source, source_port),
            destination: SocketAddr::new(self.destination, destination_port),
        }
    }
}

impl Segment {
    fn parse(payload: &[u8], (source, destination): (IpAddress, IpAddress)) -> Result<Self, Dropped> {
        let segment = TcpPacket::new_checked(payload).map_err(|_| Dropped::Truncated)?;
        if !segment.verify_checksum(&source, &destination) {
            return Err(Dropped::BadChecksum);
        }
        if segment.src_port() == 0 || segment.dst_port() == 0 {
            return Err(Dropped::Malformed);
        }
        let kind = match (segment.syn(), segment.ack(), segment.rst(), segment.fin()) {
            (true, false, false, false) => SegmentKind::Syn,
            (false, _, true, _) => SegmentKind::Reset,
            (true, ..) => return Err(Dropped::Malformed),
            (false, ..) => SegmentKind::Other,
        };
        if kind == SegmentKind::Syn {
            let options = TcpRepr::parse(&segment, &source, &destination, &ChecksumCapabilities::ignored())
                .map_err(|_| Dropped::Malformed)?;
            if options.max_seg_size.is_some_and(|size| size < SEGMENT_SIZE_MIN) {
                return Err(Dropped::Malformed);
            }
        }
        Ok(Self {
            source_port: segment.src_port(),
            destination_port: segment.dst_port(),
            kind,
            sequence: segment.seq_number(),
            sequence_end: segment.seq_number() + segment.segment_len(),
            acknowledgement: segment.ack().then(|| segment.ack_number()),
            window: segment.window_len(),
        })
    }
}

fn parse_udp(payload: &[u8], (source, destination): (IpAddress, IpAddress)) -> Result<Body<'_>, Dropped> {
    let datagram = UdpPacket::new_checked(payload).map_err(|_| Dropped::Truncated)?;
    // Over IPv6 there is no datagram without a checksum (RFC 8200, 8.1).
    let is_bare = datagram.checksum() == 0 && matches!(source, IpAddress::Ipv6(_));
    if is_bare || !datagram.verify_checksum(&source, &destination) {
        return Err(Dropped::BadChecksum);
    }
    if datagram.src_port() == 0 || datagram.dst_port() == 0 {
        return Err(Dropped::Malformed);
    }
    Ok(Body::Udp {
        source_port: datagram.src_port(),
        destination_port: datagram.dst_port(),
        payload: datagram.payload(),
    })
}

fn parse_echo_v4(payload: &[u8]) -> Result<Body<'_>, Dropped> {
    let message = Icmpv4Packet::new_checked(payload).map_err(|_| Dropped::Truncated)?;
    if !message.verify_checksum() {
        return Err(Dropped::BadChecksum);
    }
    if message.msg_type() != Icmpv4Message::EchoRequest {
        return Err(Dropped::Protocol);
    }
    Ok(Body::Echo(payload))
}

fn parse_echo_v6(payload: &[u8], ends: (IpAddress, IpAddress)) -> Result<Body<'_>, Dropped> {
    let (IpAddress::Ipv6(source), IpAddress::Ipv6(destination)) = ends else {
        return Err(Dropped::Malformed);
    };
    // The reader looks at the header alone; an echo's has identifier and number behind it.
    if payload.len() < ICMP_HEADER {
        return Err(Dropped::Truncated);
    }
    let message = Icmpv6Packet::new_checked(payload).map_err(|_| Dropped::Truncated)?;
    if !message.verify_checksum(&source, &destination) {
        return Err(Dropped::BadChecksum);
    }
    if message.msg_type() != Icmpv6Message::EchoRequest {
        return Err(Dropped::Protocol);
    }
    Ok(Body::Echo(payload))
}

/// No single machine outside of this one has it.
fn is_martian(address: IpAddr) -> bool {
    address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || match address {
            IpAddr::V4(address) => address.is_broadcast(),
            // Two spellings of one address are two ways around a rule.
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        }
}

/// An IP packet with its header written, and where its payload of `len` octets begins.
fn ip_packet(source: IpAddr, destination: IpAddr, protocol: IpProtocol, len: usize) -> (Vec<u8>, usize) {
    let header = IpRepr::new(source.into(), destination.into(), protocol, len, HOPS);
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes[..], &ChecksumCapabilities::default());
    let start = header.header_len();
    (bytes, start)
}

/// The echo of `request`, a message that was read from `packet`.
pub(super) fn echo_reply(packet: &Packet<'_>, request: &[u8]) -> Vec<u8> {
    let (from, to) = (packet.destination, packet.source);
    icmp(from, to, |message| {
        message.extend_from_slice(request);
        message[0] =
            if from.is_ipv4() { Icmpv4Message::EchoReply.into() } else { Icmpv6Message::EchoReply.into() };
        message[1] = 0;
    })
}

/// An ICMP message that `write` appends, with its checksum.
fn icmp(from: IpAddr, to: IpAddr, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut message = Vec::with_capacity(ICMPV4_ERROR_MAX);
    write(&mut message);
    let protocol = if from.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    let (mut bytes, start) = ip_packet(from, to, protocol, message.len());
    bytes[start..].copy_from_slice(&message);
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Icmpv6Packet::new_unchecked(&mut bytes[start..]).fill_checksum(&from, &to);
        }
        _ => Icmpv4Packet::new_unchecked(&mut bytes[start..]).fill_checksum(),
    }
    bytes
}

/// The error that tells the sender of `refused` (a whole packet) why it goes no further.
pub(super) fn unreachable(pair: Pair, why: Refusal, refused: &[u8]) -> Vec<u8> {
    let (from, to) = (pair.destination.ip(), pair.source.ip());
    // Type and code: RFC 792, RFC 1812 (5.2.7.1), RFC 4443 (3.1).
    let (kind, len_max) = match (from, why) {
        (IpAddr::V4(_), Refusal::Reset) => ([3, 3], ICMPV4_ERROR_MAX - 20),
        (IpAddr::V4(_), Refusal::Prohibited) => ([3, 13], ICMPV4_ERROR_MAX - 20),
        (IpAddr::V6(_), Refusal::Reset) => ([1, 4], MTU_MIN - 40),
        (IpAddr::V6(_), Refusal::Prohibited) => ([1, 1], MTU_MIN - 40),
    };
    icmp(from, to, |message| {
        message.extend_from_slice(&kind);
        message.resize(ICMP_HEADER, 0);
        message.extend_from_slice(&refused[..refused.len().min(len_max - ICMP_HEADER)]);
    })
}

/// How much of a packet [`unreachable()`] quotes at most.
pub(super) const QUOTE_MAX: usize = MTU_MIN - 40 - ICMP_HEADER;

/// The reset that answers `segment` (RFC 9293, 3.10.7.1).
pub(super) fn reset(pair: Pair, segment: &Segment) -> Vec<u8> {
    let (sequence, acknowledgement) = match segment.acknowledgement {
        Some(acknowledged) => (acknowledged, None),
        None => (TcpSeqNumber(0), Some(segment.sequence_end)),
    };
    let reply = TcpRepr {
        src_port: segment.destination_port,
        dst_port: segment.source_port,
        control: TcpControl::Rst,
        seq_number: sequence,
        ack_number: acknowledgement,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None, None, None],
        timestamp: None,
        payload: &[],
    };
    let (from, to) = (pair.destination.ip(), pair.source.ip());
    let (mut bytes, start) = ip_packet(from, to, IpProtocol::Tcp, reply.buffer_len());
    let mut packet = TcpPacket::new_unchecked(&mut bytes[start..]);
    reply.emit(&mut packet, &from.into(), &to.into(), &ChecksumCapabilities::default());
    bytes
}

/// A datagram from the destination of `pair` to its source; `None` where it is longer than `mtu` lets it.
pub(super) fn datagram(pair: Pair, payload: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let header = UdpRepr { src_port: pair.destination.port(), dst_port: pair.source.port() };
    let (from, to) = (pair.destination.ip(), pair.source.ip());
    let len = payload.len().checked_add(header.header_len())?;
    if len > mtu.checked_sub(if from.is_ipv4() { 20 } else { 40 })? {
        return None;
    }
    let (mut bytes, start) = ip_packet(from, to, IpProtocol::Udp, len);
    let mut packet = UdpPacket::new_unchecked(&mut bytes[start..]);
    header.emit(
        &mut packet,
        &from.into(),
        &to.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    Some(bytes)
}
