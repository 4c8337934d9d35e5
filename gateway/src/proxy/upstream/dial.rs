//! Connects to one upstream, whatever the request says: over TCP or a Unix socket, with TLS where its URL says so.

use std::{
    fmt, io,
    io::IoSlice,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tower_service::Service;

use super::{CONNECT_TIMEOUT, UpstreamError};
use crate::config::{Upstream, UpstreamTls};

/// What is dialled.
type Raw = Either<TcpStream, UnixStream>;

/// The same, with TLS where it is needed.
pub(super) type Stream = Either<Raw, TlsStream<Raw>>;

/// The way to one upstream.
#[derive(Clone)]
pub(super) struct Dial {
    origin: Uri,
    socket: Option<Arc<PathBuf>>,
    tcp: HttpConnector,
    tls: Option<Tls>,
    /// `max_connections`: a permit goes with each.
    connections: Option<Arc<Semaphore>>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    /// The same without HTTP/2: a WebSocket begins with HTTP/1.1.
    config_h1: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("origin", &self.origin).field("socket", &self.socket).finish()
    }
}

impl Dial {
    /// `config` is there if any upstream of the route speaks TLS.
    pub(super) fn new(
        upstream: &Upstream,
        tls: &UpstreamTls,
        config: Option<&ClientConfig>,
        connections_max: Option<u32>,
    ) -> Result<Self, UpstreamError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let config = config.filter(|_| upstream.origin.scheme() == "https");
        let with_alpn = |protocols: &[&[u8]], config: &ClientConfig| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let host = upstream.origin.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
        let tls = config.map(|config| {
            Ok(Tls {
                config: with_alpn(&[b"h2", b"http/1.1"], config),
                config_h1: with_alpn(&[b"http/1.1"], config),
                name: ServerName::try_from(name).map_err(|_| UpstreamError::ServerName)?,
            })
        });
        Ok(Self {
            origin: upstream.origin.as_str().parse().map_err(UpstreamError::Url)?,
            socket: upstream.socket.clone().map(Arc::new),
            tcp,
            tls: tls.transpose()?,
            connections: connections_max
                .map(|max| Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS)))),
        })
    }

    /// The same way, for HTTP/1.1 alone.
    pub(super) fn for_upgrades(&self) -> Self {
        let mut dial = self.clone();
        if let Some(tls) = &mut dial.tls {
            tls.config = tls.config_h1.clone();
        }
        dial
    }

    /// A connection, within [`CONNECT_TIMEOUT`].
    pub(super) async fn connect(self) -> io::Result<Wire> {
        let connecting = async {
            // Waiting here, a request takes an older connection as soon as one gets free.
            let permit = match &self.connections {
                Some(connections) => connections.clone().acquire_owned().await.ok(),
                None => None,
            };
            let (stream, is_h2) = self.stream().await?;
            Ok(Wire { stream: TokioIo::new(stream), is_h2, _permit: permit })
        };
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(timed_out)?
    }

    /// A stream, and whether HTTP/2 was agreed on.
    async fn stream(&self) -> io::Result<(Stream, bool)> {
        let raw = match &self.socket {
            Some(path) => Either::Right(UnixStream::connect(path.as_path()).await?),
            None => {
                let connecting = self.tcp.clone().call(self.origin.clone());
                Either::Left(connecting.await.map_err(io::Error::other)?.into_inner())
            }
        };
        let Some(tls) = &self.tls else { return Ok((Either::Left(raw), false)) };
        let stream = TlsConnector::from(tls.config.clone()).connect(tls.name.clone(), raw).await?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Either::Right(stream), is_h2))
    }
}

impl Service<Uri> for Dial {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The URI names the host that the app is asked for; where the app runs, only the configuration says.
    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// One connection to an upstream.
pub(super) struct Wire {
    stream: TokioIo<Stream>,
    is_h2: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Wire {
    /// Its stream, for what is no HTTP.
    pub(super) fn into_stream(self) -> Stream {
        self.stream.into_inner()
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TokioIo<Stream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        if self.is_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }
}
