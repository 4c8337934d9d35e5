//! Knocks at a door as a client does: TCP, TLS, `GET /ping`; or QUIC. Any certificate is taken, to say whose it is; nothing
//! secret is ever sent.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pomerium_shared::{clock::Now, quic, tls};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::facts::Door;

/// How long each look may take.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer at most.
const ANSWER_LEN_MAX: u64 = 16 * 1024;
/// What a balancer says of itself (PROXY protocol, version 1): no client.
const PROXY_HEADER: &[u8] = b"PROXY UNKNOWN\r\n";

/// Whom to call, and whose certificate would be ours.
pub(super) struct Call<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// The leaves that this gateway may show; none where they are not known.
    pub(super) ours: &'a [CertificateDer<'static>],
}

impl Call<'_> {
    /// What is behind these addresses. `as_balancer`: with the PROXY header in front.
    pub(super) async fn tcp(&self, addresses: &[SocketAddr], as_balancer: bool) -> Door {
        let mut stream = match within(TcpStream::connect(addresses)).await {
            Ok(stream) => stream,
            Err(why) => return Door::Closed(why),
        };
        if as_balancer && let Err(why) = within(stream.write_all(PROXY_HEADER)).await {
            return Door::NoTls(why);
        }
        let Ok(name) = ServerName::try_from(self.host.to_owned()) else {
            return Door::NoTls("the host can stand in no certificate".to_owned());
        };
        let connector = TlsConnector::from(Arc::new(any_certificate(&[b"http/1.1"])));
        let mut stream = match within(connector.connect(name, stream)).await {
            Ok(stream) => stream,
            Err(why) => return Door::NoTls(why),
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        if !self.ours.is_empty() && shown.is_none_or(|leaf| !self.ours.contains(leaf)) {
            return Door::OtherCertificate;
        }
        let request =
            format!("GET /ping HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n\r\n", self.host, self.port);
        let mut answer = Vec::new();
        let asked = within(async {
            stream.write_all(request.as_bytes()).await?;
            (&mut stream).take(ANSWER_LEN_MAX).read_to_end(&mut answer).await
        });
        // A peer that leaves without a goodbye of TLS may have answered all the same.
        let _ended = asked.await;
        if answer.starts_with(b"HTTP/1.1 200 ") { Door::Ours } else { Door::NoAnswer }
    }

    /// How long a QUIC handshake takes.
    pub(super) async fn quic(&self, address: SocketAddr) -> Result<Duration, String> {
        let told = |error: &dyn std::error::Error| error.to_string();
        let config = quic::client_config(any_certificate(&[b"h3"])).map_err(|error| told(&error))?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = quic::bind(any).map_err(|error| told(&error))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime);
        let endpoint = endpoint.map_err(|error| told(&error))?;
        let began = Now::read().monotonic;
        let connecting = endpoint.connect_with(config, address, self.host).map_err(|error| told(&error))?;
        let connection = timeout(LIMIT, connecting).await.map_err(|_| "no answer".to_owned())?;
        let connection = connection.map_err(|error| told(&error))?;
        let took = Now::read().monotonic.saturating_duration_since(began);
        connection.close(0x100_u32.into(), b"");
        let _late_is_harmless = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        Ok(took)
    }
}

pub(super) async fn within<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(LIMIT, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} seconds", LIMIT.as_secs())),
    }
}

fn any_certificate(alpn: &[&[u8]]) -> ClientConfig {
    tls::unverified(tls::client_config(RootCertStore::empty(), alpn))
}
