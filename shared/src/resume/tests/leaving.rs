//! Streams that one process leaves to the next.

use tokio::{
    net::{TcpListener, TcpStream},
    task::yield_now,
};

use super::*;
use crate::relay::{self, Left, Outcome, RelayOptions};

/// An app's connection, and the app.
async fn app() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// As the next process gets it.
fn carried_over(stream: &Suspended) -> Suspended {
    let mut octets = Vec::new();
    stream.write_octets(&mut octets).unwrap();
    let places = serde_json::from_slice(&serde_json::to_vec(&stream.places()).unwrap()).unwrap();
    Suspended::of(places, octets.into()).unwrap()
}

/// One process of the gateway, which leaves after the executor has gone round so often.
async fn process(client: Leg, app: Leg, rounds: u32) -> Outcome {
    let leave = async {
        for _ in 0..rounds {
            yield_now().await;
        }
    };
    relay::run_or_leave(client, app, RelayOptions::default(), std::future::pending(), leave).await
}

/// No more legs than the first of each process.
fn no_more() -> GatewayLegs {
    GatewayLegs(mpsc::channel(1).1)
}

#[tokio::test]
async fn octets_survive_one_process_after_the_other() {
    let (up, down) = (text(3_000_000, 0), text(2_000_000, 0x5a));
    let (connection, app_end) = app().await;
    let (to_client, client_legs) = mpsc::channel(1);
    let (of_client, of_gateway) = duplex(BUFFER_LEN);
    let client = new_end().to_gateway(leg_of(of_client), ClientLegs(client_legs));
    let processes = async {
        let (mut leg, mut app) = (new_end().to_client(leg_of(of_gateway), no_more()), Leg::tcp(connection));
        for number in 1.. {
            let left = match process(leg, app, number * number).await {
                Outcome::Left(left) => left,
                Outcome::Ended(end) => return (number, end),
            };
            let Left { stream, app: connection } = *left;
            // A process that nobody came back to leaves it as it was.
            let unused = End::of(carried_over(&stream), Budget::new(usize::MAX), WINDOW);
            let end = End::of(carried_over(&unused.suspend()), Budget::new(usize::MAX), WINDOW);
            let (of_client, of_gateway) = duplex(BUFFER_LEN);
            let (tell, told) = oneshot::channel();
            to_client.send((leg_of(of_client), tell)).await.unwrap();
            let received = told.await.unwrap();
            assert!(end.standing().can_go_on_from(received), "process {number} lost what was sent");
            let attached = Attached { leg: leg_of(of_gateway), received: Some(received) };
            (leg, app) = (end.back_to_client(attached, no_more()), Leg::tcp(connection));
        }
        unreachable!("it ends")
    };
    let (at_client, at_app, (processes, end)) =
        tokio::join!(exchange(client, up.clone()), exchange(Leg::tcp(app_end), down.clone()), processes);
    assert!(at_app.unwrap() == up && at_client.unwrap() == down);
    assert!(matches!(end.reason, EndReason::Client | EndReason::App), "{end:?}");
    assert!(processes > 3, "it was left {processes} times");
}

#[tokio::test]
async fn a_stream_is_left_while_its_client_is_away_and_while_its_app_takes_nothing() {
    let (connection, mut app_end) = app().await;
    let (of_client, of_gateway) = duplex(BUFFER_LEN);
    let (_bring, legs) = mpsc::channel(1);
    let leg = new_end().to_client(leg_of(of_gateway), GatewayLegs(legs));
    // More than the system takes for an app that reads nothing.
    let sent = text(16_000_000, 0);
    let mut octets = Chunks::default();
    frames::octets(Bytes::from(sent.clone()).into(), &mut octets);
    let framed = octets.copy_to_bytes(octets.remaining());
    let leave = async {
        let mut client = of_client;
        // Nothing more goes in when all between is full. Then the client is gone.
        let writing = tokio::time::timeout(Duration::from_secs(1), client.write_all(&framed));
        assert!(writing.await.is_err(), "somebody took all of it");
    };
    let left = relay::run_or_leave(
        leg,
        Leg::tcp(connection),
        RelayOptions::default(),
        std::future::pending(),
        leave,
    );
    let Outcome::Left(left) = left.await else { panic!("it was left") };
    let stream = carried_over(&left.stream);
    let places = stream.places();
    assert!(places.not_taken > 0, "{places:?}");
    let end = End::of(stream, Budget::new(usize::MAX), WINDOW);
    let (mut of_client, of_gateway) = duplex(BUFFER_LEN);
    let attached = Attached { leg: leg_of(of_gateway), received: Some(0) };
    let (client_leg, never) = (end.back_to_client(attached, no_more()), std::future::pending());
    let relay = relay::run(client_leg, Leg::tcp(left.app), RelayOptions::default(), never);
    let client = async {
        let mut said = [0; 9];
        of_client.read_exact(&mut said).await.unwrap();
        assert_eq!(said[0], 2, "it says how far octets have come");
        let received = usize::try_from(u64::from_be_bytes(said[1..].try_into().unwrap())).unwrap();
        let mut octets = Chunks::default();
        frames::octets(Bytes::copy_from_slice(&sent[received..]).into(), &mut octets);
        let writing = async {
            of_client.write_all(&octets.copy_to_bytes(octets.remaining())).await?;
            of_client.write_all(&frames::word(&frames::Frame::End)).await
        };
        let mut got = Vec::new();
        tokio::try_join!(writing, app_end.read_to_end(&mut got)).unwrap();
        assert!(got == sent, "{} octets came", got.len());
    };
    tokio::select! {
        _ended = relay => panic!("the app has not ended"),
        () = client => {}
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_or_over_is_not_left() {
    let (connection, _app) = app().await;
    let (_of_client, of_gateway) = duplex(BUFFER_LEN);
    let leg = new_end().to_client(leg_of(of_gateway), no_more());
    let (cut, leave) = (std::future::ready(EndReason::Policy), std::future::ready(()));
    let outcome = relay::run_or_leave(leg, Leg::tcp(connection), RelayOptions::default(), cut, leave).await;
    let Outcome::Ended(end) = outcome else { panic!("a revocation goes first") };
    assert_eq!(end.reason, EndReason::Policy);
}

#[test]
fn what_no_process_has_left_is_refused() {
    let whole = serde_json::json!({
        "received": 7, "client_ended": true, "not_taken": 2,
        "confirmed": 3, "sent": 5, "added": 6, "app_ended": false, "has_gap": false,
    });
    let read = |change: &[(&str, serde_json::Value)], octets: usize| {
        let mut places = whole.clone();
        for (name, value) in change {
            places[name] = value.clone();
        }
        Suspended::of(serde_json::from_value(places).unwrap(), vec![0; octets].into()).map(|_| ())
    };
    assert_eq!(read(&[], 5), Ok(()));
    for octets in [0, 1, 4, 6] {
        assert_eq!(read(&[], octets), Err(BadRecord), "{octets} octets");
    }
    for (name, value) in [
        ("sent", 2),
        ("sent", 7),
        ("added", 4),
        ("received", 0),
        ("added", u64::MAX),
        ("not_taken", u64::MAX),
    ] {
        assert_eq!(read(&[(name, value.into())], 5), Err(BadRecord), "{name} {value}");
    }
}
