//! What a client's key is worth at each door: the same session, the same token, and other hands.

mod backpressure;
mod events;
mod frames;
mod grace;
mod mtls;
mod per_address;
mod protocols;
mod proxy_protocol;
mod raw_http3;
mod refused;
mod resume;
mod roaming;
mod silent_app;
mod stapling;
mod udp;
mod wire;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pomerium_shared::{
    clock::Now,
    posture::PostureReport,
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
    tls::{DEVICE_KEY_MARK, client_config},
    tunnel::{Connected, TunnelClient},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::{Lifetime, TlsKeys, Waits, https::Https, quic::Quic};
use crate::{
    authenticate::{Authenticate, AuthenticateConfig, LOGIN_PATH},
    config::{self, Codec, Settings},
    device::Thumbprint,
    proxy::{Live, Proxy},
    secret::Secret,
    session::{Session, SessionId, UserId, handle::HandleKey},
    store::{ProviderTokens, Store},
};

const HOST: &str = "app.corp.test";
const SECRET: [u8; 32] = [7; 32];
const ROUTES: &str = "/.pomerium/api/v1/routes";
const POSTURE: &str = "/.pomerium/api/v1/posture";
const REPORT: &str = r#"{"os":"linux","os_version":"12.5","firewall":true}"#;
const TUNNEL: &str = "db.corp.test:5432";

const PLACE: &str = "place.corp.test:5432";

/// A web app for everybody.
const OPEN: &str = "open.corp.test";

/// A gRPC app for everybody.
const RPC: &str = "rpc.corp.test";

/// A web app for everybody, which must be quick.
const BRIEF: &str = "brief.corp.test";

/// A web app that is not there, a TCP app that asks for a firewall, one for people in one place, and apps
/// for everybody.
fn configuration(app: SocketAddr, more: &str) -> String {
    format!(
        "{more}databroker_storage_type: memory
authenticate_service_url: https://auth.corp.test
certificates: [{{cert: cert.pem, key: key.pem}}]
idp_provider: oidc
idp_provider_url: https://id.corp.test
idp_client_id: gateway
idp_client_secret: hunter2
routes:
- from: https://{HOST}
  to: http://127.0.0.1:9
  allow_any_authenticated_user: true
- from: tcp+https://{TUNNEL}
  to: tcp://{app}
  policy:
  - allow:
      and:
      - posture/firewall: true
- from: tcp+https://{PLACE}
  to: tcp://{app}
  policy:
  - allow:
      and:
      - source_ip: 127.0.0.1
- from: https://{OPEN}
  to: http://{app}
  allow_public_unauthenticated_access: true
  allow_websockets: true
- from: https://{RPC}
  to: h2c://{app}
  allow_public_unauthenticated_access: true
  timeout: 0s
- from: https://{BRIEF}
  to: http://{app}
  allow_public_unauthenticated_access: true
  timeout: 1s
"
    )
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http1,
    Http2,
    Http3,
}

const WAYS: [Way; 3] = [Way::Http1, Way::Http2, Way::Http3];

/// A gateway with both doors, and nothing behind it.
pub(super) struct Doors {
    folder: TempDir,
    keys: TlsKeys,
    app: Arc<TcpListener>,
    address: SocketAddr,
    roots: RootCertStore,
    pub(super) store: Store,
    tracker: TaskTracker,
    pub(super) proxy: Arc<Proxy>,
    pub(super) lifetime: Lifetime,
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.lifetime.drain.cancel();
        self.lifetime.cut.cancel();
    }
}

/// A key with its certificate, as a client has it.
pub(super) struct Key {
    certificate: rcgen::Certificate,
    pair: rcgen::KeyPair,
}

impl Key {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        Self { certificate, pair }
    }

    fn thumbprint(&self) -> Thumbprint {
        Thumbprint::of(self.certificate.der())
    }
}

fn settings(folder: &TempDir, app: SocketAddr, more: &str) -> (Settings, RootCertStore) {
    let names = [HOST, OPEN, RPC, BRIEF, "auth.corp.test"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let loaded = config::parse(&configuration(app, more), "test.yaml", &|_| None, folder.path())
        .unwrap_or_else(|errors| panic!("{errors}"));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (loaded.settings, roots)
}

/// One port for both: that it is free for TCP does not say that it is for UDP.
async fn sockets() -> (TcpListener, SocketAddr, std::net::UdpSocket) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        if let Ok(socket) = pomerium_shared::quic::bind(address) {
            return (listener, address, socket);
        }
    }
}

impl Doors {
    async fn open() -> Self {
        Self::open_with(tempfile::tempdir().unwrap(), "").await
    }

    /// With more lines of configuration, about files in `folder`.
    pub(super) async fn open_with(folder: TempDir, more: &str) -> Self {
        Self::open_for(folder, more, Waits::USUAL).await
    }

    /// With less patience.
    async fn open_for(folder: TempDir, more: &str, waits: Waits) -> Self {
        let app = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (settings, roots) = settings(&folder, app.local_addr().unwrap(), more);
        let settings = Arc::new(settings);
        let store = Store::in_memory().await.unwrap();
        let authenticate = AuthenticateConfig {
            authenticate_url: settings.authenticate_url.clone(),
            signout_redirect_url: None,
            programmatic_redirect_domains: vec!["localhost".to_owned()],
            cookie: settings.cookie.clone(),
            identity_provider: settings.identity_provider.clone(),
            unreachable_grace: settings.longest_unreachable_grace(),
            workload_issuers: Vec::new(),
            device_proof_life: settings.device_proof_life,
            peer_terms: None,
            look: settings.look.clone(),
            extra_roots: Vec::new(),
            shared_secret: Secret::new(SECRET),
            cookie_secret: Secret::new(SECRET),
            is_our_host: Arc::new(|host| host.ends_with(".corp.test")),
            is_named_host: Arc::new(|host| host.ends_with(".corp.test")),
        };
        let authenticate = Arc::new(Authenticate::new(authenticate, store.clone()).unwrap());
        let keys = TlsKeys::new(&settings).unwrap();
        let live = Live::new(settings, &SECRET, authenticate).unwrap();
        let lifetime = Lifetime::new(waits);
        let proxy = Arc::new(Proxy::new(
            live,
            store.clone(),
            lifetime.tracker.clone(),
            lifetime.drain.clone(),
            lifetime.cut.clone(),
            lifetime.drain.clone(),
        ));
        let (listener, address, socket) = sockets().await;
        let https =
            Https::new(listener, &keys, Codec::All, Some(address.port()), proxy.clone(), lifetime.clone())
                .unwrap();
        lifetime.doors.spawn(https.run());
        lifetime.doors.spawn(
            Quic::new(socket, &keys, proxy.clone(), lifetime.clone(), &Secret::new(SECRET)).unwrap().run(),
        );
        Self { folder, keys, app, address, roots, store, tracker: TaskTracker::new(), proxy, lifetime }
    }

    /// The token of a session that has just begun.
    async fn token(&self, id: &str, bound_to: Option<&Key>) -> String {
        self.token_of("alice", id, bound_to).await
    }

    pub(super) async fn token_of(&self, user: &str, id: &str, bound_to: Option<&Key>) -> String {
        self.token_for(user, id, bound_to, Duration::from_secs(3600)).await
    }

    async fn token_for(&self, user: &str, id: &str, bound_to: Option<&Key>, life: Duration) -> String {
        let now = Now::read().wall;
        let session = Session {
            id: SessionId::new(id),
            user_id: UserId::new(user),
            idp_id: self.idp_id().await,
            email: "alice@corp.test".to_owned(),
            name: String::new(),
            groups: Vec::new(),
            claims: std::collections::BTreeMap::new(),
            issued_at: now,
            expires_at: now + life,
            bound_to: bound_to.map(Key::thumbprint),
            vouched_until: None,
            proof: None,
        };
        let tokens = ProviderTokens {
            access: Secret::new(String::new()),
            refresh: None,
            id_token: Secret::new(String::new()),
            access_expires_at: None,
        };
        self.store.put_session(&session, &tokens).await.unwrap();
        let key = HandleKey::new(SECRET, "auth.corp.test");
        key.mint(&session, &[HOST.to_owned()], now).unwrap().expose().clone()
    }

    /// What the gateway calls its identity provider, as it tells in its own sign-in URLs.
    async fn idp_id(&self) -> String {
        let path = format!("{LOGIN_PATH}?pomerium_redirect_uri=http://127.0.0.1:9/");
        let (_, url) = self.ask(Way::Http1, None, Method::GET, &path, "", "").await;
        let url: url::Url = url.parse().unwrap();
        url.query_pairs().find(|(name, _)| name == "pomerium_idp_id").unwrap().1.into_owned()
    }

    fn tls(&self, alpn: &[&[u8]], key: Option<&Key>) -> ClientConfig {
        let mut config = client_config(self.roots.clone(), alpn);
        if let Some(key) = key {
            let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pair.serialize_der()));
            let chain = vec![key.certificate.der().clone()];
            let provider = pomerium_shared::tls::provider();
            let certified = rustls::sign::CertifiedKey::from_der(chain, der, &provider).unwrap();
            config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        }
        config
    }

    /// One request on a connection of its own.
    async fn ask(
        &self,
        way: Way,
        key: Option<&Key>,
        method: Method,
        path: &str,
        token: &str,
        body: &str,
    ) -> (StatusCode, String) {
        let mut request =
            Request::builder().method(method).header(header::AUTHORIZATION, format!("Pomerium {token}"));
        if token.is_empty() {
            request = Request::builder();
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        let url = format!("https://{HOST}{path}");
        let response = match way {
            Way::Http3 => self.over_quic(key, request.uri(url).body(body).unwrap()).await,
            Way::Http2 => {
                let stream = self.tcp(&[b"h2", DEVICE_KEY_MARK], key).await;
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                        .await
                        .unwrap();
                self.tracker.spawn(connection);
                whole(sender.send_request(request.uri(url).body(Full::new(body)).unwrap()).await.unwrap())
                    .await
            }
            Way::Http1 => {
                let stream = self.tcp(&[b"http/1.1", DEVICE_KEY_MARK], key).await;
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
                self.tracker.spawn(connection);
                let request = request.uri(path).header(header::HOST, HOST).body(Full::new(body)).unwrap();
                whole(sender.send_request(request).await.unwrap()).await
            }
        };
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status(), text)
    }

    async fn tcp(&self, alpn: &[&[u8]], key: Option<&Key>) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.tcp_to(HOST, alpn, key).await
    }

    async fn tcp_to(
        &self,
        host: &'static str,
        alpn: &[&[u8]],
        key: Option<&Key>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.tls(alpn, key)));
        let stream = TcpStream::connect(self.address).await.unwrap();
        connector.connect(ServerName::try_from(host).unwrap(), stream).await.unwrap()
    }

    async fn over_quic(&self, key: Option<&Key>, request: Request<Bytes>) -> Response<Bytes> {
        self.quic(key).await.request(request, 64 * 1024).await.unwrap()
    }

    async fn quic(&self, key: Option<&Key>) -> TunnelClient {
        self.quic_from(key).await.1
    }

    async fn quic_from(&self, key: Option<&Key>) -> (quinn::Endpoint, TunnelClient) {
        let config = pomerium_shared::quic::client_config(self.tls(&[b"h3"], key)).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = endpoint.connect_with(config, self.address, HOST).unwrap().await.unwrap();
        (endpoint, TunnelClient::handshake(connection, &self.tracker).await.unwrap())
    }
}

async fn whole(response: Response<hyper::body::Incoming>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_bound_token_counts_with_its_own_key_only() {
    let doors = Doors::open().await;
    let (own, other) = (Key::new(), Key::new());
    let token = doors.token("bound", Some(&own)).await;
    for way in WAYS {
        let asked = |key| doors.ask(way, key, Method::GET, ROUTES, &token, "");
        assert_eq!(asked(Some(&own)).await.0, StatusCode::OK, "{way:?}");
        for thief in [None, Some(&other)] {
            let (status, problem) = asked(thief).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{way:?}");
            assert!(problem.contains("sign-in-required") && problem.contains("another device"), "{problem}");
        }
    }
}

#[tokio::test]
async fn browsers_are_told_to_come_by_tls_by_the_gateways_own_pages_and_refusals_too() {
    let doors = Doors::open().await;
    for path in ["/ping", "/.pomerium/callback/", "/.pomerium/none", "/"] {
        let request = Request::get(format!("https://{HOST}{path}")).body(Bytes::new()).unwrap();
        let response = doors.over_quic(None, request).await;
        let policy = &response.headers()[header::STRICT_TRANSPORT_SECURITY];
        assert_eq!(policy, "max-age=31536000; includeSubDomains; preload", "{path}");
    }
}

#[tokio::test]
async fn the_key_of_one_session_opens_no_other() {
    let doors = Doors::open().await;
    let (first, second) = (Key::new(), Key::new());
    doors.token("first", Some(&first)).await;
    let token = doors.token("second", Some(&second)).await;
    for way in WAYS {
        assert_eq!(
            doors.ask(way, Some(&first), Method::GET, ROUTES, &token, "").await.0,
            StatusCode::UNAUTHORIZED
        );
    }
}

#[tokio::test]
async fn a_token_that_is_bound_to_nothing_counts_with_any_key_and_with_none() {
    let doors = Doors::open().await;
    let token = doors.token("unbound", None).await;
    let key = Key::new();
    for way in WAYS {
        for shown in [None, Some(&key)] {
            assert_eq!(
                doors.ask(way, shown, Method::GET, ROUTES, &token, "").await.0,
                StatusCode::OK,
                "{way:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_on_tcp_is_asked_only_when_it_offers_the_mark() {
    let doors = Doors::open().await;
    let key = Key::new();
    let asked = |stream: tokio_rustls::client::TlsStream<TcpStream>| {
        let state = stream.get_ref().1;
        (state.alpn_protocol().map(<[u8]>::to_vec), state.handshake_kind())
    };
    let (alpn, _) = asked(doors.tcp(&[b"h2", b"http/1.1", DEVICE_KEY_MARK], Some(&key)).await);
    assert_eq!(alpn.as_deref(), Some(&b"h2"[..]), "the mark is never spoken");
    // Without the mark no certificate goes over, and the bound token is worth nothing.
    let token = doors.token("bound", Some(&key)).await;
    let stream = doors.tcp(&[b"http/1.1"], Some(&key)).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    doors.tracker.spawn(connection);
    let request = Request::get(ROUTES)
        .header(header::HOST, HOST)
        .header(header::AUTHORIZATION, format!("Pomerium {token}"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_sign_in_is_bound_to_the_key_that_asked_for_it_and_to_no_other() {
    let doors = Doors::open().await;
    let (own, other) = (Key::new(), Key::new());
    let path = format!(
        "{LOGIN_PATH}?pomerium_redirect_uri=http://127.0.0.1:9/&pomerium_device_key={}",
        own.thumbprint()
    );
    let bound = format!("pomerium_device_key={}", own.thumbprint());
    for way in WAYS {
        let (status, url) = doors.ask(way, Some(&own), Method::GET, &path, "", "").await;
        assert!(status == StatusCode::OK && url.contains(&bound), "{way:?}: {status} {url}");
        let (status, _) = doors.ask(way, Some(&other), Method::GET, &path, "", "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{way:?}");
        let (status, url) = doors.ask(way, None, Method::GET, &path, "", "").await;
        assert!(status == StatusCode::OK && !url.contains("pomerium_device_key"), "{way:?}: {status} {url}");
    }
}

#[tokio::test]
async fn a_report_is_taken_from_a_bound_connection_only() {
    let doors = Doors::open().await;
    let (own, other) = (Key::new(), Key::new());
    let bound = doors.token("bound", Some(&own)).await;
    let unbound = doors.token("unbound", None).await;
    let long = format!("{REPORT}{}", " ".repeat(8 * 1024));
    for way in WAYS {
        for (key, token, body, expected) in [
            (None, &bound, REPORT, StatusCode::UNAUTHORIZED),
            (Some(&other), &bound, REPORT, StatusCode::UNAUTHORIZED),
            (Some(&own), &unbound, REPORT, StatusCode::FORBIDDEN),
            (Some(&own), &bound, r#"{"os":"linux","is_fine":true}"#, StatusCode::BAD_REQUEST),
            (Some(&own), &bound, &long, StatusCode::PAYLOAD_TOO_LARGE),
            (Some(&own), &bound, REPORT, StatusCode::NO_CONTENT),
        ] {
            let answered = doors.ask(way, key, Method::POST, POSTURE, token, body).await;
            assert_eq!(answered.0, expected, "{way:?} {body:.40}: {}", answered.1);
        }
    }
    let devices = doors.store.devices(None).await.unwrap();
    assert_eq!(devices.len(), 1);
    let (report, _) = devices[0].posture.clone().unwrap();
    assert_eq!((report.os_version.as_str(), report.firewall), ("12.5", Some(true)));
}

#[tokio::test]
async fn a_stream_is_cut_when_the_device_reports_that_it_is_fit_no_more() {
    let doors = Doors::open().await;
    let own = Key::new();
    let token = doors.token("bound", Some(&own)).await;
    let client = doors.quic(Some(&own)).await;
    let mut headers = http::HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    let to = TUNNEL.parse().unwrap();
    let refused = client.connect(&to, headers.clone()).await.unwrap();
    assert!(matches!(refused, Connected::Refused(_)), "nothing is known of the device yet");

    assert_eq!(
        doors.ask(Way::Http3, Some(&own), Method::POST, POSTURE, &token, REPORT).await.0,
        StatusCode::NO_CONTENT
    );
    let Connected::Open { leg, .. } = client.connect(&to, headers).await.unwrap() else {
        panic!("a device that is fit was refused");
    };
    let (_app, _) = doors.app.accept().await.unwrap();
    let (local, _person) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(local);
    let carried = relay::run(Leg::io(reader, writer), leg, RelayOptions::default(), std::future::pending());

    let device = doors.store.devices(None).await.unwrap().remove(0);
    let unfit = PostureReport { firewall: Some(false), ..PostureReport::default() };
    doors.store.put_posture(&device, &unfit, Now::read().wall).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), carried).await.unwrap();
    assert_eq!(end.reason, EndReason::Policy);
}
