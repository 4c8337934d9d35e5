//! Against a server that answers, refuses, lies, is silent or hangs up.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pomerium_shared::clock::Now;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use url::Url;

use super::{
    messages::{DECIDE_PATH, Evaluation, Subject},
    *,
};
use crate::authorize::Verdict;

const SECRET: [u8; 32] = [7; 32];

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Allows,
    Denies,
    /// An answer that says nothing.
    SaysNothing,
    /// Yes, to somebody else.
    AnswersAnother,
    /// Yes, but a part is missing.
    LeavesOutDeny,
    /// Yes, for a reason of another release.
    HasUnknownReason,
    /// No message at all.
    SendsRubbish,
    /// A web page.
    SendsPage,
    /// An answer that has no end.
    SendsTooMuch,
    Refuses(Code),
    Silent,
    HangsUp,
}

/// A server on a port of its own.
struct Server {
    url: Url,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Server {
    async fn start(manner: Manner) -> Self {
        Self::start_over(manner, None).await
    }

    async fn start_over(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (manner, asked) = (Arc::new(Mutex::new(manner)), Arc::new(AtomicUsize::new(0)));
        let mut accepting = JoinSet::new();
        let (behaves, counts) = (manner.clone(), asked.clone());
        accepting.spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                if *behaves.lock().unwrap() == Manner::HangsUp {
                    counts.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let (behaves, counts, tls) = (behaves.clone(), counts.clone(), tls.clone());
                conversations.spawn(async move {
                    match tls {
                        None => converse(stream, behaves, counts).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, behaves, counts).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, manner, asked, _accepting: accepting }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        asked.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.uri().path(), DECIDE_PATH);
        assert!(request.headers()["authorization"].to_str().unwrap().starts_with("Bearer ey"));
        let manner = *manner.lock().unwrap();
        async move { Ok::<_, Infallible>(answer(manner).await) }
    });
    // The end of the connection is seen by the other side.
    let _end = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(manner: Manner) -> Response<Body> {
    let evaluation = |value, reasons: &[&str]| {
        Some(Evaluation { value, reasons: reasons.iter().map(|code| (*code).to_owned()).collect() })
    };
    let yes = DecideResponse {
        request_id: "r1".to_owned(),
        route_id: "route".to_owned(),
        allow: evaluation(true, &["email-ok"]),
        deny: evaluation(false, &[]),
        turns_in_ms: Some(1_500),
        ..DecideResponse::default()
    };
    match manner {
        Manner::Allows => message(&yes),
        Manner::Denies => message(&DecideResponse {
            allow: evaluation(false, &["email-unauthorized"]),
            traces: vec!["email: no".to_owned()],
            remedies: vec!["Ask.".to_owned()],
            turns_in_ms: None,
            ..yes
        }),
        Manner::SaysNothing => message(&DecideResponse::default()),
        Manner::AnswersAnother => message(&DecideResponse { request_id: "r2".to_owned(), ..yes }),
        Manner::LeavesOutDeny => message(&DecideResponse { deny: None, ..yes }),
        Manner::HasUnknownReason => {
            message(&DecideResponse { allow: evaluation(true, &["moon-phase-ok"]), ..yes })
        }
        Manner::SendsRubbish => framed(Bytes::from_static(b"\xff\xff\xff\xff rubbish")),
        Manner::SendsTooMuch => message(&DecideResponse { traces: vec!["x".repeat(4 * 1024 * 1024)], ..yes }),
        Manner::SendsPage => {
            let mut response = Response::new(Body::new(Full::from("<html>welcome</html>")));
            *response.status_mut() = StatusCode::OK;
            response
        }
        Manner::Refuses(code) => tonic::Status::new(code, "not now").into_http(),
        Manner::Silent | Manner::HangsUp => std::future::pending().await,
    }
}

fn message(answer: &DecideResponse) -> Response<Body> {
    framed(prost::Message::encode_to_vec(answer).into())
}

/// One message of gRPC, and the trailers that say that all is well.
fn framed(octets: Bytes) -> Response<Body> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(octets.len()).unwrap().to_be_bytes());
    frame.extend(octets);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from(frame)), Frame::trailers(trailers)];
    let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn service(urls: &[&Url]) -> AuthorizeService {
    AuthorizeService {
        urls: urls.iter().map(|url| (*url).clone()).collect(),
        timeout: Duration::from_secs(60),
        roots: None,
        certificate_name: None,
    }
}

fn remote(servers: &[&Server]) -> RemoteAuthorize {
    let urls: Vec<&Url> = servers.iter().map(|server| &server.url).collect();
    RemoteAuthorize::new(&service(&urls), Secret::new(SECRET)).unwrap()
}

fn question() -> DecideRequest {
    DecideRequest {
        request_id: "r1".to_owned(),
        route_id: "route".to_owned(),
        client_ip: "192.0.2.1".to_owned(),
        subject: Some(Subject::Stream("ssh.corp.example:22".to_owned())),
        ..DecideRequest::default()
    }
}

#[tokio::test]
async fn an_answer_comes_across_with_all_that_it_says() {
    let server = Server::start(Manner::Allows).await;
    let remote = remote(&[&server]);
    let yes = remote.decide(&question()).await.unwrap();
    assert_eq!(yes.decision.verdict(), Verdict::Allow);
    assert_eq!(yes.turns_in, Some(Duration::from_millis(1_500)));
    server.behave(Manner::Denies);
    let no = remote.decide(&question()).await.unwrap();
    assert_eq!(no.decision.verdict(), Verdict::Deny { status: 403 });
    assert_eq!(no.decision.visible_reasons().to_string(), "email-unauthorized");
    assert_eq!((no.traces, no.remedies), (vec!["email: no".to_owned()], vec!["Ask.".to_owned()]));
}

#[tokio::test]
async fn what_is_no_answer_to_the_question_decides_nothing_and_is_asked_nowhere_else() {
    for manner in [
        Manner::SaysNothing,
        Manner::AnswersAnother,
        Manner::LeavesOutDeny,
        Manner::HasUnknownReason,
        Manner::SendsRubbish,
        Manner::SendsPage,
        Manner::SendsTooMuch,
        Manner::Refuses(Code::Unavailable),
        Manner::Refuses(Code::Unauthenticated),
        Manner::Refuses(Code::FailedPrecondition),
    ] {
        let (one, other) = (Server::start(manner).await, Server::start(manner).await);
        let why = remote(&[&one, &other]).decide(&question()).await.unwrap_err();
        assert!(matches!(why, NoAnswer::Nonsense { .. } | NoAnswer::Refused { .. }), "{manner:?}: {why}");
        assert_eq!(one.asked() + other.asked(), 1, "{manner:?}");
    }
}

#[tokio::test]
async fn who_is_silent_is_waited_for_as_long_as_configured_and_not_asked_twice() {
    let server = Server::start(Manner::Silent).await;
    let service = AuthorizeService { timeout: Duration::from_millis(300), ..service(&[&server.url]) };
    let remote = RemoteAuthorize::new(&service, Secret::new(SECRET)).unwrap();
    let why = remote.decide(&question()).await.unwrap_err();
    assert!(matches!(why, NoAnswer::TimedOut(_)), "{why}");
    assert!(server.asked() <= 1);
}

#[tokio::test]
async fn a_connection_that_fails_sends_the_question_to_the_next_address() {
    let (dead, live) = (Server::start(Manner::HangsUp).await, Server::start(Manner::Allows).await);
    let remote = remote(&[&dead, &live]);
    for asked in 1..=20 {
        remote.decide(&question()).await.unwrap();
        assert_eq!(live.asked(), asked);
    }
    assert!(dead.asked() >= 1, "each is asked first in turn");
}

#[tokio::test]
async fn several_addresses_share_the_questions() {
    let servers = [Server::start(Manner::Allows).await, Server::start(Manner::Denies).await];
    let remote = remote(&[&servers[0], &servers[1]]);
    for _ in 0..10 {
        remote.decide(&question()).await.unwrap();
    }
    assert_eq!(servers.each_ref().map(Server::asked), [5, 5]);
}

#[tokio::test]
async fn who_fails_again_and_again_is_left_alone_and_found_when_it_is_back() {
    let server = Server::start(Manner::HangsUp).await;
    let remote = remote(&[&server]);
    let mut last = remote.decide(&question()).await.unwrap_err();
    while !matches!(last, NoAnswer::LeftAlone) {
        assert!(matches!(last, NoAnswer::Connection { .. }), "{last}");
        last = remote.decide(&question()).await.unwrap_err();
    }
    server.behave(Manner::Allows);
    let limit = Now::read().monotonic + Duration::from_secs(60);
    while remote.decide(&question()).await.is_err() {
        assert!(Now::read().monotonic < limit, "it is never asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_question_that_is_refused_or_given_up_shuts_nobody_else_off() {
    let server = Server::start(Manner::Refuses(Code::FailedPrecondition)).await;
    let remote = remote(&[&server]);
    for _ in 0..20 {
        let why = remote.decide(&question()).await.unwrap_err();
        assert!(matches!(why, NoAnswer::Refused { .. }), "{why}");
    }
    server.behave(Manner::Silent);
    for _ in 0..20 {
        let asked = server.asked();
        let question = question();
        let mut asking = std::pin::pin!(remote.decide(&question));
        while server.asked() == asked {
            assert!(futures_util::poll!(asking.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    server.behave(Manner::Allows);
    remote.decide(&question()).await.unwrap();
}

#[tokio::test]
async fn over_tls_only_the_named_service_of_the_named_authority_is_believed() {
    let made = rcgen::generate_simple_self_signed(vec!["authorize.corp.test".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["authorize.corp.test".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(pomerium_shared::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let server = Server::start_over(Manner::Allows, Some(Arc::new(tls).into())).await;
    let ask = async |root: &CertificateDer<'static>, name: Option<&str>| {
        let service = AuthorizeService {
            roots: Some(vec![root.clone()]),
            certificate_name: name.map(str::to_owned),
            ..service(&[&server.url])
        };
        RemoteAuthorize::new(&service, Secret::new(SECRET)).unwrap().decide(&question()).await
    };
    let name = "authorize.corp.test";
    ask(made.cert.der(), Some(name)).await.unwrap();
    for (what, root, name) in [
        ("another authority", other.cert.der(), Some(name)),
        ("another name", made.cert.der(), Some("proxy.corp.test")),
        ("the name of the URL", made.cert.der(), None),
    ] {
        let why = ask(root, name).await.unwrap_err();
        assert!(matches!(why, NoAnswer::Connection { .. }), "{what}: {why}");
    }
    assert_eq!(server.asked(), 1);
}
