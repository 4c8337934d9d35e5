//! One of several equal apps behind a route: answers with its name, can feel unwell, and can be ended.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A running app: `/healthz` and gRPC's health check say whether it is well, everything else gets its name and the HTTP
/// version.
#[derive(Debug)]
pub struct Worker {
    /// Where it listens.
    pub address: SocketAddr,
    is_well: Arc<AtomicBool>,
    task: JoinSet<()>,
}

impl Worker {
    /// Starts one without TLS.
    ///
    /// # Errors
    /// Loopback cannot be listened on.
    pub async fn start(name: &'static str) -> anyhow::Result<Self> {
        Self::start_with(name, None).await
    }

    /// Starts one with TLS.
    ///
    /// # Errors
    /// Loopback cannot be listened on.
    pub async fn start_with_tls(name: &'static str, tls: ServerConfig) -> anyhow::Result<Self> {
        Self::start_with(name, Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn start_with(name: &'static str, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let is_well = Arc::new(AtomicBool::new(true));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, tls, name, is_well.clone()));
        Ok(Self { address, is_well, task })
    }

    /// What `/healthz` says from now on.
    pub fn feel(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::SeqCst);
    }

    /// Ends it: what is open breaks off, and nobody listens any more.
    pub async fn end(mut self) {
        self.task.shutdown().await;
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    name: &'static str,
    is_well: Arc<AtomicBool>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, is_well) = (tls.clone(), is_well.clone());
        connections.spawn(async move {
            match tls {
                None => serve(stream, name, is_well).await,
                Some(tls) => {
                    // Who shows no certificate is not served; the story is about who is.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    serve(stream, name, is_well).await;
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    name: &'static str,
    is_well: Arc<AtomicBool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut response = Response::new(Full::<Bytes>::from(format!("{name} {:?}", request.version())));
        let is_well = is_well.load(Ordering::SeqCst);
        if request.uri().path() == "/healthz" && !is_well {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        if request.uri().path() == "/grpc.health.v1.Health/Check" {
            // One frame; the message's first field is 1 (SERVING) or 2 (NOT_SERVING).
            let status = if is_well { 1 } else { 2 };
            *response.body_mut() = Full::from(vec![0, 0, 0, 0, 2, 0x08, status]);
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    // A client that leaves in the middle is its own affair.
    let builder = auto::Builder::new(TokioExecutor::new());
    let _gone = builder.serve_connection(TokioIo::new(stream), service).await;
}
