//! HTTPS on TCP: HTTP/1.1 and HTTP/2 for browsers, and `CONNECT` for clients that QUIC does not reach.

use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    ext::Protocol,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pomerium_shared::{
    clock::Now,
    relay::{self, Leg},
    udp::{self, Carriage},
};
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tracing::Instrument as _;

use super::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HEADER_LEN_MAX, HEADER_TIMEOUT, HEADERS_MAX, Lifetime, STREAMS_MAX,
    TlsError, TlsKeys,
    client_certificate::Asked,
    device_key,
    held::{Held, Limit},
    idle::{Activity, UnderWay},
    proxy_protocol,
    tls::ClientKey,
    websocket,
};
use crate::{
    body::{self, Body},
    config::Codec,
    proxy::{Connection, KeptOpen, Proxy},
};

/// Octets of an answer that wait for one HTTP/2 client to take them; an app that is faster than that waits too.
const STREAM_BUFFER_LEN: usize = 64 * 1024;

/// Between HTTP/2 pings on a quiet connection, and for the answer to one.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// One request under way. Boxed: the types inside are too long for the compiler to follow.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// The TCP door.
#[derive(Debug)]
pub(crate) struct Https {
    listener: TcpListener,
    door: Arc<Door>,
    limit: Arc<Semaphore>,
}

/// The TLS settings: which of them a connection gets is decided by its first message.
struct Tls {
    keys: TlsKeys,
    alpn: &'static [&'static [u8]],
    /// For browsers and strangers, where no authority stands for clients' certificates.
    plain: Arc<ServerConfig>,
    /// For clients that say that they have a device key.
    asking: Arc<ServerConfig>,
    /// For browsers and strangers, where one does: made anew when others do.
    naming: ArcSwapOption<Naming>,
}

/// Settings that name the authorities from which a certificate is asked for.
struct Naming {
    asked: Arc<Asked>,
    config: Arc<ServerConfig>,
}

struct Door {
    tls: Tls,
    /// What was agreed on in the handshake is spoken, and nothing else is listened for.
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// Whether a client that agrees on nothing is to speak HTTP/2.
    is_http2_alone: bool,
    proxy: Arc<Proxy>,
    lifetime: Lifetime,
    is_behind_balancer: bool,
    /// What tells browsers of HTTP/3, where it is spoken.
    alt_svc: Option<HeaderValue>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Https {
    /// Takes a bound listener; nothing is accepted before [`Https::run`].
    pub(crate) fn new(
        listener: TcpListener,
        keys: &TlsKeys,
        codec: Codec,
        http3_port: Option<u16>,
        proxy: Arc<Proxy>,
        lifetime: Lifetime,
    ) -> Result<Self, TlsError> {
        let alpn: &'static [&'static [u8]] = match codec {
            Codec::All => &[b"h2", b"http/1.1"],
            Codec::Http1 => &[b"http/1.1"],
            Codec::Http2 => &[b"h2"],
        };
        let tls = Tls::new(keys, alpn)?;
        let alt_svc =
            http3_port.and_then(|port| HeaderValue::from_str(&format!("h3=\":{port}\"; ma=86400")).ok());
        let is_behind_balancer = proxy.settings().use_proxy_protocol;
        let is_http2_alone = matches!(codec, Codec::Http2);
        let (http1, http2) = (http1(), http2());
        let door = Door { tls, http1, http2, is_http2_alone, proxy, lifetime, is_behind_balancer, alt_svc };
        Ok(Self { listener, door: Arc::new(door), limit: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// Accepts connections until the lifetime drains.
    pub(crate) async fn run(self) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.door.lifetime.drain.cancelled() => return,
                accepted = accept(&self.listener, &self.limit) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let door = self.door.clone();
            let serve = async move {
                door.accept(stream, peer).await;
                drop(permit);
            };
            self.door.lifetime.tracker.spawn(serve.instrument(tracing::debug_span!("https", %peer)));
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
            // Out of file descriptors, mostly: what is open may end and free some.
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_LEN_MAX as usize);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LEN_MAX)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .max_send_buf_size(STREAM_BUFFER_LEN)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    builder
}

impl Tls {
    fn new(keys: &TlsKeys, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        Ok(Self {
            keys: keys.clone(),
            alpn,
            plain: Arc::new(keys.server_config(alpn, ClientKey::NotAsked)?),
            asking: Arc::new(keys.server_config(alpn, ClientKey::Welcome)?),
            naming: ArcSwapOption::empty(),
        })
    }

    /// `None` for a certificate authority that has seen what it asked for (RFC 8737).
    async fn accept(&self, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        if let Some(config) = self.keys.proof(&start.client_hello()) {
            start.into_stream(config.map_err(io::Error::other)?).await?;
            return Ok(None);
        }
        let has_key = device_key::is_offered(start.client_hello().alpn());
        let config = self.config(has_key).map_err(io::Error::other)?;
        let tls = start.into_stream(config).await?;
        // A resumed session brings the certificate of the one before, which was looked at in other times.
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        if self.keys.asked().admits(chain, Now::read().wall) {
            Ok(Some(tls))
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the client's certificate is not valid any more",
            ))
        }
    }

    fn config(&self, has_key: bool) -> Result<Arc<ServerConfig>, TlsError> {
        let asked = self.keys.asked();
        if has_key {
            return Ok(self.asking.clone());
        } else if !asked.is_for_everybody() {
            return Ok(self.plain.clone());
        }
        if let Some(naming) = &*self.naming.load()
            && Arc::ptr_eq(&naming.asked, &asked)
        {
            return Ok(naming.config.clone());
        }
        let config = Arc::new(self.keys.server_config(self.alpn, ClientKey::From(asked.hints()))?);
        self.naming.store(Some(Arc::new(Naming { asked, config: config.clone() })));
        Ok(config)
    }
}

impl Door {
    /// Finds out who is there, and serves them unless there are too many of them.
    async fn accept(self: Arc<Self>, mut stream: TcpStream, peer: SocketAddr) {
        let peer = match self.client_of(&mut stream, peer).await {
            Ok(peer) => peer,
            Err(error) => return tracing::debug!(%error, "connection refused: nobody says whose it is"),
        };
        let Some(place) = self.proxy.place(peer.ip()) else {
            return tracing::debug!(client = %peer, "connection refused: too many from there");
        };
        self.serve(stream, peer).await;
        drop(place);
    }

    /// The client at the other end, by the word of a balancer where there is one.
    async fn client_of(&self, stream: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
        if !self.is_behind_balancer {
            return Ok(peer);
        }
        let told = tokio::time::timeout(HANDSHAKE_TIMEOUT, proxy_protocol::client_of(stream)).await??;
        Ok(told.unwrap_or(peer))
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = relay::keepalive(&stream) {
            tracing::debug!(%error, "no keepalive on a client's connection");
        }
        let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream)).await {
            Ok(Ok(Some(tls))) => tls,
            Ok(Ok(None)) => return tracing::debug!("a certificate authority has looked"),
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake timed out"),
        };
        let state = tls.get_ref().1;
        let is_http2 = state.alpn_protocol().map_or(self.is_http2_alone, |agreed| agreed == b"h2");
        let connection = Arc::new(Connection {
            peer,
            server_name: state.server_name().map(str::to_ascii_lowercase),
            protocol: if is_http2 { "h2" } else { "h1" },
            proven: device_key::proven(state.peer_certificates()),
            roaming: None,
        });
        let (door, activity) = (self.clone(), Activity::new());
        let at_work = activity.clone();
        let service = service_fn(move |request| {
            let (door, connection, under_way) = (door.clone(), connection.clone(), at_work.begin());
            let answering: Answering =
                Box::pin(async move { Ok(door.answer(request, &connection, under_way).await) });
            answering
        });
        let io = TokioIo::new(tls);
        let result = if is_http2 {
            let serving = self.http2.serve_connection(io, service);
            self.carry(serving, http2::Connection::graceful_shutdown, &activity).await
        } else {
            let serving = self.http1.serve_connection(io, service).with_upgrades();
            self.carry(serving, http1::UpgradeableConnection::graceful_shutdown, &activity).await
        };
        if let Err(error) = result {
            tracing::debug!(error = &error as &dyn std::error::Error, "connection ended with an error");
        }
    }

    /// Lets a connection run to its end: its own, an idle one's, or the gateway's.
    async fn carry<C>(
        &self,
        connection: C,
        say_goodbye: fn(Pin<&mut C>),
        activity: &Activity,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut serving = std::pin::pin!(connection);
        tokio::select! {
            result = serving.as_mut() => result,
            () = activity.idle() => {
                say_goodbye(serving.as_mut());
                // Whoever does not even say goodbye is not waited for.
                tokio::time::timeout(HANDSHAKE_TIMEOUT, serving.as_mut()).await.unwrap_or(Ok(()))
            }
            () = self.lifetime.drain.cancelled() => {
                say_goodbye(serving.as_mut());
                tokio::select! {
                    result = serving.as_mut() => result,
                    () = self.lifetime.cut.cancelled() => Ok(()),
                }
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
        under_way: UnderWay,
    ) -> Response<Body> {
        let mut response = if request.headers().len() > HEADERS_MAX {
            // HTTP/1 has refused it already.
            let mut refusal = Response::new(body::empty());
            *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            refusal
        } else if request.method() == Method::CONNECT {
            match request.extensions().get::<Protocol>() {
                None => self.connect(request, connection, under_way).await,
                Some(protocol) if websocket::is_meant(protocol) => {
                    self.websocket(request, connection, under_way).await
                }
                Some(protocol) if protocol.as_str() == udp::UPGRADE => {
                    self.connect_udp(request, connection, under_way).await
                }
                Some(_) => websocket::unknown_protocol(),
            }
        } else if asks_for_udp(&request) {
            self.connect_udp(request, connection, under_way).await
        } else {
            let response = self.proxy.handle(request.map(body::boxed), connection).await;
            self.held(response, under_way)
        };
        if let Some(alt_svc) = &self.alt_svc {
            // Over QUIC browsers show no certificate, and ask nobody for one (RFC 7838, 3).
            let is_tcp_alone = self.tls.keys.asked().is_for_everybody();
            let alt_svc = if is_tcp_alone { HeaderValue::from_static("clear") } else { alt_svc.clone() };
            response.headers_mut().insert(header::ALT_SVC, alt_svc);
        }
        response
    }

    /// Opens a stream; the bytes flow once the 200 is out and the connection or h2 stream is ours.
    async fn connect(
        &self,
        mut request: Request<Incoming>,
        connection: &Connection,
        under_way: UnderWay,
    ) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let stream = match self.proxy.open_stream(&parts, connection).await {
            Ok(stream) => stream,
            Err(refusal) => return refusal,
        };
        let mut response = Response::new(body::empty());
        stream.head(response.headers_mut());
        let proxy = self.proxy.clone();
        self.proxy.tracker().spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
                    proxy.carry(stream, Leg::io(reader, writer).holding(under_way)).await;
                }
                Err(error) => tracing::debug!(%error, "the client left before its stream began"),
            }
        });
        response
    }

    /// Opens a WebSocket on a stream of HTTP/2 (RFC 8441): to policy and app the same as on HTTP/1.1.
    async fn websocket(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
        under_way: UnderWay,
    ) -> Response<Body> {
        let (mut request, key) = websocket::as_http1(request);
        request.extensions_mut().insert(KeptOpen::new(under_way.clone()));
        let response = self.proxy.handle(request.map(body::boxed), connection).await;
        self.held(websocket::as_http2(response, &key), under_way)
    }

    /// Keeps a request under way for as long as its client takes the answer.
    fn held(&self, response: Response<Body>, under_way: UnderWay) -> Response<Body> {
        let limit =
            Limit { idle: self.proxy.settings().timeouts.idle, tracker: self.lifetime.tracker.clone() };
        response.map(|body| body::boxed(Held::new(body, under_way, limit)))
    }

    /// Opens a flow of datagrams (RFC 9298, 3), which go as capsules once the answer is out and the connection or h2 stream is
    /// ours.
    async fn connect_udp(
        &self,
        mut request: Request<Incoming>,
        connection: &Connection,
        under_way: UnderWay,
    ) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let flow = match self.proxy.open_flow(&parts, connection).await {
            Ok(flow) => flow,
            Err(refusal) => return refusal,
        };
        let mut response = Response::new(body::empty());
        if parts.method != Method::CONNECT {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(udp::UPGRADE));
        }
        let headers = response.headers_mut();
        let (name, value) = udp::CAPSULE_PROTOCOL;
        headers.insert(name, HeaderValue::from_static(value));
        if let Ok(value) = HeaderValue::from_str(&flow.request_id) {
            headers.insert("x-request-id", value);
        }
        let proxy = self.proxy.clone();
        self.proxy.tracker().spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
                    let carriage = Carriage { stream: Leg::io(reader, writer), flow: None };
                    proxy.carry_flow(flow, carriage).await;
                    drop(under_way);
                }
                Err(error) => tracing::debug!(%error, "the client left before its flow began"),
            }
        });
        response
    }
}

/// Whether an HTTP/1.1 client asks for a flow of datagrams (RFC 9298, 3.2).
fn asks_for_udp(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && upgrade.is_some_and(|value| value.eq_ignore_ascii_case(udp::UPGRADE))
        && request.uri().path().starts_with(udp::path::PREFIX)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    /// The time is the test's own: nothing is waited for.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_to_its_end_ends_its_connection() {
        for begin in ["", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
            let (mut client, server) = tokio::io::duplex(4096);
            let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new(body::empty())) });
            let serving = http1().serve_connection(TokioIo::new(server), answer);
            let began = Instant::now();
            let dribble = async {
                client.write_all(begin.as_bytes()).await.unwrap();
                while !begin.is_empty() && client.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.unwrap();
                rest
            };
            let (served, rest) = tokio::join!(serving, dribble);
            assert!(served.is_err() || begin.is_empty(), "{served:?}");
            assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
            let waited = began.elapsed();
            assert!((HEADER_TIMEOUT..HEADER_TIMEOUT * 2).contains(&waited), "{waited:?}");
        }
    }
}
