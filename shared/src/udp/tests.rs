//! Flows from a program's socket to an app's, over QUIC and over a plain stream.

use std::time::Duration;

use http::{HeaderMap, Method, Response};
use tokio::{net::UdpSocket, sync::oneshot, time::timeout};
use tokio_util::task::TaskTracker;

use super::{datagrams::Datagrams, *};
use crate::{
    destination::Destination,
    reason::EndReason,
    relay::{Leg, RelayEnd, RelayOptions},
    tunnel::{
        Connected, Protocol, TunnelClient, accept, request,
        tests::{LIMIT, quic_pair},
    },
};

/// Two sockets that are connected to each other.
async fn udp_pair() -> (UdpSocket, UdpSocket) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    near.connect(far.local_addr().unwrap()).await.unwrap();
    far.connect(near.local_addr().unwrap()).await.unwrap();
    (near, far)
}

/// A program and an app, with both ends of a flow between them.
struct Path {
    program: UdpSocket,
    app: UdpSocket,
    cut: oneshot::Sender<EndReason>,
    client_end: oneshot::Receiver<RelayEnd>,
    gateway_end: oneshot::Receiver<RelayEnd>,
    tracker: TaskTracker,
}

impl Path {
    async fn between(client: Carriage, gateway: Carriage, tracker: TaskTracker) -> Self {
        let ((program, local), (app, remote)) = (udp_pair().await, udp_pair().await);
        let (cut, cutting) = oneshot::channel();
        let ((client_ends, client_end), (gateway_ends, gateway_end)) =
            (oneshot::channel(), oneshot::channel());
        tracker.spawn(async move {
            let never = std::future::pending();
            let end =
                run(client, Local::Connected(local), Near::Client, RelayOptions::default(), never).await;
            client_ends.send(end).unwrap();
        });
        tracker.spawn(async move {
            let cut = async { cutting.await.unwrap() };
            let end = run(gateway, Local::Connected(remote), Near::App, RelayOptions::default(), cut).await;
            gateway_ends.send(end).unwrap();
        });
        Self { program, app, cut, client_end, gateway_end, tracker }
    }

    async fn over_quic() -> Self {
        let (server, client, endpoints) = quic_pair().await;
        let tracker = TaskTracker::new();
        let (opened, open) = oneshot::channel();
        tracker.spawn(async move {
            let _endpoints = endpoints;
            let datagrams = Datagrams::new(server.clone());
            let mut connection = accept(server).await.unwrap();
            let resolver = connection.accept().await.unwrap().unwrap();
            let (request, mut stream) = request(resolver).await.unwrap();
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.extensions().get(), Some(&Protocol::ConnectUdp));
            assert_eq!(path::parse(request.uri().path()).unwrap().to_string(), "dns.corp.example:53");
            let flow = datagrams.flow(stream.id());
            stream.respond(Response::new(())).await.unwrap();
            opened.send(stream.into_carriage(flow)).unwrap();
            tokio::join!(datagrams.run(), async { while let Ok(Some(_)) = connection.accept().await {} });
        });
        let client = TunnelClient::handshake(client, &tracker).await.unwrap();
        let to: Destination = "dns.corp.example:53".parse().unwrap();
        let answer = timeout(LIMIT, client.connect_udp("localhost", &to, HeaderMap::new())).await.unwrap();
        let Connected::Open { leg, .. } = answer.unwrap() else { panic!("refused") };
        // The connection lives as long as its client.
        tracker.spawn(async move { client.ended().await });
        Self::between(leg, open.await.unwrap(), tracker).await
    }

    async fn over_a_stream() -> Self {
        let (client, gateway) = tokio::io::duplex(64 * 1024);
        let carriage = |stream| {
            let (reader, writer) = tokio::io::split(stream);
            Carriage { stream: Leg::io(reader, writer), flow: None }
        };
        Self::between(carriage(client), carriage(gateway), TaskTracker::new()).await
    }
}

/// Sends until it arrives: UDP may lose it.
async fn arrives(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) {
    let mut buffer = vec![0; PAYLOAD_LEN_MAX];
    let work = async {
        loop {
            from.send(payload).await.unwrap();
            let Ok(got) = timeout(Duration::from_millis(500), to.recv(&mut buffer)).await else { continue };
            assert_eq!(&buffer[..got.unwrap()], payload);
            return;
        }
    };
    timeout(LIMIT, work).await.unwrap();
}

#[tokio::test]
async fn payloads_of_all_sizes_cross_both_ways_over_either_carrier() {
    for path in [Path::over_quic().await, Path::over_a_stream().await] {
        // Nothing, what fits into a packet, what fits into none, and the longest of all on loopback.
        for len in [0, 1, 1100, 1500, 9000, 65_507] {
            let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            arrives(&path.program, &path.app, &payload).await;
            arrives(&path.app, &path.program, &payload).await;
        }
    }
}

#[tokio::test]
async fn a_cut_at_the_gateway_is_told_to_the_client() {
    let path = Path::over_quic().await;
    arrives(&path.program, &path.app, b"ping").await;
    path.cut.send(EndReason::Policy).unwrap();
    let gateway = timeout(LIMIT, path.gateway_end).await.unwrap().unwrap();
    let client = timeout(LIMIT, path.client_end).await.unwrap().unwrap();
    assert_eq!((gateway.reason, client.reason), (EndReason::Policy, EndReason::Policy));
    assert!(gateway.bytes_from_client >= 4 && client.bytes_from_client >= 4);
    drop(path.tracker);
}

#[tokio::test]
async fn what_is_no_capsule_ends_the_flow() {
    let (mut stranger, gateway) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(gateway);
    let carriage = Carriage { stream: Leg::io(reader, writer), flow: None };
    let (local, _app) = udp_pair().await;
    tokio::io::AsyncWriteExt::write_all(&mut stranger, &[0, 0xbf, 0xff, 0xff, 0xff]).await.unwrap();
    let never = std::future::pending();
    let ended = run(carriage, Local::Connected(local), Near::App, RelayOptions::default(), never);
    assert_eq!(timeout(LIMIT, ended).await.unwrap().reason, EndReason::Network);
}
