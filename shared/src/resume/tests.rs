//! Two ends of a stream, and legs between them that are lost.

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::oneshot,
};

mod leaving;

use super::{ledger::KEPT_LEN_MAX, pipe::Batch, *};
use crate::{relay::LegError, tunnel::Chunks};

const WINDOW: Duration = Duration::from_secs(60);

/// A leg's own buffers.
const BUFFER_LEN: usize = 16 * 1024;

/// Brings the legs that a test makes to the client's end, which tells the gateway's how far octets came.
struct ClientLegs(mpsc::Receiver<(Leg, oneshot::Sender<u64>)>);

impl Attach for ClientLegs {
    async fn superseded(&mut self) {
        std::future::pending().await
    }

    async fn next(&mut self, received: u64) -> Result<Attached, EndReason> {
        let (leg, tell) = self.0.recv().await.ok_or(EndReason::ResumeFailed)?;
        let _gone = tell.send(received);
        Ok(Attached { leg, received: None })
    }
}

/// The same for the gateway's end.
struct GatewayLegs(mpsc::Receiver<(Leg, oneshot::Receiver<u64>)>);

impl Attach for GatewayLegs {
    async fn superseded(&mut self) {
        std::future::pending().await
    }

    async fn next(&mut self, _received: u64) -> Result<Attached, EndReason> {
        let (leg, told) = self.0.recv().await.ok_or(EndReason::ResumeFailed)?;
        let received = told.await.map_err(|_gone| EndReason::ResumeFailed)?;
        Ok(Attached { leg, received: Some(received) })
    }
}

fn new_end() -> End {
    End::new(Budget::new(usize::MAX), WINDOW)
}

fn leg_of(stream: DuplexStream) -> Leg {
    let (reader, writer) = tokio::io::split(stream);
    Leg::io(reader, writer)
}

/// Carries so many octets in each direction, then both ends find the leg gone.
async fn wire(one: DuplexStream, other: DuplexStream, octets: u64) {
    let (mut from_one, mut to_one) = tokio::io::split(one);
    let (mut from_other, mut to_other) = tokio::io::split(other);
    let up = async {
        let _ended = tokio::io::copy(&mut (&mut from_one).take(octets), &mut to_other).await;
        to_other.shutdown().await
    };
    let down = async {
        let _ended = tokio::io::copy(&mut (&mut from_other).take(octets), &mut to_one).await;
        to_one.shutdown().await
    };
    // The first direction that is through takes the other with it.
    tokio::select! {
        _done = up => {}
        _done = down => {}
    }
}

/// A new wire, its two legs, and what carries it.
fn new_wire(octets: u64) -> (Leg, Leg, impl Future<Output = ()>) {
    let ((one, at_one), (other, at_other)) = (duplex(BUFFER_LEN), duplex(BUFFER_LEN));
    (leg_of(one), leg_of(other), wire(at_one, at_other, octets))
}

fn text(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|place| (place % 251) as u8 ^ seed).collect()
}

/// Sends all of a text, ends, and reads to the end.
async fn exchange(mut leg: Leg, sent: Vec<u8>) -> Result<Vec<u8>, EndReason> {
    let ((source, sink), behind) = leg.parts();
    let sending = async {
        for piece in sent.chunks(10_007) {
            sink.write(&mut Bytes::copy_from_slice(piece).into()).await?;
        }
        sink.finish().await
    };
    let receiving = async {
        let mut all = Vec::new();
        while let Some(mut batch) = source.read().await? {
            all.extend_from_slice(&batch.copy_to_bytes(batch.remaining()));
        }
        Ok(all)
    };
    let both = async { tokio::try_join!(sending, receiving) };
    let both = tokio::select! {
        never = behind.go_on() => match never {},
        both = both => both,
    };
    let received = both.map(|((), all)| all).map_err(|error: LegError| error.reason(Side::App))?;
    leg.settle().await?;
    Ok(received)
}

#[tokio::test(start_paused = true)]
async fn octets_survive_the_legs_under_them() {
    let (up, down) = (text(900_000, 0), text(700_000, 0x5a));
    let (to_gateway, gateway_legs) = mpsc::channel(1);
    let (to_client, client_legs) = mpsc::channel(1);
    let (first_of_client, first_of_gateway, first) = new_wire(100_003);
    let client = new_end().to_gateway(first_of_client, ClientLegs(client_legs));
    let gateway = new_end().to_client(first_of_gateway, GatewayLegs(gateway_legs));
    let legs = async {
        first.await;
        for octets in (1..).map(|number: u64| number * number * 7_919) {
            let (of_client, of_gateway, wire) = new_wire(octets);
            let (tell, told) = oneshot::channel();
            // An end that is done takes no more.
            let _done = to_client.send((of_client, tell)).await;
            let _done = to_gateway.send((of_gateway, told)).await;
            wire.await;
        }
    };
    let exchanged = async { tokio::join!(exchange(client, up.clone()), exchange(gateway, down.clone())) };
    tokio::select! {
        () = legs => panic!("there are always more"),
        (at_client, at_gateway) = exchanged => {
            assert!(at_gateway.unwrap() == up && at_client.unwrap() == down);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_asks_for_again_ends_with_the_reason() {
    let (_no_more, legs) = mpsc::channel(1);
    let (first, far, wire) = new_wire(10);
    let leg = new_end().to_client(first, GatewayLegs(legs));
    let began = Instant::now();
    let (ended, ()) = tokio::join!(exchange(leg, text(5, 0)), async {
        wire.await;
        drop(far);
    });
    assert_eq!(ended, Err(EndReason::ResumeFailed));
    assert!(began.elapsed() >= WINDOW);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_told_with_its_reason() {
    let (_none, client_legs) = mpsc::channel(1);
    let (_none, gateway_legs) = mpsc::channel(1);
    let (of_client, of_gateway, wire) = new_wire(u64::MAX);
    let client = new_end().to_gateway(of_client, ClientLegs(client_legs));
    let gateway = new_end().to_client(of_gateway, GatewayLegs(gateway_legs));
    let (told, (), ()) =
        tokio::join!(exchange(client, text(5, 0)), gateway.cut_short(EndReason::Policy), wire);
    assert_eq!(told, Err(EndReason::Policy));
}

/// What an end makes of a peer that says `lines`, one leg after the other; each later leg comes with how far our octets came.
async fn told(lines: &[(u64, Vec<u8>)]) -> EndReason {
    let (bring, legs) = mpsc::channel(1);
    let (first, mut peer) = duplex(BUFFER_LEN);
    let mut leg = new_end().to_client(leg_of(first), GatewayLegs(legs));
    let peer = async {
        for (number, (received, line)) in lines.iter().enumerate() {
            if number > 0 {
                let (next, its_peer) = duplex(BUFFER_LEN);
                peer = its_peer;
                let (tell, told) = oneshot::channel();
                tell.send(*received).unwrap();
                bring.send((leg_of(next), told)).await.unwrap();
            }
            peer.write_all(line).await.unwrap();
            if number + 1 < lines.len() {
                peer.shutdown().await.unwrap();
            }
        }
        std::future::pending::<()>().await;
    };
    let ((source, sink), behind) = leg.parts();
    let reading = async {
        sink.write(&mut Bytes::from_static(b"hello").into()).await.unwrap();
        while let Ok(Some(_)) = source.read().await {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = peer => unreachable!("it waits"),
        () = reading => unreachable!("it waits"),
        ended = behind.end() => ended.expect_err("a peer that cheats"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cheats_ends_the_stream() {
    let confirm = |place: u64| frames::word(&frames::Frame::Confirm(place)).to_vec();
    let mut octets = Chunks::default();
    frames::octets(Bytes::from_static(b"x").into(), &mut octets);
    let octets = { octets }.copy_to_bytes(6).to_vec();
    let end = frames::word(&frames::Frame::End).to_vec();
    for (what, lines) in [
        ("confirms what was never sent", vec![(0, confirm(6))]),
        ("no frame", vec![(0, vec![0xff])]),
        ("goes on after its end", vec![(0, [end.clone(), octets].concat())]),
        ("ends twice", vec![(0, [end.clone(), end].concat())]),
        ("has more than was sent, over another leg", vec![(0, vec![]), (9, vec![])]),
    ] {
        assert_eq!(told(&lines).await, EndReason::ResumeFailed, "a peer that {what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_say_where_it_stands_ends_the_stream() {
    let (bring, legs) = mpsc::channel(1);
    let (first, peer) = duplex(BUFFER_LEN);
    let mut leg = new_end().to_gateway(leg_of(first), ClientLegs(legs));
    drop(peer);
    let (next, mut peer) = duplex(BUFFER_LEN);
    let (tell, _told) = oneshot::channel();
    bring.send((leg_of(next), tell)).await.unwrap();
    peer.write_all(&frames::word(&frames::Frame::End)).await.unwrap();
    assert_eq!(leg.parts().1.end().await, Err(EndReason::ResumeFailed));
}

/// Two ends over one leg each, and what each end keeps for the other.
fn pair(budget: &Budget) -> (Leg, Leg) {
    let (_none, client_legs) = mpsc::channel(1);
    let (_none, gateway_legs) = mpsc::channel(1);
    let (of_client, of_gateway) = duplex(BUFFER_LEN);
    let end = || End::new(budget.clone(), WINDOW);
    let client = end().to_gateway(leg_of(of_client), ClientLegs(client_legs));
    (client, end().to_client(leg_of(of_gateway), GatewayLegs(gateway_legs)))
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_budget_flows_all_the_same() {
    let (up, down) = (text(900_000, 0), text(700_000, 0x5a));
    let (client, gateway) = pair(&Budget::new(0));
    let (at_client, at_gateway) = tokio::join!(exchange(client, up.clone()), exchange(gateway, down.clone()));
    assert!(at_gateway.unwrap() == up && at_client.unwrap() == down);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_takes_nothing_or_says_nothing_is_told_from_one_that_is_gone() {
    for (what, len, is_gone) in [("takes nothing", 2 * BUFFER_LEN, false), ("says nothing", 5, true)] {
        let (_, legs) = mpsc::channel(1);
        let (first, _peer) = duplex(BUFFER_LEN);
        let mut client = new_end().to_gateway(leg_of(first), ClientLegs(legs));
        let ((_, sink), behind) = client.parts();
        sink.write(&mut Bytes::from(text(len, 0)).into()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(50), behind.end()).await;
        assert_eq!(ended.is_err(), !is_gone, "one that {what}: {ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ends_that_both_write_before_they_read_do_not_wait_for_each_other() {
    let (mut client, mut gateway) = pair(&Budget::new(usize::MAX));
    let len = 3 * KEPT_LEN_MAX;
    let ((from_gateway, to_gateway), behind_client) = client.parts();
    let ((from_client, to_client), behind_gateway) = gateway.parts();
    // The client writes everything before it reads; the gateway's app sends back what it gets.
    let one = async {
        for piece in text(len, 0).chunks(100_000) {
            to_gateway.write(&mut Bytes::copy_from_slice(piece).into()).await.unwrap();
        }
        let mut back = 0;
        while back < len {
            back += from_gateway.read().await.unwrap().unwrap().remaining();
        }
    };
    // Room for all of it: it is the app that has the memory.
    let (waiting, mut waits) = mpsc::channel(10_000);
    let takes = async {
        while let Some(batch) = from_client.read().await.unwrap() {
            waiting.send(batch).await.unwrap();
        }
    };
    let gives = async {
        while let Some(mut batch) = waits.recv().await {
            to_client.write(&mut batch).await.unwrap();
        }
    };
    tokio::select! {
        () = one => {}
        _never = behind_client.go_on() => unreachable!("it never ends"),
        _never = behind_gateway.go_on() => unreachable!("it never ends"),
        _ended = async { tokio::join!(takes, gives) } => unreachable!("the client is done first"),
    }
}

#[test]
fn what_waits_to_be_sent_again_is_given_up_for_nothing_before_the_peer_has_said_what_it_misses() {
    let mut state = State::new(Budget::new(10), Instant::now());
    assert!(state.add(&mut Bytes::from(text(10, 0)).into()));
    state.next(Instant::now());
    state.detach();
    state.attach(None).unwrap();
    assert!(!state.add(&mut Bytes::from_static(b"x").into()), "there is no room for more");
    let (mut batch, standing) =
        (Batch { octets: Chunks::default(), is_last: false }, CancellationToken::new());
    let over = state.take(frames::Frame::Confirm(4), &mut batch, &standing);
    assert_eq!(over, None, "octets 4 to 10 can be sent again");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_while_its_last_octets_are_delivered_has_no_clean_end() {
    let stream = Arc::new(Stream::new(State::new(Budget::new(10), Instant::now())));
    let (_batches, arriving) = mpsc::channel(BATCHES_MAX);
    let (reader, writer) = (PipeReader::new(None, arriving, Arc::clone(&stream)), PipeWriter::new(stream));
    let mut leg = Leg::pipe(reader, writer, std::future::ready(Err(EndReason::ResumeFailed)));
    let going_on = tokio::time::timeout(Duration::from_secs(1), leg.parts().1.go_on());
    assert!(going_on.await.is_err(), "the halves go on");
    assert_eq!(leg.settle().await, Err(EndReason::ResumeFailed));
}
