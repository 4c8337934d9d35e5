//! HTTPS on TCP: HTTP/1.1 and HTTP/2 for browsers, and `CONNECT` for clients that QUIC does not reach.

mod handshake;
mod tunnels;

use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    ext::Protocol,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pomerium_shared::{relay, udp};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tracing::Instrument as _;

use self::{handshake::Tls, tunnels::asks_for_udp};
use super::{
    CONNECTIONS_MAX, HEADER_LEN_MAX, HEADERS_MAX, Lifetime, STREAMS_MAX, TlsError, TlsKeys, device_key,
    held::{Held, Limit},
    idle::{Activity, UnderWay},
    proxy_protocol, websocket,
};
use crate::{
    body::{self, Body},
    config::Codec,
    proxy::{Connection, Proxy},
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
        let (http1, http2) = (http1(lifetime.waits.header), http2());
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

fn http1(wait_for_header: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(wait_for_header)
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
        let told =
            tokio::time::timeout(self.lifetime.waits.handshake, proxy_protocol::client_of(stream)).await??;
        Ok(told.unwrap_or(peer))
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = relay::keepalive(&stream) {
            tracing::debug!(%error, "no keepalive on a client's connection");
        }
        let tls = match tokio::time::timeout(self.lifetime.waits.handshake, self.tls.accept(stream)).await {
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
        let (door, activity) = (self.clone(), Activity::new(self.lifetime.waits));
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
                tokio::time::timeout(self.lifetime.waits.handshake, serving.as_mut()).await.unwrap_or(Ok(()))
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

    /// Keeps a request under way for as long as its client takes the answer.
    fn held(&self, response: Response<Body>, under_way: UnderWay) -> Response<Body> {
        let limit =
            Limit { idle: self.proxy.settings().timeouts.idle, tracker: self.lifetime.tracker.clone() };
        response.map(|body| body::boxed(Held::new(body, under_way, limit)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    /// The time is the test's own: nothing is waited for.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_to_its_end_ends_its_connection() {
        for begin in ["", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
            let (mut client, server) = tokio::io::duplex(4096);
            let answer = service_fn(|_| async { Ok::<_, Infallible>(Response::new(body::empty())) });
            let serving = http1(WAIT).serve_connection(TokioIo::new(server), answer);
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
            assert!((WAIT..WAIT * 2).contains(&waited), "{waited:?}");
        }
    }
}
