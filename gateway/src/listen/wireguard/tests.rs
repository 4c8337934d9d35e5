//! The door as those see it who flood it: strangers at its socket, and a peer inside its own tunnel.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use pomerium_shared::{
    clock::Now,
    names::Host,
    netstack::counters::Dropped as Refused,
    wireguard::{NewPeer, PublicKey},
};
use socket2::{Domain, Socket as AnySocket, Type};
use tokio::{net::UdpSocket, time::timeout};

use super::{worker::HALF_OPEN_MAX, *};
use crate::{
    listen::tests::Doors,
    session::SessionId,
    wireguard::{
        DATAGRAM_MAX,
        client::{Client, public},
        counters::Dropped,
        front::HANDSHAKES_PER_ADDRESS,
    },
};

const GATEWAY: [u8; 32] = [7; 32];
const STRANGER: [u8; 32] = [3; 32];
const SYN: u8 = 2;
const RST: u8 = 4;
const SILENT: &str = "silent.corp.test";

/// For an answer; what is lost on the way is sent again before that.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(250);

/// Octets of a cookie reply, which is shorter than what it answers.
const COOKIE_REPLY: usize = 64;

/// A gateway with this door alone in use.
struct Gateway {
    doors: Doors,
    door: Arc<Door>,
    address: SocketAddr,
}

impl Gateway {
    /// With one more route, to whatever `silent` is.
    async fn open(silent: SocketAddr) -> Self {
        let route = format!(
            "policy:\n- from: tcp+https://{SILENT}:7\n  to: tcp://{silent}\n  allow_any_authenticated_user: true\n"
        );
        let doors = Doors::open_with(tempfile::tempdir().unwrap(), &route).await;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let key = Secret::new(PrivateKey::from_random(GATEWAY));
        let networks = Networks::default();
        let (proxy, lifetime) = (doors.proxy.clone(), doors.lifetime.clone());
        let wireguard = WireGuard::new(vec![socket], &key, networks, proxy, lifetime).unwrap();
        let door = wireguard.door.clone();
        doors.lifetime.doors.spawn(wireguard.run());
        Self { doors, door, address }
    }

    /// A peer of this person, with a session.
    async fn peer(&self, user: &str, private: [u8; 32]) -> Peer {
        self.doors.token_of(user, user, None).await;
        let store = &self.doors.store;
        let session = store.session(&SessionId::new(user)).await.unwrap().unwrap();
        let public_key = PublicKey::new(public(private)).unwrap();
        let new = NewPeer { name: user.parse().unwrap(), public_key };
        let (networks, limit) = (&self.door.networks, NonZeroU32::MIN);
        let peer = store.add_peer(&session, &new, networks, limit, Now::read().wall).await.unwrap();
        let (socket, gateway) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), self.door.identity.public());
        socket.connect(self.address).await.unwrap();
        let client = Client::new(private, gateway, *peer.preshared_key.expose());
        let mut peer = Peer { client, socket, address: peer.addresses.v4, pings: 0 };
        peer.shake_hands().await;
        peer
    }

    /// Where a host is inside the tunnels.
    async fn address_of(&self, host: &str) -> Ipv4Addr {
        let host: Host = host.parse().unwrap();
        let found = async {
            loop {
                if let Some(addresses) = self.door.book.load().addresses_of(&host) {
                    return addresses.v4;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, found).await.expect("the hosts have addresses")
    }
}

/// An app with a device.
struct Peer {
    client: Client,
    socket: UdpSocket,
    address: Ipv4Addr,
    pings: u16,
}

impl Peer {
    /// The gateway may not have heard of the peer yet.
    async fn shake_hands(&mut self) {
        let shaking = async {
            loop {
                let initiation = self.client.initiation();
                self.socket.send(&initiation).await.unwrap();
                if let Some(response) = self.datagram().await {
                    let keepalive = self.client.take(&response);
                    self.socket.send(&keepalive).await.unwrap();
                    return;
                }
            }
        };
        timeout(PATIENCE, shaking).await.expect("a handshake");
    }

    async fn datagram(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; DATAGRAM_MAX];
        let len = timeout(AGAIN, self.socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(buffer[..len].to_vec())
    }

    async fn send(&mut self, packet: &[u8]) {
        let datagram = self.client.wrap(packet);
        self.socket.send(&datagram).await.unwrap();
    }

    /// Asks the gateway's own address for an echo until it comes: whatever was sent before has been taken in then.
    async fn ping(&mut self) {
        self.pings += 1;
        let ping = echo_request(self.address, self.pings);
        let asking = async {
            loop {
                self.send(&ping).await;
                while let Some(datagram) = self.datagram().await {
                    let packet = self.client.take(&datagram);
                    // An echo reply with this number.
                    if packet.get(20) == Some(&0) && packet.get(26..28) == Some(&self.pings.to_be_bytes()) {
                        return;
                    }
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("an echo");
    }
}

/// The checksum of the internet (RFC 1071).
fn checksum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

fn echo_request(from: Ipv4Addr, number: u16) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 1];
    message.extend(number.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    ipv4(1, from, Networks::default().gateway().v4, &message)
}

/// A segment without octets; its number is that of the connection's first, and `after`.
fn segment(from: Ipv4Addr, port: u16, to: Ipv4Addr, after: u8, flags: u8) -> Vec<u8> {
    let mut segment = port.to_be_bytes().to_vec();
    segment.extend([0, 7, 0, 0, 0, 1 + after, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 6, 0, 20], &segment].concat();
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum);
    ipv4(6, from, to, &segment)
}

/// A port that takes no connection and refuses none: its queue is full.
struct Silent {
    address: SocketAddr,
    _listener: AnySocket,
    _queue: Vec<AnySocket>,
}

impl Silent {
    fn new() -> Self {
        let listener = AnySocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let knock = || {
            let socket = AnySocket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // Under way is as good as there.
            _ = socket.connect(&address);
            socket
        };
        let queue = (0..8).map(|_| knock()).collect();
        Self { address: address.as_socket().unwrap(), _listener: listener, _queue: queue }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_flood_the_socket_get_cookies_and_take_nothing_of_a_peer() {
    let gateway = Gateway::open(([127, 0, 0, 1], 9).into()).await;
    let mut alice = gateway.peer("alice", [1; 32]).await;
    let mut strangers = Vec::new();
    for host in 2..10 {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).await.unwrap();
        socket.connect(gateway.address).await.unwrap();
        strangers.push(socket);
    }
    // They know the public key of the gateway, as everybody may, and no more.
    let initiation = Client::new(STRANGER, gateway.door.identity.public(), [0; 32]).initiation();
    let before = gateway.door.waiting.available_permits();
    let (mut sent, mut cookies, began) = (0_u64, 0_u64, Now::read().monotonic);
    for _ in 0..100 {
        for socket in &strangers {
            for _ in 0..10 {
                socket.send(&initiation).await.unwrap();
                sent += 1;
            }
            let mut reply = [0; DATAGRAM_MAX];
            while let Ok(len) = socket.try_recv(&mut reply) {
                assert_eq!((reply[0], len), (3, COOKIE_REPLY));
                cookies += 1;
            }
        }
        alice.ping().await;
    }
    let seconds = Now::read().monotonic.duration_since(began).as_secs() + 2;
    let counted = &gateway.door.drops.datagrams;
    assert!(cookies > 0 && counted.of(Dropped::CookieSent) >= cookies);
    // Few of them cost a look at their key.
    let looked_at = counted.of(Dropped::UnknownKey);
    let most = HANDSHAKES_PER_SECOND + u64::from(HANDSHAKES_PER_ADDRESS);
    assert!(looked_at <= seconds * most, "{looked_at} of {sent} in {seconds} s");
    assert_eq!(counted.of(Dropped::QueueFull), 0);
    let given_back = async {
        while gateway.door.waiting.available_permits() != before {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, given_back).await.expect("nothing of them is kept");
    assert_eq!(gateway.door.workers.len(), 1, "and none of them has a task");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_65_000_half_open_connections_has_256_and_disturbs_nobody() {
    const SYNS: u16 = 65_000;
    let silent = Silent::new();
    let gateway = Gateway::open(silent.address).await;
    let (mut mallory, mut bob) = (gateway.peer("mallory", [1; 32]).await, gateway.peer("bob", [2; 32]).await);
    let to = gateway.address_of(SILENT).await;
    let idle = gateway.doors.lifetime.tracker.len();
    for port in 1..=SYNS {
        let packet = segment(mallory.address, port, to, 0, SYN);
        mallory.send(&packet).await;
        // Half of them are given up at once, which makes no room for others.
        if port % 2 == 0 {
            let packet = segment(mallory.address, port, to, 1, RST);
            mallory.send(&packet).await;
        }
        // No more than its socket holds.
        if port % 100 == 0 {
            mallory.ping().await;
            // Who is done may not have left yet.
            let at_work = gateway.doors.lifetime.tracker.len().saturating_sub(idle);
            assert!(at_work <= HALF_OPEN_MAX + 32, "{at_work} wait for the app");
        }
        if port % 5_000 == 0 {
            bob.ping().await;
        }
    }
    let dropped = gateway.door.drops.seen().packets().of(Refused::HalfOpenFull);
    assert!(dropped >= u64::from(SYNS) * 9 / 10, "{dropped} of {SYNS} are counted");
    bob.ping().await;
}
