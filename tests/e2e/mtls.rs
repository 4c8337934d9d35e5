//! Client certificates from an authority of the operator's, through every mode of enforcement, while the gateway runs.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{
    app::{App, hex},
    gateway::{Gateway, Route},
    http::{raw, secure},
    person::Person,
    wait,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};

const ALICE_WITH_HER_CERTIFICATE: &str = "[{allow: {and: [{email: {is: alice@corp.example}}, \
     {client_certificate: {san_email: alice@corp.example}}]}}]";
const EVERYBODY: &str = "[{allow: {or: [{accept: true}]}}]";
const AUTHORITY: &str = "clients.pem";
const REVOKED: &str = "revoked.pem";

/// Who issues certificates to people.
struct Corp {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A person's certificate and key, as their browser has them.
struct Card {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Corp {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn issue(&self, email: &str, serial: u64) -> anyhow::Result<Card> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name(email.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate()?;
        Ok(Card { certificate: params.signed_by(&key, &self.issuer)?, key })
    }

    /// Has the gateway trust this authority, except for what it has revoked.
    fn install(&self, gateway: &Gateway, revoked: &[u64]) -> anyhow::Result<()> {
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2126, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(gateway.folder().join(REVOKED), list.signed_by(&self.issuer)?.pem()?)?;
        std::fs::write(gateway.folder().join(AUTHORITY), self.certificate.pem())?;
        Ok(())
    }
}

fn tls(gateway: &Gateway, protocol: &[u8], card: Option<&Card>) -> anyhow::Result<Arc<ClientConfig>> {
    let Some(card) = card else { return gateway.authority.client_config(&[protocol]) };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(card.key.serialize_der()));
    gateway.authority.client_config_with(&[protocol], vec![card.certificate.der().clone()], key)
}

/// What a browser with this certificate gets over HTTP/2; an error where there is no connection.
async fn status(
    gateway: &Gateway,
    host: &str,
    card: Option<&Card>,
    token: &str,
) -> anyhow::Result<StatusCode> {
    Ok(answer(gateway, host, card, token).await?.0)
}

/// The same, with the whole answer.
async fn answer(
    gateway: &Gateway,
    host: &str,
    card: Option<&Card>,
    token: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let tcp = TcpStream::connect(("127.0.0.1", gateway.port)).await?;
    let stream = secure(&tls(gateway, b"h2", card)?, tcp, host).await?;
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = shaken.await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(gateway.url(host)?.as_str())
        .header("authorization", format!("Pomerium {token}"))
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())?;
    let answer = wait::within("an answer", sender.send_request(request)).await??;
    Ok((answer.status(), answer.into_body().collect().await?.to_bytes()))
}

/// Has the gateway read another block; what it does is seen when it does it.
fn reload(gateway: &Gateway, base: &str, block: &str) -> anyhow::Result<()> {
    gateway.write_config(&format!("{base}downstream_mtls: {{{block}}}\n"))?;
    gateway.reload()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_what_the_operator_says_and_no_more_when_it_is_revoked() {
    let app = App::start().await.unwrap();
    let gateway = Gateway::start(&[
        Route::web("app.localhost", app.address),
        Route::web("other.localhost", app.address).policy(EVERYBODY),
    ])
    .await
    .unwrap();
    let person = Person::new("alice", &gateway.authority).unwrap();
    let token = person.token(&gateway.url("app.localhost").unwrap()).await.unwrap();
    let base = std::fs::read_to_string(gateway.config()).unwrap();
    let base =
        base.replace("[{allow: {and: [{email: {is: alice@corp.example}}]}}]", ALICE_WITH_HER_CERTIFICATE);
    assert!(base.contains("san_email"), "{base}");
    let (corp, strangers) = (Corp::new().unwrap(), Corp::new().unwrap());
    let (alice, bob) =
        (corp.issue("alice@corp.example", 1).unwrap(), corp.issue("bob@corp.example", 2).unwrap());
    let forged = strangers.issue("alice@corp.example", 1).unwrap();
    let required = StatusCode::from_u16(495).unwrap();
    let app_says = |card| status(&gateway, "app.localhost", card, &token);
    let other_says = |card| status(&gateway, "other.localhost", card, "");
    let at_last = |what: &'static str, card, expected: Option<StatusCode>| {
        wait::until(what, move || async move { (other_says(card).await.ok() == expected).then_some(()) })
    };

    // Each route needs a certificate, and one of them alice's own.
    corp.install(&gateway, &[]).unwrap();
    let block = format!("ca_file: {AUTHORITY}, crl_file: {REVOKED}");
    reload(&gateway, &base, &block).unwrap();
    at_last("certificates to be needed", None, Some(required)).await.unwrap();
    assert_eq!(app_says(Some(&alice)).await.unwrap(), StatusCode::OK);
    assert_eq!(other_says(Some(&bob)).await.unwrap(), StatusCode::OK);
    for card in [Some(&bob), Some(&forged), None] {
        assert_eq!(app_says(card).await.unwrap(), required);
    }
    for card in [Some(&forged), None] {
        assert_eq!(other_says(card).await.unwrap(), required);
    }

    // Revoked: what is open is cut, without a word to the gateway: it sees the file.
    let handshake = format!(
        "GET /socket HTTP/1.1\r\nHost: app.localhost:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Pomerium {token}\r\n\r\n",
        gateway.port
    );
    let browser = tls(&gateway, b"http/1.1", Some(&alice)).unwrap();
    let (head, mut socket) = raw(&browser, gateway.port, "app.localhost", &handshake).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    corp.install(&gateway, &[1]).unwrap();
    let mut rest = Vec::new();
    // The end is a close or a reset; both are an end.
    let _end = wait::within("the cut", socket.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(app_says(Some(&alice)).await.unwrap(), required);
    assert_eq!(other_says(Some(&bob)).await.unwrap(), StatusCode::OK);

    // The policy alone: only the route that asks for a certificate needs one.
    reload(&gateway, &base, &format!("{block}, enforcement: policy")).unwrap();
    at_last("the policy to have the only say", None, Some(StatusCode::OK)).await.unwrap();
    assert_eq!(app_says(None).await.unwrap(), required);
    assert_eq!(app_says(Some(&alice)).await.unwrap(), required);

    // Another authority: what the first one issued counts no more.
    strangers.install(&gateway, &[]).unwrap();
    reload(&gateway, &base, &block).unwrap();
    at_last("the other authority to count alone", Some(&bob), Some(required)).await.unwrap();
    assert_eq!(app_says(Some(&forged)).await.unwrap(), StatusCode::OK);

    // No connection at all; and a broken file changes nothing.
    reload(&gateway, &base, &format!("{block}, enforcement: reject_connection")).unwrap();
    at_last("connections to be refused", None, None).await.unwrap();
    assert!(other_says(Some(&bob)).await.is_err());
    assert_eq!(other_says(Some(&forged)).await.unwrap(), StatusCode::OK);
    std::fs::write(gateway.folder().join(AUTHORITY), "no certificate").unwrap();
    gateway.log().line_with(&["was not reloaded", "downstream_mtls.ca_file"]).await.unwrap();
    assert!(other_says(None).await.is_err());
    assert_eq!(other_says(Some(&forged)).await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_told_whose_certificate_it_is_and_nothing_of_one_that_does_not_count() {
    let app = App::start().await.unwrap();
    let route = Route::web("other.localhost", app.address).policy(EVERYBODY).with(
        "set_request_headers: {x-card: '${pomerium.client_cert_fingerprint}', x-email: '${pomerium.client_cert_san_email}'}",
    );
    let gateway = Gateway::start(&[route]).await.unwrap();
    let base = std::fs::read_to_string(gateway.config()).unwrap();
    let (corp, strangers) = (Corp::new().unwrap(), Corp::new().unwrap());
    let alice = corp.issue("alice@corp.example", 1).unwrap();
    let forged = strangers.issue("alice@corp.example", 1).unwrap();
    corp.install(&gateway, &[]).unwrap();
    reload(&gateway, &base, &format!("ca_file: {AUTHORITY}, enforcement: policy")).unwrap();
    let told = async |card: Option<&Card>| {
        let (status, body) = answer(&gateway, "other.localhost", card, "").await.unwrap();
        assert_eq!(status, StatusCode::OK);
        let shown: serde_json::Value = serde_json::from_slice(&body).unwrap();
        ["x-card", "x-email"].map(|name| shown["headers"][name][0].as_str().unwrap_or_default().to_owned())
    };
    let fingerprint = hex(digest::digest(&digest::SHA256, alice.certificate.der()).as_ref());
    let expected = [fingerprint, "alice@corp.example".to_owned()];
    wait::until("the certificate to be asked for", async || {
        (told(Some(&alice)).await == expected).then_some(())
    })
    .await
    .unwrap();
    for card in [Some(&forged), None] {
        assert_eq!(told(card).await, [String::new(), String::new()]);
    }
}
