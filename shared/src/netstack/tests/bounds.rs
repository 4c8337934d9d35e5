//! Decisions, refusals, and how much a stranger can make the stack hold.

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpProtocol, IpRepr, TcpControl, TcpRepr, TcpSeqNumber},
};

use super::*;

pub(super) fn syn(from: Ipv4Addr, from_port: u16, to: IpAddr, to_port: u16) -> Vec<u8> {
    segment((from, from_port), (to, to_port), TcpControl::Syn, 1000)
}

fn segment(
    (from, from_port): (Ipv4Addr, u16),
    (to, to_port): (IpAddr, u16),
    control: TcpControl,
    number: i32,
) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: from_port,
        dst_port: to_port,
        control,
        seq_number: TcpSeqNumber(number),
        ack_number: None,
        window_len: 64_000,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1380),
        sack_permitted: false,
        sack_ranges: [None, None, None],
        timestamp: None,
        payload: &[],
    };
    let from = IpAddr::V4(from);
    let header = IpRepr::new(from.into(), to.into(), IpProtocol::Tcp, segment.buffer_len(), 64);
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes[..], &ChecksumCapabilities::default());
    let start = header.header_len();
    segment.emit(
        &mut TcpPacket::new_unchecked(&mut bytes[start..]),
        &from.into(),
        &to.into(),
        &ChecksumCapabilities::default(),
    );
    bytes
}

#[test]
fn a_syn_is_not_answered_before_the_decision() {
    let mut net = Net::new(settings());
    let handle = net.client.connect(SocketAddr::new(APP, 22), 40_000);
    let id = net.opening(Kind::Tcp);
    // Ten seconds: the client repeats its SYN.
    net.steps(2000);
    assert!(net.sent.is_empty(), "answered before it was accepted");
    assert_eq!(net.stack.next_event(), None, "a repeated SYN is no second flow");
    net.stack.accept(id, net.now).unwrap();
    net.steps_until(|net| net.client.socket(handle).state() == tcp::State::Established);
}

#[test]
fn a_refused_port_sees_a_reset_and_never_a_syn_ack() {
    let mut net = Net::new(settings());
    let handle = net.client.connect(SocketAddr::new(APP, 22), 40_000);
    let id = net.opening(Kind::Tcp);
    net.stack.refuse(id, Refusal::Reset);
    net.steps_until(|net| net.client.socket(handle).state() == tcp::State::Closed);
    assert_eq!(net.sent.iter().map(|packet| flags(packet)).collect::<Vec<_>>(), [(false, true, true)]);
    assert_eq!(net.stack.held(), (0, 0));
}

#[test]
fn a_prohibited_flow_is_told_so_over_icmp() {
    let mut net = Net::new(settings());
    net.client.connect(SocketAddr::new(APP, 22), 40_000);
    let id = net.opening(Kind::Tcp);
    net.stack.refuse(id, Refusal::Prohibited);
    let error = net.stack.next_packet().unwrap();
    let packet = Ipv4Packet::new_checked(&error[..]).unwrap();
    assert_eq!(packet.payload()[..2], [3, 13]);
    // It quotes what was refused: an IPv4 header to the app, then the client's port.
    assert_eq!(packet.payload()[8 + 16..8 + 20], [100, 64, 0, 7]);
    assert_eq!(packet.payload()[28..30], 40_000_u16.to_be_bytes());
}

#[test]
fn a_decision_that_takes_too_long_finds_nobody() {
    let mut net = Net::new(settings());
    net.client.connect(SocketAddr::new(APP, 22), 40_000);
    let id = net.opening(Kind::Tcp);
    net.there.fates = vec![0];
    net.now += settings().half_open_timeout;
    net.steps(2);
    assert_eq!(net.stack.accept(id, net.now), Err(super::super::stack::Gone));
    assert_eq!(net.stack.held(), (0, 0));
}

#[test]
fn a_flood_of_syns_holds_little_and_disturbs_nobody() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    for n in 0..65_000_u32 {
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 100, 0, 0)) + n % 5000);
        let port = u16::try_from(n / 5000 + 1024).unwrap();
        net.stack.receive(&syn(from, port, APP, 22), net.now);
    }
    let (half_open, connections) = net.stack.held();
    assert_eq!((half_open, connections), (settings().half_open_max, 1));
    assert_eq!(net.stack.counters().of(Dropped::HalfOpenFull), 65_000 - half_open as u64);
    net.client.socket(handle).send_slice(b"still here").unwrap();
    let mut come = Vec::new();
    net.steps_until(|net| {
        net.read(id, &mut come);
        come == b"still here"
    });
    net.now += settings().half_open_timeout;
    net.steps(2);
    assert_eq!(net.stack.held(), (0, 1), "the flood is forgotten");
}

#[test]
fn what_was_withdrawn_holds_its_place_until_who_decides_is_done() {
    const MAX: usize = 3;
    let mut settings = settings();
    settings.half_open_max = MAX;
    let mut net = Net::new(settings);
    let from = Ipv4Addr::new(100, 100, 0, 1);
    // Nobody has been told of these yet.
    for port in 1..=1_000 {
        net.stack.receive(&syn(from, port, APP, 22), net.now);
        net.stack.receive(&segment((from, port), (APP, 22), TcpControl::Rst, 1001), net.now);
    }
    assert_eq!((net.stack.held().0, net.stack.next_event()), (0, None));
    let mut told = Vec::new();
    for port in 1..=1_000 {
        net.stack.receive(&syn(from, port, APP, 22), net.now);
        told.extend(net.stack.next_event());
        net.stack.receive(&segment((from, port), (APP, 22), TcpControl::Rst, 1001), net.now);
    }
    assert_eq!((net.stack.held().0, told.len()), (0, MAX), "no more are decided on at a time");
    assert!(net.stack.accept(told[0].id, net.now).is_err());
    net.stack.refuse(told[1].id, Refusal::Reset);
    net.stack.leave(told[2].id, net.now);
    assert_eq!(net.stack.next_packet(), None, "nobody waits for an answer");
    for port in 1..=10 {
        net.stack.receive(&syn(from, port, APP, 22), net.now);
    }
    assert_eq!(net.stack.held().0, MAX, "all places are free again, once each");
}

#[test]
fn one_source_does_not_take_the_others_places() {
    let mut net = Net::new(settings());
    for port in 1..=10_000 {
        net.stack.receive(&syn(Ipv4Addr::new(100, 100, 0, 1), port, APP, 22), net.now);
    }
    assert_eq!(net.stack.held().0, settings().half_open_per_source_max);
    while net.stack.next_event().is_some() {}
    net.connection(40_000);
}

#[test]
fn connections_and_udp_flows_are_bounded() {
    let mut settings = settings();
    settings.flows_max = 3;
    let mut net = Net::new(settings);
    for port in 1..=5 {
        net.stack.receive(&bad_packets::udp(port, b"hello"), net.now);
    }
    assert_eq!(net.stack.counters().of(Dropped::FlowsFull), 2);
    net.client.connect(SocketAddr::new(APP, 22), 40_000);
    let mut tcp = None;
    net.steps_until(|net| {
        tcp = net.stack.next_event().filter(|event| event.kind == Kind::Tcp).or(tcp);
        tcp.is_some()
    });
    assert!(net.stack.accept(tcp.unwrap().id, net.now).is_err());
    assert_eq!(net.stack.counters().of(Dropped::FlowsFull), 3);
}

#[test]
fn datagrams_that_nobody_reads_are_dropped_and_idle_flows_end() {
    let mut settings = settings();
    settings.datagram_queue = 1000;
    let timeout = settings.datagram_timeout;
    let mut net = Net::new(settings);
    for _ in 0..10 {
        net.stack.receive(&bad_packets::udp(5000, &[0; 136]), net.now);
    }
    let id = net.opening(Kind::Udp);
    assert_eq!(net.stack.counters().of(Dropped::DatagramsFull), 5);
    assert_eq!(net.stack.read_datagram(id).unwrap().unwrap().len(), 136);
    net.stack.send_datagram(id, b"pong", net.now).unwrap();
    let reply = net.stack.next_packet().unwrap();
    assert!(reply.ends_with(b"pong"));
    assert_eq!(
        net.stack.send_datagram(id, &[0; 1420 - 27], net.now),
        Err(super::super::stack::SendError::TooLong)
    );
    net.now += timeout;
    net.stack.poll(net.now);
    assert!(net.stack.read_datagram(id).is_err());
}

#[test]
fn segments_of_no_connection_are_reset_so_many_a_second() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    // The gateway has restarted.
    net.stack = stack(settings(), net.now);
    net.client.socket(handle).send_slice(b"hello?").unwrap();
    net.steps_until(|net| net.client.socket(handle).state() == tcp::State::Closed);
    assert!(net.stack.read(id, |_| 0).is_err());
    for port in 1..1000 {
        let mut packet = syn(Ipv4Addr::new(100, 100, 0, 1), port, APP, 22);
        // An ACK in place of the SYN, and the checksum for the difference: 0x02 becomes 0x10.
        packet[33] = 0x10;
        let sum = u16::from_be_bytes([packet[36], packet[37]]).checked_sub(0x0e);
        let Some(sum) = sum else { continue };
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        net.stack.receive(&packet, net.now);
    }
    assert!(std::iter::from_fn(|| net.stack.next_packet()).count() <= 100);
    assert!(net.stack.counters().of(Dropped::RateLimited) > 500);
}
