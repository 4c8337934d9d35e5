//! Client certificates from an authority, at each door and in each mode of enforcement.

use super::*;
use crate::client_authority::tests::{Authority, Leaf};

/// The web route, which allows whoever is signed in; what would answer is not there.
const APP: &str = "/";

/// Policy let the request through.
const THROUGH: StatusCode = StatusCode::BAD_GATEWAY;

fn refused() -> StatusCode {
    StatusCode::from_u16(crate::authorize::CERTIFICATE_REQUIRED).unwrap()
}

impl From<Leaf> for Key {
    fn from(leaf: Leaf) -> Self {
        Self { certificate: leaf.certificate, pair: leaf.key }
    }
}

/// Doors that know an authority, and what it has revoked.
async fn open(corp: &Authority, block: &str) -> Doors {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), corp.certificate.pem()).unwrap();
    std::fs::write(folder.path().join("crl.pem"), corp.revoke(&[8]).pem().unwrap()).unwrap();
    let block = format!("downstream_mtls: {{ca_file: ca.pem, crl_file: crl.pem, {block}}}\n");
    Doors::open_with(folder, &block).await
}

fn revoked(corp: &Authority) -> Key {
    corp.issue(|params| params.serial_number = Some(8_u64.into())).into()
}

/// Whether the door lets a client finish its handshake, and answers it.
async fn is_let_in(doors: &Doors, way: Way, key: Option<&Key>) -> bool {
    let alpn: &[&[u8]] = if way == Way::Http1 { &[b"http/1.1"] } else { &[b"h2", DEVICE_KEY_MARK] };
    if way == Way::Http3 {
        let config = pomerium_shared::quic::client_config(doors.tls(&[b"h3"], key)).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let Ok(connection) = endpoint.connect_with(config, doors.address, HOST).unwrap().await else {
            return false;
        };
        // The client is done before the gateway has looked at its certificate.
        let Ok(client) = TunnelClient::handshake(connection, &doors.tracker).await else { return false };
        let request = Request::get(format!("https://{HOST}/ping")).body(Bytes::new()).unwrap();
        return client.request(request, 1024).await.is_ok();
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(doors.tls(alpn, key)));
    let stream = TcpStream::connect(doors.address).await.unwrap();
    let Ok(stream) = connector.connect(ServerName::try_from(HOST).unwrap(), stream).await else {
        return false;
    };
    if way == Way::Http1 {
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
        else {
            return false;
        };
        doors.tracker.spawn(connection);
        let request = Request::get("/ping").header(header::HOST, HOST).body(Full::new(Bytes::new())).unwrap();
        return sender.send_request(request).await.is_ok();
    }
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let Ok((mut sender, connection)) = shaken else { return false };
    doors.tracker.spawn(connection);
    let request = Request::get(format!("https://{HOST}/ping")).body(Full::new(Bytes::new())).unwrap();
    sender.send_request(request).await.is_ok()
}

#[tokio::test]
async fn by_default_each_route_needs_a_certificate_from_the_authority() {
    let corp = Authority::new("corp");
    let doors = open(&corp, "").await;
    let token = doors.token("alice", None).await;
    let good: Key = corp.issue(|_| {}).into();
    let other: Key = Authority::new("corp").issue(|_| {}).into();
    let of_server: Key = corp
        .issue(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth])
        .into();
    let old: Key = corp.issue(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)).into();
    let early: Key = corp.issue(|params| params.not_before = rcgen::date_time_ymd(2090, 1, 1)).into();
    for way in WAYS {
        let ask = |key, token| doors.ask(way, key, Method::GET, APP, token, "");
        assert_eq!(ask(Some(&good), &token).await.0, THROUGH, "{way:?}");
        let (status, _) = ask(Some(&good), "").await;
        assert_eq!(status, StatusCode::FOUND, "{way:?}: a certificate signs nobody in");
        let device = Key::new();
        for (what, key) in [
            ("none", None),
            ("a device's", Some(&device)),
            ("another authority's", Some(&other)),
            ("a server's", Some(&of_server)),
            ("revoked", Some(&revoked(&corp))),
            ("expired", Some(&old)),
            ("not yet valid", Some(&early)),
        ] {
            let (status, problem) = ask(key, &token).await;
            assert_eq!(status, refused(), "{way:?}, {what}");
            assert!(problem.contains("A valid client certificate is required"), "{way:?}, {what}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_chain_needs_its_links_and_must_not_be_too_long() {
    let corp = Authority::new("corp");
    let middle = corp.below("middle");
    let key: Key = middle.issue(|_| {}).into();
    for (block, chain, expected) in [
        ("", vec![middle.certificate.der().clone()], refused()),
        ("max_verify_depth: 2", vec![middle.certificate.der().clone()], THROUGH),
        ("max_verify_depth: 2", vec![], refused()),
    ] {
        let doors = open(&corp, block).await;
        let token = doors.token("alice", None).await;
        let mut tls = doors.tls(&[b"h3"], None);
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pair.serialize_der()));
        let chain: Vec<_> = std::iter::once(key.certificate.der().clone()).chain(chain).collect();
        let certified =
            rustls::sign::CertifiedKey::from_der(chain, der, &pomerium_shared::tls::provider()).unwrap();
        tls.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = pomerium_shared::quic::client_config(tls).unwrap();
        let connection = endpoint.connect_with(config, doors.address, HOST).unwrap().await.unwrap();
        let client = TunnelClient::handshake(connection, &doors.tracker).await.unwrap();
        let request = Request::get(format!("https://{HOST}{APP}"))
            .header(header::AUTHORIZATION, format!("Pomerium {token}"))
            .body(Bytes::new())
            .unwrap();
        assert_eq!(client.request(request, 64 * 1024).await.unwrap().status(), expected, "{block}");
    }
}

#[tokio::test]
async fn with_policy_alone_only_the_routes_say_who_needs_a_certificate() {
    let doors = open(&Authority::new("corp"), "enforcement: policy").await;
    let token = doors.token("alice", None).await;
    let device = Key::new();
    for way in WAYS {
        for key in [None, Some(&device)] {
            assert_eq!(doors.ask(way, key, Method::GET, APP, &token, "").await.0, THROUGH, "{way:?}");
        }
    }
}

#[tokio::test]
async fn without_a_valid_certificate_there_is_no_connection_where_the_operator_says_so() {
    let corp = Authority::new("corp");
    let doors = open(&corp, "enforcement: reject_connection").await;
    let good: Key = corp.issue(|_| {}).into();
    let (device, other): (_, Key) = (Key::new(), Authority::new("corp").issue(|_| {}).into());
    for way in WAYS {
        assert!(is_let_in(&doors, way, Some(&good)).await, "{way:?}");
        for key in [None, Some(&device), Some(&other), Some(&revoked(&corp))] {
            assert!(!is_let_in(&doors, way, key).await, "{way:?} {:?}", key.map(Key::thumbprint));
        }
    }
    let open_doors = Doors::open().await;
    for way in WAYS {
        assert!(is_let_in(&open_doors, way, None).await, "{way:?}");
    }
}

/// How a handshake went, and whether the gateway answers after it.
async fn ping(doors: &Doors, tls: &Arc<ClientConfig>) -> (Option<rustls::HandshakeKind>, bool) {
    let connector = tokio_rustls::TlsConnector::from(tls.clone());
    let stream = TcpStream::connect(doors.address).await.unwrap();
    let stream = connector.connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    doors.tracker.spawn(connection);
    let request = Request::get("/ping").header(header::HOST, HOST).body(Full::new(Bytes::new())).unwrap();
    let answer = sender.send_request(request).await;
    (kind, answer.is_ok())
}

/// A resumption brings the certificate of the first handshake along, and no verifier sees it again.
#[tokio::test]
async fn a_revoked_certificate_does_not_come_in_again_by_a_resumed_session() {
    let corp = Authority::new("corp");
    let doors = open(&corp, "enforcement: reject_connection").await;
    let key: Key = corp.issue(|_| {}).into();
    let tls = Arc::new(doors.tls(&[b"http/1.1", DEVICE_KEY_MARK], Some(&key)));
    assert_eq!(ping(&doors, &tls).await, (Some(rustls::HandshakeKind::Full), true));
    assert_eq!(ping(&doors, &tls).await, (Some(rustls::HandshakeKind::Resumed), true));

    let folder = doors.folder.path();
    std::fs::write(folder.join("crl.pem"), corp.revoke(&[7]).pem().unwrap()).unwrap();
    let block = "downstream_mtls: {ca_file: ca.pem, crl_file: crl.pem, enforcement: reject_connection}\n";
    let text = configuration(doors.app.local_addr().unwrap(), block);
    let loaded = config::parse(&text, "test.yaml", &|_| None, folder).unwrap();
    doors.keys.replace(&loaded.settings).unwrap();
    assert_eq!(ping(&doors, &tls).await, (Some(rustls::HandshakeKind::Resumed), false));
}

#[tokio::test]
async fn a_session_may_be_bound_to_a_certificate_from_the_authority() {
    let corp = Authority::new("corp");
    let doors = open(&corp, "").await;
    let (own, other): (Key, Key) = (corp.issue(|_| {}).into(), corp.issue(|_| {}).into());
    let token = doors.token("alice", Some(&own)).await;
    for way in WAYS {
        assert_eq!(doors.ask(way, Some(&own), Method::GET, APP, &token, "").await.0, THROUGH, "{way:?}");
        let status = doors.ask(way, Some(&other), Method::GET, APP, &token, "").await.0;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{way:?}");
    }
}

/// The subjects of the authorities that a door names to a client.
#[derive(Debug, Default)]
struct Listener(std::sync::Mutex<Option<Vec<Vec<u8>>>>);

impl rustls::client::ResolvesClientCert for Listener {
    fn resolve(
        &self,
        hints: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        *self.0.lock().unwrap() = Some(hints.iter().map(|hint| hint.to_vec()).collect());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Browsers show people the certificates that fit, and ask nobody who has none.
#[tokio::test]
async fn browsers_are_asked_for_a_certificate_of_the_named_authorities_and_only_where_there_are_any() {
    let corp = Authority::new("corp");
    let hints = |doors: &Doors, alpn: &[&[u8]]| {
        let (mut tls, listener) = (doors.tls(alpn, None), Arc::new(Listener::default()));
        tls.client_auth_cert_resolver = listener.clone();
        let (connector, address) = (tokio_rustls::TlsConnector::from(Arc::new(tls)), doors.address);
        async move {
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap();
            listener.0.lock().unwrap().take()
        }
    };
    let doors = open(&corp, "").await;
    let named = hints(&doors, &[b"h2", b"http/1.1"]).await.expect("a browser is asked");
    let [subject] = &named[..] else { panic!("one authority: {named:?}") };
    assert!(subject.windows(4).any(|part| part == b"corp"), "{subject:?}");
    assert_eq!(
        hints(&doors, &[b"h2", DEVICE_KEY_MARK]).await,
        Some(vec![]),
        "a device's key is of no authority"
    );
    assert_eq!(hints(&Doors::open().await, &[b"h2", b"http/1.1"]).await, None);
}

#[tokio::test]
async fn browsers_are_sent_to_tcp_where_they_can_show_a_certificate() {
    let request = || Request::get(format!("https://{HOST}/ping")).body(Bytes::new()).unwrap();
    let doors = open(&Authority::new("corp"), "").await;
    assert_eq!(doors.over_quic(None, request()).await.headers()[header::ALT_SVC], "clear");
    let doors = Doors::open().await;
    assert!(!doors.over_quic(None, request()).await.headers().contains_key(header::ALT_SVC));
}

#[tokio::test]
async fn a_stream_is_cut_when_the_certificate_expires() {
    let corp = Authority::new("corp");
    let doors = open(&corp, "").await;
    let token = doors.token("alice", None).await;
    let mut headers = http::HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Pomerium {token}").parse().unwrap());
    // A busy machine may need longer than the first of these to open the stream.
    let mut opened = None;
    for life in [3, 6, 12, 24] {
        let expires_at = Now::read().wall + Duration::from_secs(life);
        let key: Key = corp.issue(|params| params.not_after = expires_at.into()).into();
        let client = doors.quic(Some(&key)).await;
        if let Connected::Open { leg, .. } =
            client.connect(&PLACE.parse().unwrap(), headers.clone()).await.unwrap()
        {
            opened = Some((client, leg));
            break;
        }
    }
    let (_client, leg) = opened.expect("a client with a valid certificate is let in");
    let (_app, _) = doors.app.accept().await.unwrap();
    let (local, _person) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(local);
    let carried = relay::run(Leg::io(reader, writer), leg, RelayOptions::default(), std::future::pending());
    // Less than the interval at which everything is looked at again.
    let end = tokio::time::timeout(Duration::from_secs(25), carried).await.unwrap();
    assert_eq!(end.reason, EndReason::Policy);
}
