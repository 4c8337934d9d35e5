//! What anybody sends to the WireGuard door: datagrams, some of them of a peer that is one, changed on the way or not.
//!
//! The input is a row of steps, each an octet that says what is sent, two that say where it is changed, and the length (two octets)
//! of what follows: the datagram itself, or the packet that the peer wraps.
#![no_main]

use std::net::SocketAddr;

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use pomerium_gateway::wireguard::{
    DATAGRAM_MAX, MTU,
    front::Front,
    peer::Peer,
    tunnel::{Identity, Index, Tunnel},
};
use pomerium_shared::{clock::Now, names::Addresses};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let now = Now::read().monotonic;
    let identity = Identity::new([7; 32], 2);
    let secret = StaticSecret::from([1; 32]);
    let public = PublicKey::from(&secret).to_bytes();
    let mut client = Tunn::new(secret, PublicKey::from(identity.public()), None, None, 1, None);
    let addresses = Addresses { v4: [100, 96, 0, 5].into(), v6: [0xfd; 16].into() };
    let mut peer = Peer::new(Tunnel::new(&identity, public, None, Index::new(77)), addresses);
    let mut front = Front::new(now);
    let mut rest = input;
    let mut step = 0;
    while let Some(([what, at, flip, high, low], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (octets, behind) = behind.split_at(len);
        rest = behind;
        let Some(mut datagram) = made(&mut client, *what, octets) else { continue };
        let is_changed = *flip != 0;
        if let Some(octet) = datagram.get_mut(usize::from(*at)) {
            *octet ^= flip;
        }
        let from = SocketAddr::from(([192, 0, 2, *what], 7));
        let mut cookie = [0; 64];
        // Whatever the front says, the peer must bear it.
        let _sorted = front.sort(&identity, &datagram, from, now, &mut cookie).is_ok();
        let _key = identity.initiator(&datagram).is_ok();
        let mut packet = [0; DATAGRAM_MAX];
        let before = peer.endpoint();
        let received = peer.receive(&datagram, from, &mut packet, now);
        if let Ok(Some(len)) = received {
            assert!(!is_changed || usize::from(*at) >= datagram.len(), "a changed datagram opens");
            let source = if packet[0] >> 4 == 4 { &packet[12..16] } else { &packet[8..24] };
            assert!(source == addresses.v4.octets() || source == addresses.v6.octets());
            assert!(len <= DATAGRAM_MAX);
        }
        if received.is_err() && peer.endpoint() != before {
            // It was the peer's own, with a packet in it that is not.
            assert!(!is_changed || usize::from(*at) >= datagram.len(), "a changed datagram moves the peer");
        }
        // What the two say to each other arrives: sessions are confirmed, and packets that waited leave.
        let replies: Vec<_> = peer.replies().collect();
        for reply in replies {
            let mut buffer = [0; DATAGRAM_MAX];
            let mut taken = client.decapsulate(None, &reply, &mut buffer);
            while let TunnResult::WriteToNetwork(answer) = taken {
                _ = peer.receive(answer, from, &mut packet, now);
                taken = client.decapsulate(None, &[], &mut buffer);
            }
        }
        step += 1;
        if step % 4 == 0 {
            let mut sealed = [0; DATAGRAM_MAX];
            _ = peer.seal(&octets[..octets.len().min(MTU)], &mut sealed, now);
            peer.tick(now);
        }
        while peer.next_event().is_some() {}
        assert!(front.remembered() <= 4096);
    }
});

/// A datagram of the client, or of nobody.
fn made(client: &mut Tunn, what: u8, octets: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = [0; DATAGRAM_MAX];
    let octets = &octets[..octets.len().min(MTU)];
    let written = match what & 3 {
        0 => client.format_handshake_initiation(&mut buffer, true),
        1 => client.encapsulate(octets, &mut buffer),
        2 => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 100, 96, 0, 5, 100, 64, 0, 7];
            packet.extend_from_slice(&octets[..octets.len().min(MTU - 20)]);
            let len = u16::try_from(packet.len()).ok()?;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            client.encapsulate(&packet, &mut buffer)
        }
        _ => return Some(octets.to_vec()),
    };
    let TunnResult::WriteToNetwork(datagram) = written else { return None };
    Some(datagram.to_vec())
}
