//! The gateway's end: accepts requests, answers them, and turns an accepted CONNECT into a leg.

use std::future::poll_fn;

use bytes::{Buf as _, Bytes};
use h3::{error::Code, proto::frame::Frame, server::RequestStream};
use http::{HeaderMap, Request, Response};

use super::{
    Chunks, FIELD_SECTION_LEN_MAX, TunnelError,
    extended::{self, Protocol},
    h3_quinn,
};
use crate::{
    reason::EndReason,
    relay::{H3Recv, H3Send, Leg},
    udp::{Carriage, datagrams::Flow},
};

/// An HTTP/3 connection on the gateway's side.
pub type ServerConnection = h3::server::Connection<h3_quinn::Connection, Chunks>;

/// A request whose head has not been read yet.
pub type RequestToCome = h3::server::RequestResolver<h3_quinn::Connection, Chunks>;

/// Begins HTTP/3 on a QUIC connection, with extended CONNECT (RFC 9220) and datagrams (RFC 9297).
///
/// # Errors
/// [`TunnelError::Connection`]: it was lost meanwhile.
pub async fn accept(quic: quinn::Connection) -> Result<ServerConnection, TunnelError> {
    let connection = h3::server::builder()
        .max_field_section_size(FIELD_SECTION_LEN_MAX)
        .send_grease(false)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .build(h3_quinn::Connection::new(quic))
        .await?;
    Ok(connection)
}

/// Reads a request's head. What an extended CONNECT (RFC 9220) asks for is the [`Protocol`] in its extensions. Not
/// cancel-safe: a request whose head does not come in time is given up.
///
/// # Errors
/// [`TunnelError::Stream`]: the head is malformed or too long, and its stream has been reset.
pub async fn request(mut coming: RequestToCome) -> Result<(Request<()>, ServerStream), TunnelError> {
    let mut frame = poll_fn(|cx| coming.frame_stream.poll_next(cx)).await;
    let mut protocol = None;
    if let Ok(Some(Frame::Headers(section))) = &mut frame {
        protocol = extended::take_protocol(section);
    }
    let (mut request, stream) = coming.accept_with_frame(frame)?.resolve().await?;
    if request.extensions_mut().remove::<h3::ext::Protocol>().is_some() {
        // Overlooked above, but not by h3: this is no plain CONNECT.
        protocol = Some(Protocol::Other);
    }
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(protocol);
    }
    Ok((request, ServerStream { stream }))
}

/// A request's stream: its body comes in, the answer goes out.
///
/// Dropped before [`finish`](Self::finish), it is reset: a half-written answer never looks whole.
pub struct ServerStream {
    stream: RequestStream<h3_quinn::BidiStream<Chunks>, Chunks>,
}

impl ServerStream {
    /// Sends the answer's status and header. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn respond(&mut self, response: Response<()>) -> Result<(), TunnelError> {
        Ok(self.stream.send_response(response).await?)
    }

    /// Sends body bytes as one DATA frame. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), TunnelError> {
        Ok(self.stream.send_data(bytes.into()).await?)
    }

    /// Ends the answer. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn finish(&mut self) -> Result<(), TunnelError> {
        Ok(self.stream.finish().await?)
    }

    /// Waits for body bytes; `None` at the body's end. Cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`]: among others, the body was cut.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, TunnelError> {
        Ok(self.stream.recv_data().await?.map(|mut buf| buf.copy_to_bytes(buf.remaining())))
    }

    /// Parts the answer from the body, so that both may flow at once.
    #[must_use]
    pub fn split(self) -> (ServerSend, ServerRecv) {
        let (send, recv) = self.stream.split();
        (ServerSend { stream: send }, ServerRecv { stream: recv })
    }

    /// Turns an accepted CONNECT (answered with 2xx) into a leg for [`crate::relay::run`].
    #[must_use]
    pub fn into_leg(self) -> Leg {
        let (send, recv) = self.stream.split();
        Leg::h3(H3Recv::Server(recv), H3Send::Server(send))
    }

    /// Turns an accepted CONNECT-UDP (answered with 2xx) into what [`crate::udp::run`] carries a flow on.
    #[must_use]
    pub fn into_carriage(self, flow: Flow) -> Carriage {
        Carriage { stream: self.into_leg(), flow: Some(flow) }
    }

    /// The number of the stream, which names its flow of datagrams.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.stream.id().into_inner()
    }

    /// Cuts both directions with a reason.
    pub fn abort(mut self, reason: EndReason) {
        self.stream.stop_sending(Code::from(reason.error_code()));
        self.stream.stop_stream(Code::from(reason.error_code()));
    }
}

/// The answer's half of a [`ServerStream`]; dropped unfinished, it is reset.
pub struct ServerSend {
    stream: RequestStream<h3_quinn::SendStream<Chunks>, Chunks>,
}

impl ServerSend {
    /// Sends the answer's status and header. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn respond(&mut self, response: Response<()>) -> Result<(), TunnelError> {
        Ok(self.stream.send_response(response).await?)
    }

    /// Sends body bytes as one DATA frame. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), TunnelError> {
        Ok(self.stream.send_data(bytes.into()).await?)
    }

    /// Sends what comes after the body; [`finish`](Self::finish) ends it. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), TunnelError> {
        Ok(self.stream.send_trailers(trailers).await?)
    }

    /// Ends the answer. Not cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`].
    pub async fn finish(&mut self) -> Result<(), TunnelError> {
        Ok(self.stream.finish().await?)
    }

    /// Cuts the answer with a reason.
    pub fn abort(mut self, reason: EndReason) {
        self.stream.stop_stream(Code::from(reason.error_code()));
    }
}

/// The body's half of a [`ServerStream`]; dropped before its end, the peer is told to stop.
pub struct ServerRecv {
    stream: RequestStream<h3_quinn::RecvStream, Chunks>,
}

impl ServerRecv {
    /// Waits for body bytes; `None` at the body's end. Cancel-safe.
    ///
    /// # Errors
    /// [`TunnelError::Stream`]: among others, the body was cut.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, TunnelError> {
        Ok(self.stream.recv_data().await?.map(|mut buf| buf.copy_to_bytes(buf.remaining())))
    }

    /// What comes after the body, if anything does; only after [`recv`](Self::recv) has said that it ended.
    ///
    /// # Errors
    /// [`TunnelError::Stream`]: among others, pseudo-header fields stand there.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, TunnelError> {
        Ok(self.stream.recv_trailers().await?)
    }

    /// Tells the peer with a reason that no more of the body is wanted.
    pub fn abort(mut self, reason: EndReason) {
        self.stream.stop_sending(Code::from(reason.error_code()));
    }
}

macro_rules! debug_by_id {
    ($($name:ident $id:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("id", &self.stream.$id()).finish_non_exhaustive()
            }
        }
    )*};
}
debug_by_id!(ServerStream id, ServerSend send_id, ServerRecv id);
