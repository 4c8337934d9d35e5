//! What an issuer says of a certificate (OCSP), beside it in the handshake.

use std::sync::Mutex;

use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    wire::{PATIENCE, running},
    *,
};
use crate::{
    config::Certificate,
    listen::staples,
    ocsp::{
        self,
        tests::{Authority, STANDS_BY_IT},
    },
};

/// Believes everything, and remembers what stood beside the certificate.
#[derive(Debug, Default)]
struct Believer(Mutex<Vec<u8>>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        said: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = said.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        pomerium_shared::tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What a client of one door is shown beside the certificate; over QUIC as over TCP.
async fn beside(doors: &Doors, way: Way) -> Vec<u8> {
    let believer = Arc::new(Believer::default());
    let alpn: &[u8] = if way == Way::Http3 { b"h3" } else { b"h2" };
    let mut tls = doors.tls(&[alpn], None);
    tls.dangerous().set_certificate_verifier(believer.clone());
    if way == Way::Http3 {
        let config = pomerium_shared::quic::client_config(tls).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.connect_with(config, doors.address, HOST).unwrap().await.unwrap();
    } else {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let stream = TcpStream::connect(doors.address).await.unwrap();
        connector.connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap();
    }
    let said = believer.0.lock().unwrap();
    said.clone()
}

/// Answers each question with `answer`.
async fn responder(listener: TcpListener, answer: Vec<u8>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut question = [0; 4096];
        assert_ne!(stream.read(&mut question).await.unwrap(), 0);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        _ = stream.write_all(&[head.as_bytes(), &answer].concat()).await;
    }
}

/// An authority, a certificate of it, and where it answers.
async fn issued() -> (Authority, Certificate, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = Authority::new();
    let certificate = authority.server(&format!("http://{}/", listener.local_addr().unwrap()));
    (authority, certificate, listener)
}

#[tokio::test]
async fn what_the_responder_says_stands_beside_the_certificate_until_another_is_shown() {
    let doors = Doors::open().await;
    let (authority, certificate, listener) = issued().await;
    let answer = authority.respond(&certificate.chain, &STANDS_BY_IT);
    let _responder = running(responder(listener, answer.clone()));
    let certificate = Arc::new(certificate);
    doors.keys.show_obtained(std::slice::from_ref(&certificate));
    assert_eq!(beside(&doors, Way::Http2).await, b"");
    let _keeper = running(staples::run(doors.keys.clone(), doors.lifetime.drain.clone()));
    for way in [Way::Http2, Way::Http3] {
        let shown = async { while beside(&doors, way).await != answer {} };
        tokio::time::timeout(PATIENCE, shown).await.expect("the responder's word");
    }
    doors.keys.show_obtained(&[certificate]);
    assert_eq!(beside(&doors, Way::Http2).await, answer, "it outlives a reload");
    doors.keys.show_obtained(&[Arc::new(authority.server("http://127.0.0.1:9/"))]);
    assert_eq!(beside(&doors, Way::Http2).await, b"");
}

#[tokio::test]
async fn what_somebody_else_says_in_the_issuers_place_is_never_shown() {
    let doors = Doors::open().await;
    let (_, certificate, listener) = issued().await;
    let answer = Authority::new().respond(&certificate.chain, &STANDS_BY_IT);
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let _responder = running(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = [0; 4096];
        assert_ne!(stream.read(&mut question).await.unwrap(), 0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(&[head.as_bytes(), &answer].concat()).await.unwrap();
        // The answer has been read when nothing more is asked on its connection.
        stream.shutdown().await.unwrap();
        while stream.read(&mut question).await.is_ok_and(|len| len > 0) {}
        asked.send(()).unwrap();
    });
    doors.keys.show_obtained(&[Arc::new(certificate)]);
    let _keeper = running(staples::run(doors.keys.clone(), doors.lifetime.drain.clone()));
    tokio::time::timeout(PATIENCE, is_asked).await.unwrap().unwrap();
    assert_eq!(beside(&doors, Way::Http2).await, b"", "the certificate is shown, alone");
}

#[tokio::test]
async fn what_the_operator_gives_stands_beside_the_certificate_and_nobody_is_asked() {
    let doors = Doors::open().await;
    let (authority, certificate, listener) = issued().await;
    let answer = authority.respond(&certificate.chain, &STANDS_BY_IT);
    let staple = Some(ocsp::read(&answer, &certificate.chain).unwrap());
    doors.keys.show_obtained(&[Arc::new(Certificate { staple, ..certificate })]);
    let keeper = running(staples::run(doors.keys.clone(), doors.lifetime.drain.clone()));
    assert_eq!(beside(&doors, Way::Http2).await, answer);
    doors.lifetime.drain.cancel();
    keeper.join_all().await;
    let asked = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(asked.is_err(), "the responder was asked");
}
