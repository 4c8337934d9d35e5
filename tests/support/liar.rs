//! A gateway that lies: a TLS or QUIC endpoint with a certificate that is believed, and answers that no gateway gives.

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;

/// Octets of a request that are kept at most.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// What an answer without end consists of.
const FILLING: &[u8] = &[b'a'; 16 * 1024];

/// What it answers to each request, after having read it.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These octets, and the end.
    Say(Vec<u8>),
    /// These octets, and nothing more, without an end.
    Hang(Vec<u8>),
    /// These octets, and others without end.
    Flood(Vec<u8>),
    /// To a request for a sign-in page the second, to all others the first.
    Sort(String, String),
}

/// Over what it speaks; over the other one it does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// HTTP/1.1.
    Tcp,
    /// HTTP/3.
    Quic,
}

/// A running liar.
#[derive(Debug)]
pub struct Liar {
    /// Its port on loopback.
    pub port: u16,
    heard: Heard,
    _tasks: JoinSet<()>,
}

/// What it was told, and how much of its floods was taken.
#[derive(Debug, Clone, Default)]
struct Heard {
    requests: Arc<Mutex<Vec<String>>>,
    taken: Arc<AtomicU64>,
}

impl Liar {
    /// Starts it with a certificate of the authority.
    ///
    /// # Errors
    /// No port, or no certificate.
    pub async fn start(authority: &Authority, over: Over, answer: Answer) -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, authority, over, answer).await
    }

    /// The same at another address of loopback.
    ///
    /// # Errors
    /// As [`Liar::start`].
    pub async fn start_at(
        address: Ipv4Addr,
        authority: &Authority,
        over: Over,
        answer: Answer,
    ) -> anyhow::Result<Self> {
        let (heard, mut tasks) = (Heard::default(), JoinSet::new());
        let port = match over {
            Over::Tcp => {
                let tls = TlsAcceptor::from(Arc::new(server_config(authority, b"http/1.1")?));
                let listener = TcpListener::bind((address, 0)).await?;
                let port = listener.local_addr()?.port();
                tasks.spawn(over_tcp(listener, tls, answer, heard.clone()));
                port
            }
            Over::Quic => {
                let crypto = QuicServerConfig::try_from(server_config(authority, b"h3")?)?;
                let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
                let endpoint = quinn::Endpoint::server(config, (address, 0).into())?;
                let port = endpoint.local_addr()?.port();
                tasks.spawn(over_quic(endpoint, answer, heard.clone()));
                port
            }
        };
        Ok(Self { port, heard, _tasks: tasks })
    }

    /// All requests until now, as far as they are text.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.heard.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many octets of its floods somebody took, or the system for them.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.heard.taken.load(Ordering::SeqCst)
    }
}

pub(crate) fn server_config(authority: &Authority, protocol: &[u8]) -> anyhow::Result<ServerConfig> {
    let pem = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    let certificate = CertificateDer::from_pem_slice(&pem(&authority.certificate)?)?;
    let key = PrivateKeyDer::from_pem_slice(&pem(&authority.key)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

async fn over_tcp(listener: TcpListener, tls: TlsAcceptor, answer: Answer, heard: Heard) {
    let mut streams = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answer, heard) = (tls.clone(), answer.clone(), heard.clone());
        streams.spawn(async move {
            // Whoever does not believe the certificate says nothing.
            let Ok(stream) = tls.accept(stream).await else { return };
            let (reader, writer) = tokio::io::split(stream);
            lie(reader, writer, &answer, &heard).await;
        });
    }
}

async fn over_quic(endpoint: quinn::Endpoint, answer: Answer, heard: Heard) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let (answer, heard) = (answer.clone(), heard.clone());
        connections.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let Ok(mut control) = connection.open_uni().await else { return };
            // The control stream, and SETTINGS without a setting (RFC 9114, 6.2.1).
            let _gone = control.write_all(&[0, 4, 0]).await;
            let mut streams = JoinSet::new();
            while let Ok((send, recv)) = connection.accept_bi().await {
                let (answer, heard) = (answer.clone(), heard.clone());
                streams.spawn(async move { lie(recv, send, &answer, &heard).await });
            }
        });
    }
}

/// Reads a request, or what the other end says of one until it waits, and answers.
async fn lie<R, W>(mut reader: R, mut writer: W, answer: &Answer, heard: &Heard)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    let len = reader.read(&mut piece).await.unwrap_or(0);
    head.extend_from_slice(&piece[..len]);
    // HTTP/3's is in one piece, and HTTP/1.1's ends so.
    while head.first().is_some_and(u8::is_ascii_uppercase) && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match reader.read(&mut piece).await {
            Ok(len) if len > 0 && head.len() < HEAD_LEN_MAX => head.extend_from_slice(&piece[..len]),
            _ => break,
        }
    }
    if head.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let is_for_page = text.contains("/.pomerium/api/v1/login");
    heard.requests.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    let (said, goes_on) = match answer {
        Answer::Say(octets) | Answer::Hang(octets) => (octets.as_slice(), false),
        Answer::Flood(octets) => (octets.as_slice(), true),
        Answer::Sort(_, page) if is_for_page => (page.as_bytes(), false),
        Answer::Sort(other, _) => (other.as_bytes(), false),
    };
    // Whoever has heard enough goes.
    let _gone = writer.write_all(said).await;
    let _gone = writer.flush().await;
    while goes_on && writer.write_all(FILLING).await.is_ok() {
        heard.taken.fetch_add(FILLING.len() as u64, Ordering::SeqCst);
    }
    if matches!(answer, Answer::Hang(_)) {
        while reader.read(&mut piece).await.is_ok_and(|len| len > 0) {}
        std::future::pending::<()>().await;
    }
    let _gone = writer.shutdown().await;
}
