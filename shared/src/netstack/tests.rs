//! The core against a client of smoltcp, over a wire that loses, doubles and reorders.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant as WireInstant,
    wire::{HardwareAddress, IpCidr, IpEndpoint, Ipv4Packet, TcpPacket},
};

use super::{
    FlowId, Read, Refusal,
    counters::Dropped,
    settings::Settings,
    stack::{Kind, Stack},
};
use crate::clock::Now;

mod bad_packets;
mod bounds;
mod transfer;
mod under_tokio;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 200));
const CLIENT_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xc8));
const APP: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 7));
const APP_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7));
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1));
const OWN_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

fn settings() -> Settings {
    let mut settings = Settings::new(7);
    settings.own = vec![OWN, OWN_6];
    settings
}

fn stack(settings: Settings, now: Instant) -> Stack {
    Stack::new(settings, |to| to == APP || to == APP_6, now)
}

fn beginning() -> Instant {
    Now::read().monotonic
}

/// What happens to each packet: 0 it is lost, 1 it comes twice, 2 it comes after the next, else nothing.
#[derive(Debug, Clone)]
struct Weather {
    fates: Vec<u8>,
    at: usize,
}

impl Weather {
    fn fair() -> Self {
        Self { fates: Vec::new(), at: 0 }
    }

    /// Puts `packet` on the wire.
    fn carry(&mut self, packet: Vec<u8>, wire: &mut VecDeque<Vec<u8>>) {
        let fate = self.fates.get(self.at % self.fates.len().max(1)).copied().unwrap_or(u8::MAX);
        self.at += 1;
        match fate {
            0 => {}
            1 => wire.extend([packet.clone(), packet]),
            2 => wire.insert(wire.len().saturating_sub(1), packet),
            _ => wire.push_back(packet),
        }
    }
}

/// A machine with smoltcp's whole stack.
struct Client {
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
    epoch: Instant,
}

#[derive(Default)]
struct Link {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Client {
    fn new(now: Instant) -> Self {
        let mut link = Link::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 99;
        let mut interface = Interface::new(config, &mut link, WireInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(CLIENT.into(), 10)).unwrap();
            addresses.push(IpCidr::new(CLIENT_6.into(), 8)).unwrap();
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), link, epoch: now }
    }

    fn connect(&mut self, to: SocketAddr, from_port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 32 * 1024]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let to = IpEndpoint { addr: to.ip().into(), port: to.port() };
        socket.connect(self.interface.context(), to, from_port).unwrap();
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn poll(&mut self, now: Instant) {
        let at = WireInstant::from_micros(i64::try_from((now - self.epoch).as_micros()).unwrap());
        self.interface.poll(at, &mut self.link, &mut self.sockets);
    }
}

impl Device for Link {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Departing<'a>;

    fn receive(&mut self, _: WireInstant) -> Option<(Arrived, Departing<'_>)> {
        Some((Arrived(self.incoming.pop_front()?), Departing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: WireInstant) -> Option<Departing<'_>> {
        Some(Departing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1420;
        capabilities
    }
}

struct Arrived(Vec<u8>);
struct Departing<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Departing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

/// A client and a stack, and a clock that both go by.
struct Net {
    client: Client,
    stack: Stack,
    there: Weather,
    back: Weather,
    now: Instant,
    /// What the stack sent since this was last emptied.
    sent: Vec<Vec<u8>>,
}

impl Net {
    fn new(settings: Settings) -> Self {
        let now = beginning();
        Self {
            client: Client::new(now),
            stack: stack(settings, now),
            there: Weather::fair(),
            back: Weather::fair(),
            now,
            sent: Vec::new(),
        }
    }

    /// Five milliseconds of everybody's life.
    fn step(&mut self) {
        self.client.poll(self.now);
        let mut wire = VecDeque::new();
        while let Some(packet) = self.client.link.outgoing.pop_front() {
            self.there.carry(packet, &mut wire);
        }
        for packet in wire {
            self.stack.receive(&packet, self.now);
        }
        self.stack.poll(self.now);
        while let Some(packet) = self.stack.next_packet() {
            self.sent.push(packet.clone());
            self.back.carry(packet, &mut self.client.link.incoming);
        }
        self.now += Duration::from_millis(5);
    }

    fn steps_until(&mut self, mut is_done: impl FnMut(&mut Self) -> bool) {
        // Hours of theirs: where each second packet is lost, smoltcp's clock is at its slowest.
        for _ in 0..2_000_000 {
            if is_done(self) {
                return;
            }
            self.step();
        }
        panic!("it does not happen; dropped: {:?}", self.stack.counters());
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// The next flow, its SYN still unanswered.
    fn opening(&mut self, kind: Kind) -> FlowId {
        let mut id = None;
        self.steps_until(|net| {
            id = net.stack.next_event();
            id.is_some()
        });
        let event = id.unwrap();
        assert_eq!(event.kind, kind);
        event.id
    }

    /// An established connection.
    fn connection(&mut self, from_port: u16) -> (SocketHandle, FlowId) {
        let handle = self.client.connect(SocketAddr::new(APP, 22), from_port);
        let id = self.opening(Kind::Tcp);
        self.stack.accept(id, self.now).unwrap();
        self.steps_until(|net| net.client.socket(handle).state() == tcp::State::Established);
        (handle, id)
    }

    /// Reads all that has come; whether that was the end.
    fn read(&mut self, id: FlowId, into: &mut Vec<u8>) -> bool {
        loop {
            let read = self.stack.read(id, |come| {
                into.extend_from_slice(come);
                come.len()
            });
            match read.expect("the connection lives") {
                Read::Octets(_) => {}
                Read::Nothing => return false,
                Read::End => return true,
            }
        }
    }
}

/// The flags of a TCP packet over IPv4: SYN, ACK, RST.
fn flags(packet: &[u8]) -> (bool, bool, bool) {
    let packet = Ipv4Packet::new_checked(packet).unwrap();
    let segment = TcpPacket::new_checked(packet.payload()).unwrap();
    (segment.syn(), segment.ack(), segment.rst())
}
