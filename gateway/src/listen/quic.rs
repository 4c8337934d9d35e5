//! QUIC on UDP: HTTP/3 for browsers, and the tunnels of `pomerium-cli`, each stream a `CONNECT`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use pomerium_shared::{
    clock::Now,
    quic::BIDI_STREAMS_MAX,
    reason::EndReason,
    tunnel::{self, Protocol, ServerConnection, ServerSend, ServerStream},
    udp::{self, datagrams::Datagrams},
};
use rustls_pki_types::CertificateDer;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::{
    HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, HEADERS_MAX, Lifetime, TlsError, TlsKeys, device_key,
    h3_body::{self, RequestBody},
    held::NotTaken,
    reset,
    tls::ClientKey,
    websocket,
};
use crate::{
    body::{self, Body, BodyError},
    proxy::{Connection, LegToCome, Proxy, Roaming},
    secret::Secret,
};

/// Above so many connections a new one must prove its address first: a flood from forged ones takes no slots.
const UNPROVEN_MAX: usize = 500;

/// `H3_NO_ERROR` (RFC 9114, 8.1).
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// `H3_EXCESSIVE_LOAD` (RFC 9114, 8.1).
const H3_EXCESSIVE_LOAD: quinn::VarInt = quinn::VarInt::from_u32(0x107);

/// A connection, and its DATAGRAM frames.
#[derive(Clone)]
struct Quinn {
    connection: quinn::Connection,
    datagrams: Datagrams,
    /// Owns what goes over it.
    streams: TaskTracker,
}

/// The UDP door.
#[derive(Debug)]
pub(crate) struct Quic {
    endpoint: quinn::Endpoint,
    keys: TlsKeys,
    proxy: Arc<Proxy>,
    lifetime: Lifetime,
}

/// Why the UDP door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuicDoorError {
    /// The certificates or TLS settings.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The QUIC settings.
    #[error(transparent)]
    Quic(#[from] pomerium_shared::quic::QuicError),
    /// The socket.
    #[error("cannot use the UDP socket")]
    Socket(#[from] std::io::Error),
}

impl Quic {
    /// Takes a bound socket; nothing is accepted before [`Quic::run`]. From the `shared` secret comes what a later process
    /// needs to tell the clients of this one that it is gone.
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        keys: &TlsKeys,
        proxy: Arc<Proxy>,
        lifetime: Lifetime,
        shared: &Secret<[u8; 32]>,
    ) -> Result<Self, QuicDoorError> {
        let config = pomerium_shared::quic::server_config(keys.server_config(&[b"h3"], ClientKey::Welcome)?)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let identity = reset::endpoint_config(shared, &reset::host_name(), socket.local_addr()?);
        let endpoint = quinn::Endpoint::new(identity, Some(config), socket, runtime)?;
        Ok(Self { endpoint, keys: keys.clone(), proxy, lifetime })
    }

    /// Accepts connections until the lifetime drains, and refuses them from then on; the endpoint closes when it is cut.
    pub(crate) async fn run(self) {
        loop {
            let incoming = tokio::select! {
                biased;
                () = self.lifetime.drain.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            let open = self.endpoint.open_connections();
            if open >= super::CONNECTIONS_MAX {
                incoming.refuse();
                continue;
            }
            if open >= UNPROVEN_MAX && incoming.may_retry() && !incoming.remote_address_validated() {
                // The client must show that it gets what is sent to its address (RFC 9000, 8.1.2).
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "no Retry");
                }
                continue;
            }
            let (keys, proxy, lifetime) = (self.keys.clone(), self.proxy.clone(), self.lifetime.clone());
            let peer = incoming.remote_address();
            self.lifetime.tracker.spawn(
                async move { serve(incoming, keys, proxy, lifetime).await }
                    .instrument(tracing::debug_span!("quic", %peer)),
            );
        }
        self.refuse_until_cut().await;
        self.endpoint.close(0_u32.into(), b"the gateway is stopping");
        self.endpoint.wait_idle().await;
    }

    /// Whoever comes while others finish is to try elsewhere at once, rather than to wait for an answer.
    async fn refuse_until_cut(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.lifetime.cut.cancelled() => return,
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => incoming.refuse(),
                    None => return,
                },
            }
        }
    }
}

async fn serve(incoming: quinn::Incoming, keys: TlsKeys, proxy: Arc<Proxy>, lifetime: Lifetime) {
    let peer = incoming.remote_address().ip();
    // Who has not proven their address may bear somebody else's, who must not lose places by it.
    let is_proven = incoming.remote_address_validated();
    let mut place = is_proven.then(|| proxy.place(peer)).flatten();
    if is_proven && place.is_none() {
        incoming.refuse();
        return tracing::debug!("QUIC connection refused: too many from there");
    }
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!(%error, "QUIC connection refused"),
    };
    let quic = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "QUIC handshake failed"),
        Err(_) => return tracing::debug!("QUIC handshake timed out"),
    };
    place = place.or_else(|| proxy.place(peer));
    if place.is_none() {
        quic.close(H3_EXCESSIVE_LOAD, b"too many connections from this address");
        return tracing::debug!("QUIC connection refused: too many from there");
    }
    let chain = certificates(&quic);
    // A resumed session brings the certificate of the one before, which was looked at in other times.
    if !keys.asked().admits(&chain, Now::read().wall) {
        quic.close(NO_ERROR, b"the client's certificate is not valid any more");
        return tracing::debug!("QUIC connection refused: the client's certificate is not valid any more");
    }
    let facts = Connection {
        peer: quic.remote_address(),
        server_name: server_name(&quic),
        protocol: "h3",
        proven: device_key::proven(Some(&chain)),
        roaming: Some(roaming(&quic)),
    };
    tracing::info!(peer = %facts.peer, "quic connection opened");
    let mut connection = match tunnel::accept(quic.clone()).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "HTTP/3 did not begin"),
    };
    let streams = TaskTracker::new();
    let datagrams = Datagrams::new(quic.clone());
    let carrier = Quinn { connection: quic.clone(), datagrams, streams: streams.clone() };
    let accepting = accept_streams(&mut connection, &carrier, &facts, &proxy, &lifetime, &streams);
    tokio::select! {
        () = accepting => {}
        // Ends with the connection.
        () = carrier.datagrams.run() => {}
    }
    // No error: the gateway has said goodbye, or the client is gone already.
    quic.close(NO_ERROR, b"");
    streams.close();
    streams.wait().await;
    tracing::info!(peer = %facts.peer, "quic connection closed");
}

/// The server name of the TLS handshake.
fn server_name(quic: &quinn::Connection) -> Option<String> {
    let data = quic.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.server_name.map(|name| name.to_ascii_lowercase())
}

/// Follows the client from address to address.
fn roaming(quic: &quinn::Connection) -> Roaming {
    let quic = quic.clone();
    Roaming(Arc::new(move || quic.remote_address()))
}

/// What the client showed in the handshake.
fn certificates(quic: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let chain = quic.peer_identity().and_then(|identity| identity.downcast::<Vec<_>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// Takes requests until the connection ends. When the gateway drains it says goodbye (GOAWAY), and this returns with
/// the last stream.
async fn accept_streams(
    connection: &mut ServerConnection,
    quic: &Quinn,
    facts: &Connection,
    proxy: &Arc<Proxy>,
    lifetime: &Lifetime,
    streams: &TaskTracker,
) {
    let mut said_goodbye = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = lifetime.cut.cancelled() => return,
            () = lifetime.drain.cancelled(), if !said_goodbye => {
                said_goodbye = true;
                if let Err(error) = connection.shutdown(0).await {
                    tracing::debug!(%error, "no GOAWAY");
                }
                streams.close();
                continue;
            }
            // A closed tracker takes tasks as before, and ends its wait when it holds none.
            () = streams.wait() => return,
            accepted = connection.accept() => accepted,
        };
        let coming = match accepted {
            Ok(Some(coming)) => coming,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "QUIC connection ended"),
        };
        // The address may have changed since the handshake: connections migrate.
        let facts = Connection { peer: quic.connection.remote_address(), ..facts.clone() };
        let (proxy, quic) = (proxy.clone(), quic.clone());
        streams.spawn(async move {
            match tokio::time::timeout(HEADER_TIMEOUT, tunnel::request(coming)).await {
                Ok(Ok((request, stream))) => answer(request, stream, &quic, &facts, &proxy).await,
                Ok(Err(error)) => tracing::debug!(%error, "a malformed HTTP/3 request"),
                Err(_) => tracing::debug!("an HTTP/3 request did not come in time"),
            }
        });
    }
}

async fn answer(
    request: Request<()>,
    stream: ServerStream,
    quic: &Quinn,
    facts: &Connection,
    proxy: &Arc<Proxy>,
) {
    if request.headers().len() > HEADERS_MAX {
        return refuse_with(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, stream).await;
    }
    let Ok(length) = h3_body::length(request.headers()) else {
        tracing::debug!("a malformed HTTP/3 request");
        return refuse_with(StatusCode::BAD_REQUEST, stream).await;
    };
    match (request.method(), request.extensions().get::<Protocol>()) {
        (&Method::CONNECT, None) => return connect(request, stream, quic, facts, proxy).await,
        (&Method::CONNECT, Some(Protocol::ConnectUdp)) => {
            return connect_udp(request, stream, quic, facts, proxy).await;
        }
        (&Method::CONNECT, Some(Protocol::WebSocket)) => {
            return open_websocket(request, stream, facts, proxy).await;
        }
        // Never taken for a plain one.
        (&Method::CONNECT, Some(_)) => {
            tracing::debug!("an extended CONNECT was refused");
            return refuse_with(StatusCode::NOT_IMPLEMENTED, stream).await;
        }
        // RFC 8441, 4: with CONNECT alone.
        (_, Some(_)) => return refuse_with(StatusCode::BAD_REQUEST, stream).await,
        (_, None) => {}
    }
    let (send, recv) = stream.split();
    let wants_body = request.method() != Method::HEAD;
    let request = request.map(|()| body::boxed(RequestBody::new(recv, length)));
    let response = proxy.handle(request, facts).await;
    respond(response, send, wants_body, proxy.settings().timeouts.idle).await;
}

/// Streams a response; one that breaks off, or of which the client takes nothing for `idle`, is reset, so that it does not look
/// whole.
async fn respond(response: Response<Body>, mut send: ServerSend, wants_body: bool, idle: Option<Duration>) {
    let (parts, mut body) = response.into_parts();
    if let Err(error) = send.respond(Response::from_parts(parts, ())).await {
        return tracing::debug!(%error, "a response was not delivered");
    }
    while wants_body && let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!(error = &*error, "a response was broken off by the app");
                return send.abort(EndReason::App);
            }
        };
        let sent = match frame.into_data().map_err(http_body::Frame::into_trailers) {
            Ok(bytes) => match within(idle, send.send(bytes)).await {
                Ok(sent) => sent,
                Err(error) => {
                    tracing::debug!(%error, "a response was broken off");
                    return send.abort(EndReason::Idle);
                }
            },
            Err(Ok(trailers)) => send.trailers(trailers).await,
            Err(Err(_)) => Ok(()),
        };
        if let Err(error) = sent {
            return tracing::debug!(%error, "a response was not delivered");
        }
    }
    if let Err(error) = send.finish().await {
        tracing::debug!(%error, "a response was not delivered");
    }
}

/// Waits for a client to take something.
async fn within<T>(idle: Option<Duration>, taking: impl Future<Output = T>) -> Result<T, NotTaken> {
    match idle {
        Some(idle) => tokio::time::timeout(idle, taking).await.map_err(|_elapsed| NotTaken),
        None => Ok(taking.await),
    }
}

async fn connect(
    request: Request<()>,
    mut stream: ServerStream,
    quic: &Quinn,
    facts: &Connection,
    proxy: &Arc<Proxy>,
) {
    let (parts, ()) = request.into_parts();
    match proxy.open_stream(&parts, facts).await {
        Ok(open) => {
            // No stranger any more.
            quic.connection.set_max_concurrent_bi_streams(BIDI_STREAMS_MAX);
            let mut response = Response::new(());
            open.head(response.headers_mut());
            if let Err(error) = stream.respond(response).await {
                return tracing::debug!(%error, "the client left before its stream began");
            }
            proxy.carry(open, stream.into_leg().holding(quic.streams.token())).await;
        }
        Err(refusal) => {
            if let Err(error) = refuse(refusal, &mut stream).await {
                tracing::debug!(error = &*error, "a refusal was not delivered");
            }
        }
    }
}

async fn connect_udp(
    request: Request<()>,
    mut stream: ServerStream,
    quic: &Quinn,
    facts: &Connection,
    proxy: &Arc<Proxy>,
) {
    let (parts, ()) = request.into_parts();
    match proxy.open_flow(&parts, facts).await {
        Ok(open) => {
            // No stranger any more.
            quic.connection.set_max_concurrent_bi_streams(BIDI_STREAMS_MAX);
            // Payloads may come right behind the answer.
            let flow = quic.datagrams.flow(stream.id());
            let (name, value) = udp::CAPSULE_PROTOCOL;
            let response =
                Response::builder().header("x-request-id", &open.request_id).header(name, value).body(());
            let Ok(response) = response else { return };
            if let Err(error) = stream.respond(response).await {
                return tracing::debug!(%error, "the client left before its flow began");
            }
            proxy.carry_flow(open, stream.into_carriage(flow)).await;
        }
        Err(refusal) => {
            if let Err(error) = refuse(refusal, &mut stream).await {
                tracing::debug!(error = &*error, "a refusal was not delivered");
            }
        }
    }
}

/// Opens a WebSocket (RFC 9220): to policy and app the same as on HTTP/1.1.
async fn open_websocket(
    request: Request<()>,
    mut stream: ServerStream,
    facts: &Connection,
    proxy: &Arc<Proxy>,
) {
    let (mut request, key) = websocket::as_http1(request);
    let (opened, to_come) = LegToCome::new();
    request.extensions_mut().insert(to_come);
    let response = proxy.handle(request.map(|()| body::empty()), facts).await;
    let response = websocket::as_http2(response, &key);
    if response.status() != StatusCode::OK {
        let idle = proxy.settings().timeouts.idle;
        return respond(response, stream.split().0, true, idle).await;
    }
    match stream.respond(response.map(drop)).await {
        Ok(()) => opened.with(stream.into_leg()),
        Err(error) => tracing::debug!(%error, "the client left before its WebSocket began"),
    }
}

async fn refuse_with(status: StatusCode, mut stream: ServerStream) {
    let mut refusal = Response::new(());
    *refusal.status_mut() = status;
    let answered = match stream.respond(refusal).await {
        Ok(()) => stream.finish().await,
        Err(error) => Err(error),
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "a refusal was not delivered");
    }
}

async fn refuse(refusal: Response<Body>, stream: &mut ServerStream) -> Result<(), BodyError> {
    let (parts, body) = refusal.into_parts();
    let body: Bytes = body.collect().await?.to_bytes();
    stream.respond(Response::from_parts(parts, ())).await?;
    stream.send(body).await?;
    stream.finish().await?;
    Ok(())
}
