//! Datagrams: the same job as for streams, for what speaks UDP.

use std::{net::SocketAddr, time::Duration};

use support::{
    cli::{Cli, loopback_address},
    echo::{Echo, UdpEcho},
    gateway::{Gateway, Options, Route},
    process::Input,
    wait,
};
use tokio::net::UdpSocket;

const DESTINATION: &str = "echo.corp.test:7";

/// A program with a socket of its own that speaks to a local port.
async fn program(port: u16) -> UdpSocket {
    program_at(([127, 0, 0, 1], port).into()).await
}

async fn program_at(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket
}

/// Sends until the same comes back, as programs that speak UDP do.
async fn exchange(program: &UdpSocket, payload: &[u8]) -> anyhow::Result<()> {
    let mut buffer = vec![0; 65_535];
    let work = async {
        loop {
            program.send(payload).await?;
            let answer = tokio::time::timeout(Duration::from_secs(1), program.recv(&mut buffer)).await;
            // Late answers to what was sent before are no answers to this.
            match answer {
                Ok(Ok(len)) if buffer[..len] == *payload => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                _ => {}
            }
        }
    };
    wait::within("an answer", work).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn alices_datagrams_of_all_sizes_come_back_with_and_without_quic() {
    for more in ["", "codec_type: http1\n"] {
        let echo = UdpEcho::start().await.unwrap();
        let options = Options { more, ..Options::default() };
        let gateway = Gateway::start_with(&[Route::udp(DESTINATION, echo.address)], &options).await.unwrap();
        let cli = Cli::new(&gateway, "alice").unwrap();
        let (_client, port) = cli.listen_udp(DESTINATION).await.unwrap();
        let (first, second) = (program(port).await, program(port).await);
        for len in [1, 1000, 1400, 9000, 60_000] {
            exchange(&first, &vec![b'a'; len]).await.unwrap();
            exchange(&second, &vec![b'b'; len]).await.unwrap();
        }
        assert_eq!(echo.peers(), 2, "each program has a flow of its own");
        assert_eq!(cli.sign_ins(), 1);
        gateway.log().line_with(&["stream opened", DESTINATION]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bobs_datagrams_never_reach_the_app_and_he_is_told_why() {
    let echo = UdpEcho::start().await.unwrap();
    let gateway = Gateway::start(&[Route::udp(DESTINATION, echo.address)]).await.unwrap();
    let cli = Cli::new(&gateway, "bob").unwrap();
    let (client, port) = cli.listen_udp(DESTINATION).await.unwrap();
    let program = program(port).await;
    program.send(b"let me in").await.unwrap();
    client
        .output
        .find("why bob is refused", |line| line.contains("email-unauthorized").then_some(()))
        .await
        .unwrap();
    gateway.log().line_with(&["authorize check", "bob@corp.example", "\"allow\":false"]).await.unwrap();
    assert_eq!(echo.datagrams(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_ends_when_its_route_does_not_allow_it_any_more() {
    let echo = UdpEcho::start().await.unwrap();
    let route = Route::udp(DESTINATION, echo.address);
    let gateway = Gateway::start(std::slice::from_ref(&route)).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let (client, port) = cli.listen_udp(DESTINATION).await.unwrap();
    let program = program(port).await;
    exchange(&program, b"before").await.unwrap();

    gateway.write_routes(&[route.policy("[{allow: {and: [{email: {is: bob@corp.example}}]}}]")]).unwrap();
    gateway.reload().unwrap();
    gateway.log().line_with(&["stream ended", "\"reason\":\"policy\""]).await.unwrap();
    client.output.find("the reason", |line| line.contains("flow ended: policy").then_some(())).await.unwrap();
    let before = echo.datagrams();
    program.send(b"after").await.unwrap();
    client
        .output
        .find("the refusal", |line| line.contains("email-unauthorized").then_some(()))
        .await
        .unwrap();
    assert_eq!(echo.datagrams(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_opens_a_port_for_datagrams_beside_those_for_streams() {
    let (echo, tcp) = (UdpEcho::start().await.unwrap(), Echo::start().await.unwrap());
    let routes = [Route::udp(DESTINATION, echo.address), Route::tcp("tcp.corp.test:7", tcp.address)];
    let gateway = Gateway::start(&routes).await.unwrap();
    let cli = Cli::new(&gateway, "alice").unwrap();
    let client = cli.spawn(&["connect"], Input::None).unwrap();
    let address = loopback_address(&client, DESTINATION).await.unwrap();
    exchange(&program_at(address).await, b"ping").await.unwrap();
    let other = loopback_address(&client, "tcp.corp.test:7").await.unwrap();
    assert_ne!(address.ip(), other.ip(), "each has an address of its own");
}
