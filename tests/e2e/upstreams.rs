//! Several apps behind one route: how they share the work, and what people see when one of them fails.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use support::{
    app::App,
    authority::Authority,
    gateway::{Gateway, Route},
    http::{Page, raw},
    person::Person,
    wait,
    worker::Worker,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

const HOST: &str = "app.localhost";
const EVERYBODY: &str = "[{allow: {and: [{accept: true}]}}]";

/// A route for everybody to the apps at these places.
fn route(to: &[String]) -> Route {
    Route::web(HOST, "").to(&format!("['{}']", to.join("', '"))).policy(EVERYBODY)
}

fn http(worker: &Worker) -> String {
    format!("http://{}", worker.address)
}

struct Story {
    gateway: Gateway,
    stranger: Person,
}

impl Story {
    async fn begin(route: Route) -> Self {
        Self::begin_with(&[route]).await
    }

    async fn begin_with(routes: &[Route]) -> Self {
        let gateway = Gateway::start(routes).await.unwrap();
        let stranger = Person::new("stranger", &gateway.authority).unwrap();
        Self { gateway, stranger }
    }

    async fn send(&self, method: Method, body: &'static str) -> Page {
        let url = self.gateway.url(HOST).unwrap();
        Box::pin(self.stranger.request(method, &url, HeaderMap::new(), Bytes::from(body))).await.unwrap()
    }

    /// Who answers `count` requests, each of which must be answered well.
    async fn who_answers(&self, count: usize) -> BTreeMap<String, usize> {
        let mut who = BTreeMap::new();
        for _ in 0..count {
            let page = self.send(Method::GET, "").await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text());
            let name = page.text().split(' ').next().unwrap_or_default().to_owned();
            *who.entry(name).or_default() += 1;
        }
        who
    }
}

fn shares(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_share_the_work_by_weight_and_nobody_notices_that_one_dies() {
    let (ant, bee) = (Worker::start("ant").await.unwrap(), Worker::start("bee").await.unwrap());
    let story = Story::begin(route(&[format!("{},3", http(&ant)), format!("{},1", http(&bee))])).await;
    assert_eq!(story.who_answers(40).await, shares(&[("ant", 30), ("bee", 10)]));
    ant.end().await;
    assert_eq!(story.who_answers(40).await, shares(&[("bee", 40)]));
    // A body that no app has seen goes to the next one as well.
    for _ in 0..4 {
        let page = story.send(Method::POST, "an order").await;
        assert_eq!((page.status, &*page.text()), (StatusCode::OK, "bee HTTP/1.1"));
    }
    bee.end().await;
    let page = story.send(Method::GET, "").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.text().contains("cannot be reached"), "{}", page.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_takes_an_app_out_and_in_again() {
    let (ant, bee) = (Worker::start("ant").await.unwrap(), Worker::start("bee").await.unwrap());
    let check = "health_checks: [{interval: 50ms, timeout: 30s, unhealthy_threshold: 2, healthy_threshold: 2, \
                 http_health_check: {path: /healthz}}]";
    let story = Story::begin(route(&[http(&ant), http(&bee)]).with(check)).await;
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 5), ("bee", 5)]));

    ant.feel(false);
    let out = &["upstream is out", &http(&ant)];
    story.gateway.log().line_with(out).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("bee", 10)]));

    // What is known outlives a reload, which only adds another header.
    let changed = route(&[http(&ant), http(&bee)]).with(check).with("set_response_headers: {x-new: '1'}");
    story.gateway.write_routes(&[changed]).unwrap();
    let is_new = || async { story.send(Method::GET, "").await.headers.contains_key("x-new").then_some(()) };
    wait::until("the new configuration", is_new).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("bee", 10)]));

    bee.feel(false);
    story.gateway.log().line_with(&["upstream is out", &http(&bee)]).await.unwrap();
    let page = story.send(Method::GET, "").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.text().contains("out of service"), "{}", page.text());

    ant.feel(true);
    story.gateway.log().line_with(&["upstream is well again", &http(&ant)]).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 10)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_server_says_itself_how_it_is() {
    let (ant, bee) = (Worker::start("ant").await.unwrap(), Worker::start("bee").await.unwrap());
    let h2c = |worker: &Worker| format!("h2c://{}", worker.address);
    let check = "health_checks: [{interval: 50ms, timeout: 30s, unhealthy_threshold: 1, healthy_threshold: 1, \
                 grpc_health_check: {service_name: db}}]";
    let story = Story::begin(route(&[h2c(&ant), h2c(&bee)]).with(check)).await;
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 5), ("bee", 5)]));
    bee.feel(false);
    story.gateway.log().line_with(&["upstream is out", "the service is well"]).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 10)]));
    bee.feel(true);
    story.gateway.log().line_with(&["upstream is well again"]).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 5), ("bee", 5)]));
}

/// A server that only whoever shows `client` may speak to.
fn tls_for(authority: &Authority, client: &CertificateDer<'static>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client.clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(&authority.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&authority.key).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A server that anybody may speak to, over HTTP/1.1.
fn tls_server(authority: &Authority) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_file(&authority.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&authority.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// A certificate of the gateway's own, in `client.pem` and `client.key`.
fn client_certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["gateway".to_owned()]).unwrap();
    std::fs::write(folder.join("client.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("client.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_tls_is_trusted_by_its_own_authority_and_shown_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let client = client_certificate(folder.path());
    let app = Worker::start_with_tls("ant", tls_for(&authority, &client)).await.unwrap();
    let to = || route(&[format!("https://{}", app.address)]);
    let file = |key: &str, name: &str| format!("{key}: {}", folder.path().join(name).display());
    let trusting = || to().with(&file("tls_custom_ca_file", "ca.pem"));
    let whole = || {
        trusting()
            .with(&file("tls_client_cert_file", "client.pem"))
            .with(&file("tls_client_key_file", "client.key"))
    };
    let story = Story::begin(whole()).await;
    let page = story.send(Method::GET, "").await;
    assert_eq!((page.status, &*page.text()), (StatusCode::OK, "ant HTTP/2.0"));

    // Without a certificate of its own, without the authority, or under a wrong name the app is not reached.
    let wrong = [trusting(), to(), whole().with("tls_upstream_server_name: else.corp.example")];
    for (turn, wrong) in wrong.into_iter().enumerate() {
        let name = format!("wrong-{turn}");
        story
            .gateway
            .write_routes(&[wrong.with(&format!("set_response_headers: {{x-turn: {name}}}"))])
            .unwrap();
        let refused = || async {
            let page = story.send(Method::GET, "").await;
            (page.status != StatusCode::OK).then_some(page)
        };
        let page = wait::until(&name, refused).await.unwrap();
        assert!(page.status.is_server_error(), "{name}: {}", page.text());
        story.gateway.write_routes(&[whole()]).unwrap();
        let served = || async { (story.send(Method::GET, "").await.status == StatusCode::OK).then_some(()) };
        wait::until("the right configuration", served).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_route_allows_never_gets_to_its_app() {
    let app = App::start().await.unwrap();
    let limited = route(&[format!("http://{}", app.address)])
        .with("max_request_body_bytes: 100000")
        .with("max_request_header_bytes: 1000");
    let story = Story::begin(limited).await;
    let url = story.gateway.url(HOST).unwrap().join("/upload").unwrap();
    let upload = async |len: usize, headers: HeaderMap| {
        story.stranger.request(Method::POST, &url, headers, vec![b'x'; len].into()).await.unwrap()
    };
    let fits = upload(100_000, HeaderMap::new()).await;
    assert!(fits.status == StatusCode::OK && fits.text().contains("100000"), "{}", fits.text());
    let reached = app.requests();
    let body = upload(100_001, HeaderMap::new()).await;
    assert_eq!(body.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.text().contains("Send less"), "{}", body.text());
    let long = HeaderMap::from_iter([("x-long".parse().unwrap(), "x".repeat(1000).parse().unwrap())]);
    assert_eq!(upload(1, long).await.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(app.requests(), reached);

    // A body that does not say how long it is: it breaks off where it gets too long.
    let tls = story.gateway.authority.client_config(&[b"http/1.1"]).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000));
    let request = format!(
        "POST /upload HTTP/1.1\r\nHost: {HOST}:{}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n",
        story.gateway.port
    );
    let (head, _) = raw(&tls, story.gateway.port, HOST, &request).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
}

/// Answers each connection's first words by hand, with one of its own: an app that is no more than its socket.
async fn answer_with(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str, is_well: &AtomicBool) {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") && heard != b"PING" {
        let Ok(octet) = stream.read_u8().await else { return };
        heard.push(octet);
    }
    let said = match (heard == b"PING", is_well.load(Ordering::SeqCst)) {
        (true, true) => "well: PONG".to_owned(),
        (true, false) => "unwell".to_owned(),
        (false, _) => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len())
        }
    };
    // A client that leaves in the middle is its own affair.
    let _gone = stream.write_all(said.as_bytes()).await;
    let _gone = stream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_reached_at_sockets_of_the_file_system_with_tls_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let tls = TlsAcceptor::from(Arc::new(tls_server(&authority)));
    let (plain, secure) = (folder.path().join("plain.sock"), folder.path().join("secure.sock"));
    let (at_plain, at_secure) = (UnixListener::bind(&plain).unwrap(), UnixListener::bind(&secure).unwrap());
    let mut apps = JoinSet::new();
    apps.spawn(async move {
        while let Ok((stream, _)) = at_plain.accept().await {
            answer_with(stream, "plain", &AtomicBool::new(true)).await;
        }
    });
    apps.spawn(async move {
        while let Ok((stream, _)) = at_secure.accept().await {
            let Ok(stream) = tls.accept(stream).await else { continue };
            answer_with(stream, "secure", &AtomicBool::new(true)).await;
        }
    });
    let at = |scheme: &str, path: &Path| route(&[format!("{scheme}://{}", path.display())]);
    let trusting = at("https+unix", &secure)
        .with(&format!("tls_custom_ca_file: {}", folder.path().join("ca.pem").display()))
        .with("tls_server_name: app.localhost")
        .with("prefix: /secure");
    let distrusting =
        at("https+unix", &secure).with("tls_server_name: app.localhost").with("prefix: /unknown");
    let gone = at("unix", &folder.path().join("none.sock")).with("prefix: /none");
    let gateway = Gateway::start(&[trusting, distrusting, gone, at("unix", &plain)]).await.unwrap();
    let stranger = Person::new("stranger", &gateway.authority).unwrap();
    for (path, status, text) in
        [("/", 200, "plain"), ("/secure", 200, "secure"), ("/unknown", 502, ""), ("/none", 502, "")]
    {
        let page = stranger.get(&gateway.url(HOST).unwrap().join(path).unwrap()).await.unwrap();
        assert_eq!(page.status, status, "{path}: {}", page.text());
        assert!(text.is_empty() || page.text() == text, "{path}: {}", page.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_taken_only_where_the_route_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let app = Worker::start_with_tls("ant", tls_server(&authority)).await.unwrap();
    let to = [format!("https://{}", app.address)];
    let credulous = route(&to).with("tls_skip_verify: true").with("prefix: /credulous");
    let story = Story::begin_with(&[credulous, route(&to)]).await;
    for (path, status) in [("/credulous", 200), ("/", 502)] {
        let url = story.gateway.url(HOST).unwrap().join(path).unwrap();
        let page = story.stranger.get(&url).await.unwrap();
        assert_eq!(page.status, status, "{path}: {}", page.text());
    }
    story.gateway.log().line_with(&["tls_skip_verify", "trusts anyone"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_asked_in_its_own_words_over_tcp_how_it_is() {
    let mut apps = JoinSet::new();
    let mut places = Vec::new();
    let bee_is_well = Arc::new(AtomicBool::new(true));
    for (name, is_well) in [("ant", Arc::new(AtomicBool::new(true))), ("bee", bee_is_well.clone())] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        places.push(format!("http://{}", listener.local_addr().unwrap()));
        apps.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer_with(stream, name, &is_well).await;
            }
        });
    }
    // "PING" and "PONG".
    let check = "health_checks: [{interval: 50ms, timeout: 30s, unhealthy_threshold: 1, healthy_threshold: 1, \
                 tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '504f4e47'}]}}]";
    let story = Story::begin(route(&places).with(check)).await;
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 5), ("bee", 5)]));
    bee_is_well.store(false, Ordering::SeqCst);
    story.gateway.log().line_with(&["upstream is out", &places[1]]).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 10)]));
    bee_is_well.store(true, Ordering::SeqCst);
    story.gateway.log().line_with(&["upstream is well again", &places[1]]).await.unwrap();
    assert_eq!(story.who_answers(10).await, shares(&[("ant", 5), ("bee", 5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_people_share_the_connections_that_an_app_may_have() {
    const MAX: usize = 2;
    const PEOPLE: usize = 8;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (open.clone(), most.clone());
    let mut apps = JoinSet::new();
    apps.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (open, most) = (counted.clone(), peak.clone());
            connections.spawn(async move {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let service = service_fn(|_| async {
                    // Work takes its time: the others come meanwhile.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done")))
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that leaves in the middle is its own affair.
                let _gone = serving.await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let limit = format!("circuit_breaker_thresholds: {{max_connections: {MAX}}}");
    let story = Story::begin(route(&[format!("http://{address}")]).with(&limit)).await;
    let people = (0..PEOPLE).map(|_| async {
        for _ in 0..10 {
            let page = story.send(Method::GET, "").await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        }
    });
    futures_util::future::join_all(people).await;
    assert_eq!(most.load(Ordering::SeqCst), MAX);
}

/// CVE-2021-39162: HTTP/2's SETTINGS and GOAWAY (RFC 9113, 6.5 and 6.8), whatever is asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_says_goodbye_at_once_fails_its_own_requests_and_no_more() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let app = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = app.local_addr().unwrap();
    let mut rude = JoinSet::new();
    rude.spawn(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            let _gone = stream.write_all(&[&SETTINGS[..], &GOAWAY, &SETTINGS, &GOAWAY].concat()).await;
            let _rest = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let story = Story::begin(route(&[format!("h2c://{address}")])).await;
    for _ in 0..5 {
        let page = story.send(Method::GET, "").await;
        assert!(matches!(page.status.as_u16(), 502 | 503), "{}: {}", page.status, page.text());
    }
    let ping = story.gateway.url("localhost").unwrap().join("/ping").unwrap();
    assert_eq!(story.stranger.get(&ping).await.unwrap().status, StatusCode::OK);
}
