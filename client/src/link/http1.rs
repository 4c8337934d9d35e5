//! The same over TCP: HTTP/1.1 with a TLS connection for each request and each `CONNECT` (RFC 9110, 9.3.6), for
//! networks without UDP and for gateways without TLS.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, HOST, UPGRADE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use pomerium_shared::{
    destination::Destination,
    problem::PROBLEM_LEN_MAX,
    relay::{Leg, keepalive},
    tunnel::Connected,
    udp::{self, Carriage},
};
use rustls_pki_types::ServerName;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::{
    LinkError,
    dial::{CONNECT_TIMEOUT, HEAD_START, resolve},
};
use crate::gateway::Gateway;

/// What was sent and is not acknowledged for so long will not be: elsewhere its stream may go on. A gateway that takes nothing
/// acknowledges that it does not.
#[cfg(target_os = "linux")]
const UNHEARD: Duration = Duration::from_secs(20);

#[cfg(target_os = "linux")]
fn give_up_unheard(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(UNHEARD))
}

/// Other systems have times of their own.
#[cfg(not(target_os = "linux"))]
const fn give_up_unheard(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// What is needed to dial by TCP.
pub(super) struct Http1 {
    gateway: Gateway,
    tls: TlsConnector,
    tracker: TaskTracker,
}

impl Http1 {
    pub(super) fn new(gateway: Gateway, tls: Arc<rustls::ClientConfig>, tracker: TaskTracker) -> Self {
        Self { gateway, tls: TlsConnector::from(tls), tracker }
    }

    /// Whether the gateway can be reached and believed this way.
    pub(super) async fn probe(&self) -> Result<(), LinkError> {
        self.dial().await.map(drop)
    }

    /// Asks for a stream to an app.
    pub(super) async fn connect(&self, to: &Destination, headers: HeaderMap) -> Result<Connected, LinkError> {
        let mut sender = self.dial().await?;
        let authority = to.to_string();
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = authority.parse().map_err(|_| self.bad_name())?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, authority.parse().map_err(|_| self.bad_name())?);
        let response = sender.send_request(request).await.map_err(|source| self.lost(source))?;
        if !response.status().is_success() {
            return Ok(Connected::Refused(self.whole(response, PROBLEM_LEN_MAX).await?));
        }
        let (response, leg) = self.switched(response).await?;
        Ok(Connected::Open { response, leg })
    }

    /// Asks for a flow of datagrams to an app (RFC 9298, 3.2).
    pub(super) async fn connect_udp(
        &self,
        to: &Destination,
        headers: HeaderMap,
    ) -> Result<Connected<Carriage>, LinkError> {
        let mut sender = self.dial().await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = udp::path::of(to).parse().map_err(|_| self.bad_name())?;
        *request.headers_mut() = headers;
        // Servers of this dialect want the app here, not the gateway.
        request.headers_mut().insert(HOST, to.to_string().parse().map_err(|_| self.bad_name())?);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static(udp::UPGRADE));
        let (name, value) = udp::CAPSULE_PROTOCOL;
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        let response = sender.send_request(request).await.map_err(|source| self.lost(source))?;
        // Some servers switch with a 200.
        if !(response.status() == StatusCode::SWITCHING_PROTOCOLS || response.status().is_success()) {
            return Ok(Connected::Refused(self.whole(response, PROBLEM_LEN_MAX).await?));
        }
        let (response, stream) = self.switched(response).await?;
        Ok(Connected::Open { response, leg: Carriage { stream, flow: None } })
    }

    /// The bare connection behind an answer that switches to it.
    async fn switched(
        &self,
        response: Response<hyper::body::Incoming>,
    ) -> Result<(Response<()>, Leg), LinkError> {
        let (parts, body) = response.into_parts();
        let response = Response::from_parts(parts.clone(), ());
        let upgraded = hyper::upgrade::on(Response::from_parts(parts, body));
        let stream = TokioIo::new(upgraded.await.map_err(|source| self.lost(source))?);
        let (reader, writer) = tokio::io::split(stream);
        Ok((response, Leg::io(reader, writer)))
    }

    /// Makes one ordinary request.
    pub(super) async fn request(
        &self,
        request: Request<Bytes>,
        body_len_max: usize,
    ) -> Result<Response<Bytes>, LinkError> {
        let response = self.answered(request).await?;
        self.whole(response, body_len_max).await
    }

    /// The same, and leaves the answer's body to be read.
    pub(super) async fn answered(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<Response<hyper::body::Incoming>, LinkError> {
        let mut sender = self.dial().await?;
        let host = HeaderValue::try_from(self.gateway.authority()).map_err(|_| self.bad_name())?;
        request.headers_mut().insert(HOST, host);
        // HTTP/1.1 wants the path alone in the request line (RFC 9112, 3.2.1).
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        *request.uri_mut() = path.parse().map_err(|_| self.bad_name())?;
        sender.send_request(request.map(Full::new)).await.map_err(|source| self.lost(source))
    }

    async fn whole(
        &self,
        response: Response<hyper::body::Incoming>,
        len_max: usize,
    ) -> Result<Response<Bytes>, LinkError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, len_max)
            .collect()
            .await
            .map_err(|_| LinkError::TooLong { gateway: self.gateway.clone() })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, LinkError> {
        let stream = self.tcp().await?;
        if !self.gateway.tls() {
            return self.speak(stream).await;
        }
        let name = ServerName::try_from(self.gateway.host().to_owned()).map_err(|_| self.bad_name())?;
        let shaken = timeout(CONNECT_TIMEOUT, self.tls.connect(name, stream)).await;
        let stream = shaken.map_err(|_| self.no_answer())?.map_err(|source| self.tls_error(source))?;
        self.speak(stream).await
    }

    async fn tcp(&self) -> Result<TcpStream, LinkError> {
        let mut attempts = JoinSet::new();
        let mut delay = Duration::ZERO;
        for address in resolve(&self.gateway).await? {
            attempts.spawn(async move {
                sleep(delay).await;
                let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
                keepalive(&stream)?;
                give_up_unheard(&stream)?;
                Ok::<_, io::Error>(stream)
            });
            delay += HEAD_START;
        }
        let mut told = self.no_answer();
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(source)) => {
                    told = LinkError::Tcp { gateway: self.gateway.clone(), source: Arc::new(source) }
                }
                Err(panicked) => tracing::error!(error = %panicked, "dialling failed by our own fault"),
            }
        }
        Err(told)
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, LinkError> {
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|source| self.lost(source))?;
        self.tracker.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "HTTP/1.1 connection ended");
            }
        });
        Ok(sender)
    }

    fn tls_error(&self, source: io::Error) -> LinkError {
        let is_about_trust = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        let gateway = self.gateway.clone();
        if is_about_trust {
            LinkError::Untrusted { gateway, source: Arc::new(source) }
        } else {
            LinkError::Tcp { gateway, source: Arc::new(source) }
        }
    }

    fn lost(&self, source: hyper::Error) -> LinkError {
        LinkError::LostHttp1 { gateway: self.gateway.clone(), source: Arc::new(source) }
    }

    fn no_answer(&self) -> LinkError {
        LinkError::NoAnswer { gateway: self.gateway.clone() }
    }

    fn bad_name(&self) -> LinkError {
        LinkError::BadName { gateway: self.gateway.clone() }
    }
}
