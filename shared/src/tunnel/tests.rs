//! Both ends of the tunnel over a real loopback connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    destination::Destination,
    problem::PROBLEM_LEN_MAX,
    quic,
    relay::{self, Leg, RelayEnd, RelayOptions},
    tls,
};

/// Far above what any step takes; reached only by a bug.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A gateway's and a client's end of one connection.
struct Pair {
    server: quinn::Connection,
    client: TunnelClient,
    tracker: TaskTracker,
    _endpoints: [quinn::Endpoint; 2],
}

fn endpoint(server: Option<quinn::ServerConfig>) -> quinn::Endpoint {
    let socket = quic::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, Arc::new(quinn::TokioRuntime))
        .unwrap()
}

pub(crate) async fn quic_pair() -> (quinn::Connection, quinn::Connection, [quinn::Endpoint; 2]) {
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

/// A connection whose requests `serve` answers one after another, each in its own task.
async fn pair<F, R>(serve: F) -> Pair
where
    F: Fn(Request<()>, ServerStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let (server, client, endpoints) = quic_pair().await;
    let tracker = TaskTracker::new();
    let streams = tracker.clone();
    let quic = server.clone();
    tracker.spawn(async move {
        let mut connection = accept(quic).await.unwrap();
        while let Ok(Some(resolver)) = connection.accept().await {
            let (request, stream) = request(resolver).await.unwrap();
            streams.spawn(serve(request, stream));
        }
    });
    let client = TunnelClient::handshake(client, &tracker).await.unwrap();
    Pair { server, client, tracker, _endpoints: endpoints }
}

fn ssh() -> Destination {
    "ssh.corp.example:22".parse().unwrap()
}

async fn open(client: &TunnelClient) -> Leg {
    match timeout(LIMIT, client.connect(&ssh(), HeaderMap::new())).await.unwrap().unwrap() {
        Connected::Open { leg, .. } => leg,
        Connected::Refused(response) => panic!("refused: {response:?}"),
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// An ssh client's socket and an app's, joined by client relay, tunnel and gateway relay.
struct Path {
    person: TcpStream,
    app: TcpStream,
    cut_gateway: oneshot::Sender<EndReason>,
    gateway_end: oneshot::Receiver<RelayEnd>,
    client_end: oneshot::Receiver<RelayEnd>,
    pair: Pair,
}

async fn cut_by(cut: oneshot::Receiver<EndReason>) -> EndReason {
    match cut.await {
        Ok(reason) => reason,
        Err(_never) => std::future::pending().await,
    }
}

async fn path(options: RelayOptions) -> Path {
    let (app, app_far) = tcp_pair().await;
    let (cut_gateway, cut) = oneshot::channel();
    let (gateway_done, gateway_end) = oneshot::channel();
    let parts = std::sync::Mutex::new(Some((app_far, cut, gateway_done)));
    let pair = pair(move |_request, mut stream| {
        let parts = parts.lock().unwrap().take();
        async move {
            let (app, cut, done) = parts.unwrap();
            stream.respond(Response::new(())).await.unwrap();
            let end = relay::run(stream.into_leg(), Leg::tcp(app), options, cut_by(cut)).await;
            let _ = done.send(end);
        }
    })
    .await;
    let (person, person_far) = tcp_pair().await;
    let leg = open(&pair.client).await;
    let (client_done, client_end) = oneshot::channel();
    pair.tracker.spawn(async move {
        let end =
            relay::run(Leg::tcp(person_far), leg, RelayOptions::default(), std::future::pending()).await;
        let _ = client_done.send(end);
    });
    Path { person, app, cut_gateway, gateway_end, client_end, pair }
}

#[tokio::test]
async fn each_direction_ends_by_itself_and_the_first_end_is_the_reason() {
    let mut path = path(RelayOptions::default()).await;
    path.person.write_all(b"question").await.unwrap();
    path.person.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(LIMIT, path.app.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"question");
    path.app.write_all(b"long answer").await.unwrap();
    path.app.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(LIMIT, path.person.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"long answer");
    let end = RelayEnd { reason: EndReason::Client, bytes_from_client: 8, bytes_from_app: 11 };
    assert_eq!(timeout(LIMIT, path.gateway_end).await.unwrap().unwrap(), end);
    assert_eq!(timeout(LIMIT, path.client_end).await.unwrap().unwrap(), end);
}

#[tokio::test]
async fn the_app_may_end_first() {
    let mut path = path(RelayOptions::default()).await;
    path.app.shutdown().await.unwrap();
    assert_eq!(timeout(LIMIT, path.person.read(&mut [0])).await.unwrap().unwrap(), 0);
    path.person.write_all(b"still here").await.unwrap();
    path.person.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(LIMIT, path.app.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"still here");
    assert_eq!(timeout(LIMIT, path.gateway_end).await.unwrap().unwrap().reason, EndReason::App);
}

#[tokio::test]
async fn a_cut_is_an_error_on_both_sides_and_its_reason_crosses_the_wire() {
    let mut path = path(RelayOptions::default()).await;
    path.app.write_all(b"half a dump").await.unwrap();
    let mut heard = [0; 11];
    timeout(LIMIT, path.person.read_exact(&mut heard)).await.unwrap().unwrap();
    path.cut_gateway.send(EndReason::Policy).unwrap();
    for side in [&mut path.person, &mut path.app] {
        let error = timeout(LIMIT, side.read(&mut [0; 64])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(timeout(LIMIT, path.gateway_end).await.unwrap().unwrap().reason, EndReason::Policy);
    assert_eq!(timeout(LIMIT, path.client_end).await.unwrap().unwrap().reason, EndReason::Policy);
}

#[tokio::test]
async fn an_idle_stream_is_cut() {
    let path = path(RelayOptions { idle: Some(Duration::from_millis(50)) }).await;
    assert_eq!(timeout(LIMIT, path.gateway_end).await.unwrap().unwrap().reason, EndReason::Idle);
    assert_eq!(timeout(LIMIT, path.client_end).await.unwrap().unwrap().reason, EndReason::Idle);
}

#[tokio::test]
async fn a_lost_connection_resets_the_app() {
    let mut path = path(RelayOptions::default()).await;
    path.pair.server.close(0_u32.into(), b"");
    let error = timeout(LIMIT, path.app.read(&mut [0; 64])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(timeout(LIMIT, path.gateway_end).await.unwrap().unwrap().reason, EndReason::Network);
    assert_eq!(timeout(LIMIT, path.client_end).await.unwrap().unwrap().reason, EndReason::Network);
}

#[tokio::test]
async fn many_megabytes_arrive_whole() {
    let mut path = path(RelayOptions::default()).await;
    let sent: Vec<u8> = (0..4_000_000_u32).map(|i| (i % 251) as u8).collect();
    let copy = sent.clone();
    path.pair.tracker.spawn(async move {
        path.app.write_all(&copy).await.unwrap();
        path.app.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    timeout(LIMIT, path.person.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert!(heard == sent);
}

#[tokio::test]
async fn a_dropped_leg_is_no_clean_end() {
    let pair = pair(|_request, mut stream| async move {
        stream.respond(Response::new(())).await.unwrap();
        // The answer arrived: a reset may overtake what was sent before it.
        stream.recv().await.unwrap().unwrap();
        drop(stream.into_leg());
    })
    .await;
    let leg = open(&pair.client).await;
    let (near, mut far) = tcp_pair().await;
    far.write_all(b"go").await.unwrap();
    let relay = relay::run(Leg::tcp(near), leg, RelayOptions::default(), std::future::pending());
    assert_eq!(timeout(LIMIT, relay).await.unwrap().reason, EndReason::Network);
    let mut heard = Vec::new();
    timeout(LIMIT, far.read_to_end(&mut heard)).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn two_hundred_streams_one_after_another_fit_one_connection() {
    let pair = pair(|request, mut stream| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!((request.uri().scheme(), request.uri().path_and_query()), (None, None));
        assert_eq!(request.uri().authority().unwrap().as_str(), "ssh.corp.example:22");
        stream.respond(Response::new(())).await.unwrap();
        while let Some(bytes) = stream.recv().await.unwrap() {
            stream.send(bytes).await.unwrap();
        }
        stream.finish().await.unwrap();
    })
    .await;
    for _ in 0..200 {
        let leg = open(&pair.client).await;
        let (near, mut far) = tcp_pair().await;
        let talk = async {
            far.write_all(b"ping").await.unwrap();
            far.shutdown().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let relay = relay::run(Leg::tcp(near), leg, RelayOptions::default(), std::future::pending());
        let (end, heard) = timeout(LIMIT, async { tokio::join!(relay, talk) }).await.unwrap();
        assert_eq!((end.reason, heard.as_slice()), (EndReason::Client, &b"ping"[..]));
    }
}

#[tokio::test]
async fn a_refusal_carries_its_problem_and_no_more_than_its_limit() {
    let pair = pair(|_request, mut stream| async move {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::FORBIDDEN;
        stream.respond(response).await.unwrap();
        // The client stops reading, and this fails, once it has enough.
        let _ = stream.send(Bytes::from(vec![b'x'; 40 * 1024 * 1024])).await;
    })
    .await;
    let answer = timeout(LIMIT, pair.client.connect(&ssh(), HeaderMap::new())).await.unwrap().unwrap();
    let Connected::Refused(response) = answer else { panic!("{answer:?}") };
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.body().len(), PROBLEM_LEN_MAX);
}

#[tokio::test]
async fn a_request_gets_its_answer_unless_it_is_too_long() {
    let pair = pair(|_request, mut stream| async move {
        let body = stream.recv().await.unwrap().unwrap();
        stream.respond(Response::new(())).await.unwrap();
        stream.send(body).await.unwrap();
        stream.finish().await.unwrap();
    })
    .await;
    for (len_max, fits) in [(5, true), (4, false)] {
        let request = Request::post("https://gateway.example/x").body(Bytes::from_static(b"hello")).unwrap();
        let answer = timeout(LIMIT, pair.client.request(request, len_max)).await.unwrap();
        match answer {
            Ok(response) => assert!(fits && response.body() == "hello"),
            Err(TunnelError::BodyTooLong { len_max: 4 }) => assert!(!fits),
            Err(error) => panic!("{error:?}"),
        }
    }
}
