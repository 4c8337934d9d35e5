//! The client's end: one QUIC connection, any number of streams.

use bytes::{Buf as _, Bytes, BytesMut};
use h3::{client::RequestStream, error::Code, ext::Protocol};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use tokio_util::task::TaskTracker;

use super::{Chunks, FIELD_SECTION_LEN_MAX, TunnelError, h3_quinn};
use crate::{
    destination::Destination,
    problem::PROBLEM_LEN_MAX,
    relay::{H3Recv, H3Send, Leg},
    udp::{self, Carriage, datagrams::Datagrams},
};

type SendRequest = h3::client::SendRequest<h3_quinn::OpenStreams, Chunks>;
type ClientStream = RequestStream<h3_quinn::BidiStream<Chunks>, Chunks>;

/// A connection to a gateway, shared by its clones.
///
/// The QUIC connection closes when the last clone is dropped: hold one for as long as its streams shall live.
#[derive(Clone)]
pub struct TunnelClient {
    quic: quinn::Connection,
    requests: SendRequest,
    datagrams: Datagrams,
}

/// What the gateway answers to a CONNECT, or to a CONNECT-UDP.
#[derive(Debug)]
pub enum Connected<S = Leg> {
    /// The app is reached.
    Open {
        /// Status (2xx) and header.
        response: Response<()>,
        /// The stream, ready for [`crate::relay::run`] or [`crate::udp::run`].
        leg: S,
    },
    /// The gateway said no, and why: mostly a [`crate::problem::Problem`], cut off after [`PROBLEM_LEN_MAX`] bytes.
    Refused(Response<Bytes>),
}

impl TunnelClient {
    /// Begins HTTP/3 on a QUIC connection; what the gateway says about the connection as a whole is read by a task of
    /// `tracker`, which ends with the connection.
    ///
    /// # Errors
    /// [`TunnelError::Connection`]: it was lost meanwhile.
    pub async fn handshake(quic: quinn::Connection, tracker: &TaskTracker) -> Result<Self, TunnelError> {
        let (mut connection, requests) = h3::client::builder()
            .max_field_section_size(FIELD_SECTION_LEN_MAX)
            .send_grease(false)
            .enable_extended_connect(true)
            .enable_datagram(true)
            .build(h3_quinn::Connection::new(quic.clone()))
            .await?;
        let datagrams = Datagrams::new(quic.clone());
        let arriving = datagrams.clone();
        tracker.spawn(async move {
            let (end, ()) = tokio::join!(connection.wait_idle(), arriving.run());
            tracing::debug!(error = %end, "tunnel connection ended");
        });
        Ok(Self { quic, requests, datagrams })
    }

    /// The connection under the tunnel, for its statistics and datagrams.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Waits until the connection is gone. Cancel-safe.
    pub async fn closed(&self) -> quinn::ConnectionError {
        self.quic.closed().await
    }

    /// Asks for a stream to an app: a CONNECT with `:authority` alone (RFC 9114, 4.4). Dropped before it is done, the
    /// request is cancelled.
    ///
    /// # Errors
    /// [`TunnelError::Connection`] and [`TunnelError::Stream`]; a refusal is no error but [`Connected::Refused`].
    pub async fn connect(&self, to: &Destination, headers: HeaderMap) -> Result<Connected, TunnelError> {
        let authority = Uri::builder().authority(to.to_string()).build()?;
        let mut request = Request::builder().method(Method::CONNECT).uri(authority).body(())?;
        *request.headers_mut() = headers;
        let mut stream = self.requests.clone().send_request(request).await?;
        let response = stream.recv_response().await?;
        if response.status().is_success() {
            let (send, recv) = stream.split();
            return Ok(Connected::Open {
                response,
                leg: Leg::h3(H3Recv::Client(recv), H3Send::Client(send)),
            });
        }
        refused(stream, response).await
    }

    /// Asks for a flow of UDP payloads to an app, by way of `gateway`'s own `host[:port]`: an extended CONNECT (RFC 9298, 3.4).
    /// Dropped before it is done, the request is cancelled.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_udp(
        &self,
        gateway: &str,
        to: &Destination,
        headers: HeaderMap,
    ) -> Result<Connected<Carriage>, TunnelError> {
        let uri =
            Uri::builder().scheme("https").authority(gateway).path_and_query(udp::path::of(to)).build()?;
        let mut request = Request::builder().method(Method::CONNECT).uri(uri).body(())?;
        *request.headers_mut() = headers;
        let (name, value) = udp::CAPSULE_PROTOCOL;
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request.extensions_mut().insert(Protocol::CONNECT_UDP);
        let mut stream = self.requests.clone().send_request(request).await?;
        // What comes right behind the answer must find the flow.
        let flow = self.datagrams.flow(stream.id().into_inner());
        let response = stream.recv_response().await?;
        if response.status().is_success() {
            let (send, recv) = stream.split();
            let leg = Leg::h3(H3Recv::Client(recv), H3Send::Client(send));
            return Ok(Connected::Open { response, leg: Carriage { stream: leg, flow: Some(flow) } });
        }
        refused(stream, response).await
    }

    /// Makes one ordinary request; its URI must have scheme, authority and path.
    ///
    /// # Errors
    /// [`TunnelError::BodyTooLong`] for an answer above `body_len_max` bytes, beside those of
    /// [`connect`](Self::connect).
    pub async fn request(
        &self,
        request: Request<Bytes>,
        body_len_max: usize,
    ) -> Result<Response<Bytes>, TunnelError> {
        let (parts, body) = request.into_parts();
        let mut stream = self.requests.clone().send_request(Request::from_parts(parts, ())).await?;
        if !body.is_empty() {
            stream.send_data(body.into()).await?;
        }
        stream.finish().await?;
        let response = stream.recv_response().await?;
        match read_body(&mut stream, body_len_max).await? {
            Body::Whole(body) => Ok(response.map(|()| body)),
            Body::Cut(_) => Err(TunnelError::BodyTooLong { len_max: body_len_max }),
        }
    }
}

async fn refused<S>(mut stream: ClientStream, response: Response<()>) -> Result<Connected<S>, TunnelError> {
    let body = match read_body(&mut stream, PROBLEM_LEN_MAX).await? {
        Body::Whole(body) | Body::Cut(body) => body,
    };
    Ok(Connected::Refused(response.map(|()| body)))
}

impl std::fmt::Debug for TunnelClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelClient").field("quic", &self.quic).finish_non_exhaustive()
    }
}

enum Body {
    Whole(Bytes),
    Cut(Bytes),
}

async fn read_body(stream: &mut ClientStream, len_max: usize) -> Result<Body, TunnelError> {
    let mut body = BytesMut::new();
    while let Some(mut piece) = stream.recv_data().await? {
        let room = len_max - body.len();
        if piece.remaining() > room {
            body.extend_from_slice(&piece.copy_to_bytes(room));
            stream.stop_sending(Code::H3_REQUEST_CANCELLED);
            return Ok(Body::Cut(body.freeze()));
        }
        body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    Ok(Body::Whole(body.freeze()))
}
