//! The client's end: one QUIC connection, any number of streams.

use std::{fmt, future::poll_fn};

use bytes::{Buf as _, Bytes, BytesMut};
use h3::{ConnectionState as _, client::RequestStream, error::Code, ext::Protocol};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

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
/// The QUIC connection closes when the last clone is dropped: hold one for as long as its streams shall live
/// ([`finished`](Self::finished)).
#[derive(Clone)]
pub struct TunnelClient {
    quic: quinn::Connection,
    requests: SendRequest,
    datagrams: Datagrams,
    /// Cancelled when the gateway says that it takes no more requests here.
    goodbye: CancellationToken,
    /// Holds a token for each request and each open stream.
    streams: TaskTracker,
}

/// Why a connection takes no more streams.
#[derive(Debug)]
pub enum TunnelEnd {
    /// It is gone.
    Lost(quinn::ConnectionError),
    /// The gateway is stopping, and lets the streams finish that it has.
    Goodbye,
}

impl fmt::Display for TunnelEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => error.fmt(f),
            Self::Goodbye => f.write_str("the gateway is stopping"),
        }
    }
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
        let goodbye = CancellationToken::new();
        let said = goodbye.clone();
        tracker.spawn(async move {
            let ending = poll_fn(|cx| {
                let polled = connection.poll_close(cx);
                // A GOAWAY was read by that, if one came.
                if connection.is_closing() {
                    said.cancel();
                }
                polled
            });
            let (end, ()) = tokio::join!(ending, arriving.run());
            tracing::debug!(error = %end, "tunnel connection ended");
        });
        Ok(Self { quic, requests, datagrams, goodbye, streams: TaskTracker::new() })
    }

    /// The connection under the tunnel, for its statistics and datagrams.
    #[must_use]
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Whether new streams may be asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.quic.close_reason().is_none() && !self.goodbye.is_cancelled()
    }

    /// Waits until no new streams may be asked for. Cancel-safe.
    pub async fn ended(&self) -> TunnelEnd {
        tokio::select! {
            error = self.quic.closed() => TunnelEnd::Lost(error),
            () = self.goodbye.cancelled() => TunnelEnd::Goodbye,
        }
    }

    /// Waits until the last stream has ended, or the connection; for when nobody asks for streams any more.
    pub async fn finished(&self) {
        self.streams.close();
        tokio::select! {
            () = self.streams.wait() => {}
            _gone = self.quic.closed() => {}
        }
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
        let token = self.streams.token();
        let mut stream = self.requests.clone().send_request(request).await?;
        let response = stream.recv_response().await?;
        if response.status().is_success() {
            let (send, recv) = stream.split();
            let leg = Leg::h3(H3Recv::Client(recv), H3Send::Client(send)).holding(token);
            return Ok(Connected::Open { response, leg });
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
        let token = self.streams.token();
        let mut stream = self.requests.clone().send_request(request).await?;
        // What comes right behind the answer must find the flow.
        let flow = self.datagrams.flow(stream.id().into_inner());
        let response = stream.recv_response().await?;
        if response.status().is_success() {
            let (send, recv) = stream.split();
            let leg = Leg::h3(H3Recv::Client(recv), H3Send::Client(send)).holding(token);
            return Ok(Connected::Open { response, leg: Carriage { stream: leg, flow: Some(flow) } });
        }
        refused(stream, response).await
    }

    /// Makes one ordinary request without a body, and leaves the answer's to be read as it comes; its URI must have scheme,
    /// authority and path.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn streamed(&self, request: Request<()>) -> Result<Response<Streamed>, TunnelError> {
        let counted = self.streams.token();
        let mut stream = self.requests.clone().send_request(request).await?;
        stream.finish().await?;
        let response = stream.recv_response().await?;
        Ok(response.map(|()| Streamed { stream, _counted: counted }))
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
        let _counted = self.streams.token();
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

/// The body of an answer, as it comes.
pub struct Streamed {
    stream: ClientStream,
    _counted: TaskTrackerToken,
}

impl Streamed {
    /// The next piece; `None` at the end. Dropped before that, the request is cancelled. Cancel-safe.
    ///
    /// # Errors
    /// As [`TunnelClient::connect`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, TunnelError> {
        Ok(self.stream.recv_data().await?.map(|mut piece| piece.copy_to_bytes(piece.remaining())))
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("id", &self.stream.id()).finish_non_exhaustive()
    }
}

async fn refused<S>(mut stream: ClientStream, response: Response<()>) -> Result<Connected<S>, TunnelError> {
    let body = match read_body(&mut stream, PROBLEM_LEN_MAX).await? {
        Body::Whole(body) | Body::Cut(body) => body,
    };
    Ok(Connected::Refused(response.map(|()| body)))
}

impl fmt::Debug for TunnelClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
