//! How fast the tunnel is: plain TCP, a raw quinn stream and the tunnel with both its relays, over loopback in one
//! process, side by side. Run with `cargo run --release -p pomerium-shared --example tunnel_throughput`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark for people: it prints, and a failure ends it"
)]

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Response};
use pomerium_shared::{
    clock::Now,
    quic,
    relay::{self, Leg, RelayOptions},
    tls,
    tunnel::{self, Connected, TunnelClient},
};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

const MEGABYTES: usize = 512;
static BLOCK: [u8; 64 * 1024] = [7; 64 * 1024];
const BLOCKS: usize = MEGABYTES * 16;

#[tokio::main]
async fn main() {
    report("tcp", plain_tcp().await);
    report("quic", raw_quic().await);
    report("tunnel", through_tunnel().await);
}

fn report(name: &str, seconds: f64) {
    println!("{name:>8} {:>8.0} MiB/s", MEGABYTES as f64 / seconds);
}

async fn plain_tcp() -> f64 {
    let tasks = TaskTracker::new();
    let (near, far) = tcp_pair().await;
    tasks.spawn(fill(far));
    drain(near).await
}

async fn raw_quic() -> f64 {
    let tasks = TaskTracker::new();
    let (server, client, _endpoints) = quic_pair().await;
    tasks.spawn(async move {
        let mut stream = server.open_uni().await.unwrap();
        for _ in 0..BLOCKS {
            stream.write_all(&BLOCK).await.unwrap();
        }
        stream.finish().unwrap();
        server.closed().await;
    });
    drain(client.accept_uni().await.unwrap()).await
}

async fn through_tunnel() -> f64 {
    let tasks = TaskTracker::new();
    let (server, client, _endpoints) = quic_pair().await;
    let (app, app_far) = tcp_pair().await;
    tasks.spawn(fill(app));
    tasks.spawn(async move {
        let mut connection = tunnel::accept(server).await.unwrap();
        let coming = connection.accept().await.unwrap().unwrap();
        let (_, mut stream) = tunnel::request(coming).await.unwrap();
        stream.respond(Response::new(())).await.unwrap();
        let options = RelayOptions::default();
        let relay = relay::run(stream.into_leg(), Leg::tcp(app_far), options, std::future::pending());
        tokio::join!(relay, connection.accept()).1.ok();
    });
    let client = TunnelClient::handshake(client, &tasks).await.unwrap();
    let to = "bench.example:1".parse().unwrap();
    let answer = client.connect(&to, HeaderMap::new()).await.unwrap();
    let Connected::Open { leg, .. } = answer else { return f64::NAN };
    let (person, person_far) = tcp_pair().await;
    tasks.spawn(relay::run(Leg::tcp(person_far), leg, RelayOptions::default(), std::future::pending()));
    drain(person).await
}

async fn fill(mut to: TcpStream) {
    for _ in 0..BLOCKS {
        to.write_all(&BLOCK).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn drain(mut from: impl tokio::io::AsyncRead + Unpin) -> f64 {
    let start = Now::read().monotonic;
    let mut block = vec![0; 256 * 1024];
    while from.read(&mut block).await.unwrap() > 0 {}
    Now::read().monotonic.duration_since(start).as_secs_f64()
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn endpoint(server: Option<quinn::ServerConfig>) -> quinn::Endpoint {
    let socket = quic::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, Arc::new(quinn::TokioRuntime))
        .unwrap()
}

async fn quic_pair() -> (quinn::Connection, quinn::Connection, [quinn::Endpoint; 2]) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = key.cert.der().clone();
    let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let mut server_tls = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], private)
        .unwrap();
    server_tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert).unwrap();
    let server = endpoint(Some(quic::server_config(server_tls).unwrap()));
    let mut client = endpoint(None);
    client.set_default_client_config(quic::client_config(tls::client_config(roots, &[b"h3"])).unwrap());
    let connecting = client.connect(server.local_addr().unwrap(), "localhost").unwrap();
    let (accepted, connected) =
        tokio::join!(async { server.accept().await.unwrap().await.unwrap() }, connecting);
    (accepted, connected.unwrap(), [server, client])
}
