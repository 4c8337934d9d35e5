//! Doors for other programs of the operator, such as a proxy that asks what may pass: HTTP/1.1 and HTTP/2, of their own
//! address, never the public one.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tracing::Instrument as _;

use super::{HEADER_LEN_MAX, Lifetime};
use crate::body::Body;

/// Connections at most: proxies keep a few open each.
const CONNECTIONS_MAX: usize = 1_000;

/// Questions under way on one HTTP/2 connection at most.
const STREAMS_MAX: u32 = 1_000;

/// For a caller to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Between HTTP/2 pings on a quiet connection, and for the answer to one.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The other end of the connection.
    pub(crate) peer: SocketAddr,
    /// Whether it showed a client certificate from one of the door's authorities.
    pub(crate) has_certificate: bool,
}

/// What answers behind such a door.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Answers one request; whatever happens is an answer.
    fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// One such door.
#[derive(Debug)]
pub(crate) struct Inner<S> {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: Arc<S>,
    lifetime: Lifetime,
}

impl<S: Answers> Inner<S> {
    /// Takes a bound listener; nothing is accepted before [`Inner::run`].
    pub(crate) fn new(
        listener: TcpListener,
        tls: Option<ServerConfig>,
        service: S,
        lifetime: Lifetime,
    ) -> Self {
        Self { listener, tls: tls.map(Arc::new), service: Arc::new(service), lifetime }
    }

    /// Accepts connections until the lifetime drains.
    pub(crate) async fn run(self) {
        // Full: further callers wait in the kernel's queue.
        let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.lifetime.drain.cancelled() => return,
                accepted = accept(&self.listener, &limit) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let (service, tls, lifetime) = (self.service.clone(), self.tls.clone(), self.lifetime.clone());
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let serve = async move {
                meet(stream, peer, tls, service, &lifetime).await;
                drop(permit);
            };
            self.lifetime.tracker.spawn(serve.instrument(tracing::debug_span!("inner", %peer)));
        }
    }
}

async fn accept(
    listener: &TcpListener,
    limit: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = limit.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Finishes the handshake, where there is one.
async fn meet<S: Answers>(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    service: Arc<S>,
    lifetime: &Lifetime,
) {
    let Some(config) = tls else {
        let caller = Caller { peer, has_certificate: false };
        return converse(stream, caller, service, lifetime).await;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(lifetime.waits.handshake, handshake).await {
        Ok(Ok(stream)) => {
            // The handshake ends without one that the door's authorities do not vouch for.
            let has_certificate =
                stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            let caller = Caller { peer, has_certificate };
            converse(stream, caller, service, lifetime).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

/// Serves one connection to its end.
async fn converse<S: Answers>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    service: Arc<S>,
    lifetime: &Lifetime,
) {
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let (service, caller) = (service.clone(), caller.clone());
        let answering: Answering = Box::pin(async move { Ok(service.answer(request, &caller).await) });
        answering
    });
    let builder = builder();
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = lifetime.drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                result = serving.as_mut() => result,
                () = lifetime.cut.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = &*error, "a caller's connection ended with an error");
    }
}

/// One request under way. Boxed: the types inside are too long for the compiler to follow.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_LEN_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LEN_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}
