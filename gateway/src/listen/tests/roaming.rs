//! Clients that change their address under an open connection.

use std::net::UdpSocket;

use super::*;

#[tokio::test]
async fn a_stream_is_cut_when_its_client_moves_to_where_it_may_not_be() {
    let doors = Doors::open().await;
    let (endpoint, client) = doors.quic_from(None).await;
    let to = PLACE.parse().unwrap();
    let token = doors.token("walker", None).await;
    let mut headers = http::HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    let Connected::Open { leg, .. } = client.connect(&to, headers).await.unwrap() else {
        panic!("a client in its place was refused");
    };
    let (_app, _) = doors.app.accept().await.unwrap();
    let (local, mut person) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(local);
    let carried = relay::run(Leg::io(reader, writer), leg, RelayOptions::default(), std::future::pending());

    endpoint.rebind(UdpSocket::bind("127.0.0.2:0").unwrap()).unwrap();
    // The gateway learns of the move by the next packet.
    tokio::io::AsyncWriteExt::write_all(&mut person, b"still here?").await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), carried).await.unwrap();
    assert_eq!(end.reason, EndReason::Policy);
}
