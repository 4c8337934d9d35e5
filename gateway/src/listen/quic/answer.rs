//! From a request of HTTP/3 to its answer, or to the tunnel that it opens.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use pomerium_shared::{
    quic::BIDI_STREAMS_MAX,
    reason::EndReason,
    tunnel::{Protocol, ServerSend, ServerStream},
    udp,
};

use super::{
    super::{
        HEADERS_MAX,
        h3_body::{self, RequestBody},
        held::NotTaken,
        websocket,
    },
    Quinn,
};
use crate::{
    body::{self, Body},
    proxy::{Connection, LegToCome, Proxy},
};

/// Answers a request; its stream has ended when this returns.
pub(super) async fn answer(
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
            return open_websocket(request, stream, quic, facts, proxy).await;
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
    match within(idle, send.respond(Response::from_parts(parts, ()))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return tracing::debug!(%error, "a response was not delivered"),
        Err(error) => return broken_off(send, &error),
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
            Ok(bytes) => within(idle, send.send(bytes)).await,
            Err(Ok(trailers)) => within(idle, send.trailers(trailers)).await,
            Err(Err(_)) => Ok(Ok(())),
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return tracing::debug!(%error, "a response was not delivered"),
            Err(error) => return broken_off(send, &error),
        }
    }
    if let Err(error) = send.finish().await {
        tracing::debug!(%error, "a response was not delivered");
    }
}

fn broken_off(send: ServerSend, error: &NotTaken) {
    tracing::debug!(%error, "a response was broken off");
    send.abort(EndReason::Idle);
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
            if takes(&mut stream, response, quic).await {
                let owner = if open.can_be_resumed() { &quic.resumable } else { &quic.streams };
                proxy.carry(open, stream.into_leg().holding(owner.token())).await;
            }
        }
        Err(refusal) => refuse(refusal, stream, proxy.settings().timeouts.idle).await,
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
            if takes(&mut stream, response, quic).await {
                proxy.carry_flow(open, stream.into_carriage(flow)).await;
            }
        }
        Err(refusal) => refuse(refusal, stream, proxy.settings().timeouts.idle).await,
    }
}

/// Opens a WebSocket (RFC 9220): to policy and app the same as on HTTP/1.1.
async fn open_websocket(
    request: Request<()>,
    mut stream: ServerStream,
    quic: &Quinn,
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
        return refuse(response, stream, idle).await;
    }
    if takes(&mut stream, response.map(drop), quic).await {
        opened.with(stream.into_leg());
    }
}

/// Sends the head that opens a tunnel; says whether the client took it. Until then nothing is carried, and nothing watched: one that
/// grants no room would hold the app's connection.
async fn takes(stream: &mut ServerStream, head: Response<()>, quic: &Quinn) -> bool {
    match tokio::time::timeout(quic.waits.header, stream.respond(head)).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::debug!(%error, "the client left before its stream began"),
        Err(_) => tracing::debug!("the client did not take the answer that opens its stream"),
    }
    false
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

async fn refuse(refusal: Response<Body>, stream: ServerStream, idle: Option<Duration>) {
    // Held until it is told: to stop what a client sends comes after saying why.
    let (send, _requested) = stream.split();
    respond(refusal, send, true, idle).await;
}
