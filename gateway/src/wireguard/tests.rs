//! The core against a client of our own: boringtun's other end.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use boringtun::noise::TunnResult;
use pomerium_shared::{clock::Now, names::Addresses};
use proptest::prelude::*;

use super::{
    DATAGRAM_MAX,
    client::{Client, public},
    counters::Dropped,
    front::{Front, HANDSHAKES_PER_ADDRESS, HANDSHAKES_PER_SECOND},
    peer::{Event, Peer, TICK},
    table::Table,
    tunnel::{Admitted, HANDSHAKE, Identity, Index, NotAdmitted, Tunnel},
};

const GATEWAY: [u8; 32] = [7; 32];
const PRESHARED: [u8; 32] = [9; 32];

fn now() -> Instant {
    Now::read().monotonic
}

fn home() -> SocketAddr {
    ([192, 0, 2, 1], 40_000).into()
}

fn elsewhere() -> SocketAddr {
    ([198, 51, 100, 9], 50_000).into()
}

fn addresses() -> Addresses {
    Addresses { v4: [100, 96, 0, 5].into(), v6: "fd5a::5".parse().unwrap() }
}

/// Somebody who speaks to this gateway.
fn client_of(private: [u8; 32], gateway: &Identity) -> Client {
    Client::new(private, gateway.public(), PRESHARED)
}

fn identity() -> Identity {
    Identity::new(GATEWAY, HANDSHAKES_PER_SECOND)
}

fn peer(identity: &Identity, private: [u8; 32]) -> Peer {
    Peer::new(Tunnel::new(identity, public(private), Some(PRESHARED), Index::new(77)), addresses())
}

/// A gateway's peer and a client with a confirmed session.
fn connected() -> (Identity, Peer, Client) {
    let identity = identity();
    let mut peer = peer(&identity, [1; 32]);
    let mut client = client_of([1; 32], &identity);
    shake_hands(&mut peer, &mut client, home());
    assert_eq!(peer.next_event(), Some(Event::Up));
    (identity, peer, client)
}

fn shake_hands(peer: &mut Peer, client: &mut Client, from: SocketAddr) {
    let mut packet = [0; DATAGRAM_MAX];
    let initiation = client.initiation();
    assert_eq!(peer.receive(&initiation, from, &mut packet, now()), Ok(None));
    let response = peer.replies().next().unwrap();
    let keepalive = client.take(&response);
    assert_eq!(peer.receive(&keepalive, from, &mut packet, now()), Ok(None));
}

/// An IPv4 packet with nothing in it but its number.
fn packet_from(source: [u8; 4], number: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 21, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend([100, 64, 0, 7, number]);
    packet
}

fn own_packet(number: u8) -> Vec<u8> {
    packet_from([100, 96, 0, 5], number)
}

fn receive(peer: &mut Peer, datagram: &[u8], from: SocketAddr) -> Result<Option<Vec<u8>>, Dropped> {
    let mut packet = [0; DATAGRAM_MAX];
    let len = peer.receive(datagram, from, &mut packet, now())?;
    Ok(len.map(|len| packet[..len].to_vec()))
}

#[test]
fn packets_go_both_ways_once_hands_are_shaken() {
    let (_, mut peer, mut client) = connected();
    let up = client.wrap(&own_packet(1));
    assert_eq!(receive(&mut peer, &up, home()), Ok(Some(own_packet(1))));
    let mut datagram = [0; DATAGRAM_MAX];
    let len = peer.seal(&own_packet(2), &mut datagram, now()).unwrap().unwrap();
    assert_eq!(client.take(&datagram[..len]), own_packet(2));
}

#[test]
fn a_packet_waits_for_the_session_and_is_sent_when_it_is_there() {
    let (identity, mut silent, mut client) = connected();
    drop(silent.replies());
    let mut peer = peer(&identity, [1; 32]);
    let mut datagram = [0; DATAGRAM_MAX];
    let unknown = peer.seal(&own_packet(3), &mut datagram, now());
    assert_eq!(unknown, Err(Dropped::NoEndpoint), "nobody knows where it is");

    let initiation = client.initiation();
    assert_eq!(receive(&mut peer, &initiation, home()), Ok(None));
    let response = peer.replies().next().unwrap();
    let sealed = peer.seal(&own_packet(3), &mut datagram, now());
    assert_eq!(
        sealed,
        Ok(Some(HANDSHAKE)),
        "not confirmed yet: a session is asked for, and the packet waits"
    );
    let keepalive = client.take(&response);
    assert_eq!(receive(&mut peer, &keepalive, home()), Ok(None));
    let waited: Vec<_> = peer.replies().collect();
    assert_eq!(waited.len(), 1);
    assert_eq!(client.take(&waited[0]), own_packet(3));
}

#[test]
fn a_replayed_packet_is_dropped_and_does_not_move_the_peer() {
    let (_, mut peer, mut client) = connected();
    let datagram = client.wrap(&own_packet(1));
    assert_eq!(receive(&mut peer, &datagram, home()), Ok(Some(own_packet(1))));
    assert_eq!(receive(&mut peer, &datagram, elsewhere()), Err(Dropped::Replayed));
    assert_eq!(peer.endpoint(), Some(home()));
    assert_eq!(peer.next_event(), None);
}

#[test]
fn a_replayed_handshake_is_dropped_and_does_not_move_the_peer() {
    let identity = identity();
    let mut peer = peer(&identity, [1; 32]);
    let mut client = client_of([1; 32], &identity);
    let initiation = client.initiation();
    assert_eq!(receive(&mut peer, &initiation, home()), Ok(None));
    assert_eq!(peer.replies().count(), 1);
    assert_eq!(receive(&mut peer, &initiation, elsewhere()), Err(Dropped::Replayed));
    assert_eq!((peer.endpoint(), peer.replies().count()), (Some(home()), 0));
}

#[test]
fn a_peer_is_answered_where_it_spoke_last() {
    let (_, mut peer, mut client) = connected();
    let datagram = client.wrap(&own_packet(1));
    assert_eq!(receive(&mut peer, &datagram, elsewhere()), Ok(Some(own_packet(1))));
    assert_eq!(peer.endpoint(), Some(elsewhere()));
    assert_eq!(peer.next_event(), Some(Event::Moved));
}

#[test]
fn a_peer_that_speaks_from_everywhere_is_told_of_once_a_second_and_where_it_stayed() {
    let (_, mut peer, mut client) = connected();
    let start = now();
    let mut speaks = |from: SocketAddr, after: u64| {
        let datagram = client.wrap(&own_packet(1));
        let at = start + Duration::from_millis(after);
        peer.receive(&datagram, from, &mut [0; DATAGRAM_MAX], at).unwrap();
        assert_eq!(peer.endpoint(), Some(from), "it is answered there all the same");
        peer.next_event()
    };
    let told = (0..100).filter_map(|after| speaks(if after % 2 == 0 { elsewhere() } else { home() }, after));
    assert_eq!(told.collect::<Vec<_>>(), [Event::Moved]);
    assert_eq!(speaks(elsewhere(), 1_000), None, "that is known");
    assert_eq!(speaks(home(), 1_001), Some(Event::Moved));
    assert_eq!(speaks(home(), 9_000), None);
}

#[test]
fn a_packet_from_an_address_that_is_not_the_peers_is_dropped() {
    let (_, mut peer, mut client) = connected();
    for source in [[100, 96, 0, 6], [10, 0, 0, 1], [0, 0, 0, 0]] {
        let datagram = client.wrap(&packet_from(source, 1));
        assert_eq!(receive(&mut peer, &datagram, home()), Err(Dropped::ForeignSource));
    }
    let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    v6.extend("fd5a::6".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v6.extend([0; 16]);
    let datagram = client.wrap(&v6);
    assert_eq!(receive(&mut peer, &datagram, home()), Err(Dropped::ForeignSource));
    let datagram = client.wrap(b"no packet at all");
    assert_eq!(receive(&mut peer, &datagram, home()), Err(Dropped::NotIp));
}

#[test]
fn a_counter_at_its_end_is_dropped_before_it_is_counted_with() {
    let (_, mut peer, mut client) = connected();
    let mut datagram = client.wrap(&own_packet(1));
    for counter in [u64::MAX, u64::MAX - 1024, u64::MAX - (1 << 13)] {
        datagram[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(receive(&mut peer, &datagram, home()), Err(Dropped::Replayed));
    }
}

#[test]
fn the_wrong_preshared_key_and_the_wrong_index_open_nothing() {
    let identity = identity();
    let wrong = Tunnel::new(&identity, public([1; 32]), Some([8; 32]), Index::new(77));
    let mut peer = Peer::new(wrong, addresses());
    let mut client = client_of([1; 32], &identity);
    assert_eq!(receive(&mut peer, &client.initiation(), home()), Ok(None));
    let response = peer.replies().next().unwrap();
    let mut buffer = [0; DATAGRAM_MAX];
    let refused = client.tunn.decapsulate(None, &response, &mut buffer);
    assert!(matches!(refused, TunnResult::Err(_)), "the secret is in the response");
    assert_eq!(peer.next_event(), None);

    let (_, mut peer, mut client) = connected();
    let mut datagram = client.wrap(&own_packet(1));
    datagram[4] ^= 0x08;
    assert_eq!(receive(&mut peer, &datagram, home()), Err(Dropped::UnknownIndex));
}

#[test]
fn a_stranger_is_found_out_by_its_key() {
    let identity = identity();
    let mut table = Table::default();
    let index = table.free_index(|| u32::MAX);
    table.insert(public([1; 32]), index, "alice");
    let mut others = [u32::MAX, 5].into_iter();
    assert_ne!(table.free_index(|| others.next().unwrap()), index, "an index is one peer's");
    assert_eq!(table.of_index(index), Some(&"alice"));
    for (private, expected) in [([1; 32], Some(&"alice")), ([2; 32], None)] {
        let initiation = client_of(private, &identity).initiation();
        let key = identity.initiator(&initiation).unwrap();
        assert_eq!(table.of_key(&key), expected);
    }
    assert_eq!(identity.initiator(b"short"), Err(Dropped::Malformed));
}

/// What the front says of a datagram.
fn sorted(
    front: &mut Front,
    identity: &Identity,
    datagram: &[u8],
    from: SocketAddr,
) -> Result<Admitted, Dropped> {
    let mut cookie = [0; 64];
    match front.sort(identity, datagram, from, now(), &mut cookie) {
        Ok(admitted) => Ok(admitted),
        Err(NotAdmitted::Dropped(why)) => Err(why),
        Err(NotAdmitted::Cookie(reply)) => {
            assert_eq!(reply.len(), 64, "an answer is shorter than what it answers");
            Err(Dropped::CookieSent)
        }
    }
}

#[test]
fn a_flood_of_handshakes_is_answered_with_cookies_and_disturbs_no_other_peer() {
    // Few enough that the flood takes less than the second in which it is counted.
    let identity = Identity::new(GATEWAY, 20);
    let mut front = Front::new(now());
    let (_, mut peer, mut client) = connected();
    let initiation = client_of([3; 32], &identity).initiation();
    let (mut let_in, mut cookies) = (0, 0);
    for number in 0..20_000_u32 {
        let from = SocketAddr::from((number.to_be_bytes(), 7));
        match sorted(&mut front, &identity, &initiation, from) {
            Ok(_) => let_in += 1,
            Err(Dropped::CookieSent) => cookies += 1,
            Err(other) => panic!("{other}"),
        }
        if number % 100 == 0 {
            let datagram = client.wrap(&own_packet(1));
            assert!(matches!(sorted(&mut front, &identity, &datagram, home()), Ok(Admitted::For(_))));
            assert_eq!(receive(&mut peer, &datagram, home()), Ok(Some(own_packet(1))));
        }
    }
    assert!(let_in < 200 && cookies > 19_000, "{let_in} let in, {cookies} cookies");
    assert_eq!(front.remembered(), 0, "nothing is kept of who has not shown an address");
}

#[test]
fn who_shows_a_cookie_is_let_in_during_a_flood() {
    let identity = Identity::new(GATEWAY, 0);
    let mut front = Front::new(now());
    let mut client = client_of([1; 32], &identity);
    let mut cookie = [0; 64];
    let initiation = client.initiation();
    let Err(NotAdmitted::Cookie(reply)) = front.sort(&identity, &initiation, home(), now(), &mut cookie)
    else {
        panic!("no cookie");
    };
    client.take(reply);
    let again = client.initiation();
    assert_eq!(
        sorted(&mut front, &identity, &again, elsewhere()),
        Err(Dropped::CookieSent),
        "not its address"
    );
    assert_eq!(sorted(&mut front, &identity, &again, home()), Ok(Admitted::Initiation));
}

#[test]
fn an_address_that_has_shown_itself_has_so_many_handshakes_a_second() {
    let identity = Identity::new(GATEWAY, u64::MAX);
    let start = now();
    let mut front = Front::new(start);
    let initiation = client_of([1; 32], &identity).initiation();
    let mut cookie = [0; 64];
    let mut let_in = |from: SocketAddr, at: Instant, times: u64| {
        (0..times).filter(|_| front.sort(&identity, &initiation, from, at, &mut cookie).is_ok()).count()
            as u64
    };
    assert_eq!(let_in(home(), start, HANDSHAKES_PER_SECOND), HANDSHAKES_PER_SECOND, "there are few yet");
    let many = u64::from(HANDSHAKES_PER_ADDRESS);
    assert_eq!(let_in(home(), start, 2 * many), many);
    assert_eq!(let_in(elsewhere(), start, 10), 10, "another address has its own");
    let v6 = |host: u16| SocketAddr::from((std::net::Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, host), 7));
    assert_eq!((0..100).map(|host| let_in(v6(host), start, 1)).sum::<u64>(), many, "a host has a /64");
    assert_eq!(let_in(home(), start + Duration::from_secs(1), 10), 10, "the next second is another");
}

#[test]
fn a_peer_without_a_session_asks_for_no_timer() {
    let (identity, connected, _) = connected();
    assert!(connected.next_tick().is_some_and(|at| at <= now() + TICK));
    assert_eq!(peer(&identity, [1; 32]).next_tick(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_change_to_a_good_datagram_opens_or_moves_or_panics(
        kind in 0..3, at: prop::sample::Index, flip in 1_u8.., cut: Option<prop::sample::Index>,
    ) {
        let (identity, mut peer, mut client) = connected();
        let mut datagram = match kind {
            0 => client.initiation(),
            1 => client.wrap(&own_packet(1)),
            _ => client.wrap(&[]),
        };
        match cut {
            Some(cut) => datagram.truncate(cut.index(datagram.len())),
            None => {
                // The last part of a handshake is the cookie, which counts only when one was asked for.
                let cookie = if kind == 0 { 16 } else { 0 };
                let at = at.index(datagram.len() - cookie);
                datagram[at] ^= flip;
            }
        }
        let mut front = Front::new(now());
        let _sorted = sorted(&mut front, &identity, &datagram, elsewhere());
        let opened = receive(&mut peer, &datagram, elsewhere());
        prop_assert!(opened.is_err() , "{:?}", opened);
        prop_assert_eq!(peer.endpoint(), Some(home()));
        // And nothing is the worse for it.
        let good = client.wrap(&own_packet(2));
        prop_assert_eq!(receive(&mut peer, &good, home()), Ok(Some(own_packet(2))));
    }

    #[test]
    fn no_octets_at_all_panic(octets in proptest::collection::vec(any::<u8>(), 0..3000), kind in 0_u8..6) {
        let (identity, mut peer, _) = connected();
        let mut octets = octets;
        if octets.len() > 4 {
            octets[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        let mut front = Front::new(now());
        let from = SocketAddr::new(IpAddr::from([203, 0, 113, 1]), 1);
        if octets.len() > DATAGRAM_MAX {
            prop_assert_eq!(sorted(&mut front, &identity, &octets, from), Err(Dropped::Oversized));
        } else {
            let _sorted = sorted(&mut front, &identity, &octets, from);
        }
        prop_assert!(receive(&mut peer, &octets, from).is_err());
        let _key = identity.initiator(&octets);
        prop_assert_eq!(peer.endpoint(), Some(home()));
    }
}
