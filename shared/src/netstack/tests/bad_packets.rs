//! What strangers may send: dropped and counted, never a panic.

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Icmpv4Packet, IpProtocol, IpRepr, Ipv6Packet, UdpPacket, UdpRepr},
};

use super::*;

pub(super) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    udp_between(CLIENT, APP, port, payload)
}

fn udp_between(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = UdpRepr { src_port: port, dst_port: 53 };
    let header = IpRepr::new(from.into(), to.into(), IpProtocol::Udp, 8 + payload.len(), 64);
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes[..], &ChecksumCapabilities::default());
    let start = header.header_len();
    datagram.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[start..]),
        &from.into(),
        &to.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    bytes
}

fn dropped(packet: &[u8]) -> Vec<(Dropped, u64)> {
    let now = beginning();
    let mut stack = stack(settings(), now);
    stack.receive(packet, now);
    assert_eq!((stack.next_event(), stack.next_packet()), (None, None));
    use Dropped::{
        BadChecksum, ExtensionHeader, Foreign, Fragment, Malformed, Martian, Oversized, Protocol, Truncated,
    };
    [BadChecksum, ExtensionHeader, Foreign, Fragment, Malformed, Martian, Oversized, Protocol, Truncated]
        .into_iter()
        .map(|reason| (reason, stack.counters().of(reason)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Writes the IPv4 header's checksum again.
fn sealed(mut packet: Vec<u8>, change: impl FnOnce(&mut Ipv4Packet<&mut Vec<u8>>)) -> Vec<u8> {
    let mut header = Ipv4Packet::new_unchecked(&mut packet);
    change(&mut header);
    header.fill_checksum();
    packet
}

#[test]
fn bad_packets_are_dropped_and_counted() {
    let good = udp(5000, b"hello");
    assert_eq!(dropped(&[]), [(Dropped::Truncated, 1)]);
    assert_eq!(dropped(&good[..19]), [(Dropped::Truncated, 1)]);
    assert_eq!(dropped(&good[..good.len() - 1]), [(Dropped::Truncated, 1)]);
    assert_eq!(dropped(&udp(5000, &[0; 1400])), [(Dropped::Oversized, 1)]);
    assert_eq!(dropped(&[0x50; 40]), [(Dropped::Malformed, 1)]);
    assert_eq!(dropped(&udp(0, b"hello")), [(Dropped::Malformed, 1)]);
    for at in [8, 30] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert_eq!(dropped(&flipped), [(Dropped::BadChecksum, 1)], "octet {at}");
    }
    let fragment = sealed(good.clone(), |header| header.set_more_frags(true));
    assert_eq!(dropped(&fragment), [(Dropped::Fragment, 1)]);
    let last_fragment = sealed(good.clone(), |header| header.set_frag_offset(8));
    assert_eq!(dropped(&last_fragment), [(Dropped::Fragment, 1)]);
    let other = sealed(good, |header| header.set_next_header(IpProtocol::Igmp));
    assert_eq!(dropped(&other), [(Dropped::Protocol, 1)]);
    let foreign = udp_between(CLIENT, IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), 5000, b"hello");
    assert_eq!(dropped(&foreign), [(Dropped::Foreign, 1)]);
}

#[test]
fn martians_are_dropped() {
    for from in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "100.64.0.7"] {
        assert_eq!(
            dropped(&udp_between(from.parse().unwrap(), APP, 5000, b"x")),
            [(Dropped::Martian, 1)],
            "{from}"
        );
    }
    for from in ["::", "::1", "ff02::1", "::ffff:100.64.0.200", "fd00::7"] {
        let packet = udp_between(from.parse().unwrap(), APP_6, 5000, b"x");
        assert_eq!(dropped(&packet), [(Dropped::Martian, 1)], "{from}");
    }
}

#[test]
fn ipv6_extension_headers_are_dropped() {
    for (header, reason) in [
        (IpProtocol::HopByHop, Dropped::ExtensionHeader),
        (IpProtocol::Ipv6Route, Dropped::ExtensionHeader),
        (IpProtocol::Ipv6Opts, Dropped::ExtensionHeader),
        (IpProtocol::Ipv6Frag, Dropped::Fragment),
    ] {
        let mut packet = udp_between(CLIENT_6, APP_6, 5000, b"hello");
        Ipv6Packet::new_unchecked(&mut packet).set_next_header(header);
        assert_eq!(dropped(&packet), [(reason, 1)]);
    }
    let mut bare = udp_between(CLIENT_6, APP_6, 5000, b"hello");
    bare[46..48].fill(0);
    assert_eq!(dropped(&bare), [(Dropped::BadChecksum, 1)], "no UDP over IPv6 without a checksum");
}

fn echo_request(to: IpAddr) -> Vec<u8> {
    let message = [8, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g'];
    let header = IpRepr::new(CLIENT.into(), to.into(), IpProtocol::Icmp, message.len(), 64);
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes[..], &ChecksumCapabilities::default());
    bytes[20..].copy_from_slice(&message);
    Icmpv4Packet::new_unchecked(&mut bytes[20..]).fill_checksum();
    bytes
}

#[test]
fn the_own_address_answers_echo_requests_and_the_apps_do_not() {
    let now = beginning();
    let mut stack = stack(settings(), now);
    stack.receive(&echo_request(OWN), now);
    let reply = stack.next_packet().unwrap();
    let packet = Ipv4Packet::new_checked(&reply[..]).unwrap();
    assert_eq!((IpAddr::V4(packet.src_addr()), IpAddr::V4(packet.dst_addr())), (OWN, CLIENT));
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert!(packet.verify_checksum() && message.verify_checksum());
    assert_eq!((message.echo_ident(), message.data()), (0x1234, &b"ping"[..]));
    assert_eq!(packet.payload()[0], 0, "an echo reply");
    assert_eq!(dropped(&echo_request(APP)), [(Dropped::Protocol, 1)]);
}

proptest! {
    #[test]
    fn no_packet_panics(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..20)) {
        let now = beginning();
        let mut stack = Stack::new(settings(), |_| true, now);
        for packet in &packets {
            stack.receive(packet, now);
            stack.poll(now);
        }
    }

    #[test]
    fn no_change_to_a_good_packet_panics(
        changes in prop::collection::vec((0_usize..60, any::<u8>()), 0..6),
        len in 20_usize..60,
        with_connection: bool,
    ) {
        let now = beginning();
        let mut stack = Stack::new(settings(), |_| true, now);
        let good = bounds::syn(Ipv4Addr::new(100, 64, 0, 200), 40_000, APP, 22);
        if with_connection {
            stack.receive(&good, now);
            let id = stack.next_event().unwrap().id;
            stack.accept(id, now).unwrap();
        }
        let mut packet = good;
        for (at, octet) in changes {
            if let Some(changed) = packet.get_mut(at) {
                *changed = octet;
            }
        }
        packet.truncate(len);
        if packet.len() >= 20 {
            packet = sealed_quietly(packet);
        }
        stack.receive(&packet, now);
        stack.poll(now);
    }
}

/// Checksums that hold, where there is room for them: past the first check.
fn sealed_quietly(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] = 0x45;
    let len = u16::try_from(packet.len()).unwrap();
    let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
    header.set_total_len(len);
    header.fill_checksum();
    let (from, to) = (header.src_addr(), header.dst_addr());
    if packet.len() >= 40 {
        TcpPacket::new_unchecked(&mut packet[20..]).fill_checksum(&from.into(), &to.into());
    }
    packet
}
