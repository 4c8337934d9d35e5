//! Requests whose connection or stream becomes a tunnel: `CONNECT`, datagrams, WebSockets on HTTP/2.

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pomerium_shared::{
    relay::Leg,
    udp::{self, Carriage},
};

use super::{
    super::{idle::UnderWay, websocket},
    Door,
};
use crate::{
    body::{self, Body},
    proxy::{Connection, KeptOpen},
};

impl Door {
    /// Opens a stream; the bytes flow once the 200 is out and the connection or h2 stream is ours.
    pub(super) async fn connect(
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
    pub(super) async fn websocket(
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

    /// Opens a flow of datagrams (RFC 9298, 3), which go as capsules once the answer is out and the connection or h2 stream is
    /// ours.
    pub(super) async fn connect_udp(
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
pub(super) fn asks_for_udp(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && upgrade.is_some_and(|value| value.eq_ignore_ascii_case(udp::UPGRADE))
        && request.uri().path().starts_with(udp::path::PREFIX)
}
