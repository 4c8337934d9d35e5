//! `h3`'s QUIC traits over quinn's streams.
//!
//! Here bytes cross between quinn and `h3`: many chunks a lock on the way in (`recv`), one buffer a frame on the way
//! out (`send`), cut at frame borders (`frames`). What the bytes mean does not belong here.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, WriteBuf},
};
use quinn::{ConnectionError, VarInt};

mod connect;
mod frames;
mod recv;
mod send;

pub use recv::RecvStream;
pub use send::SendStream;

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>;
type TwoWay = (quinn::SendStream, quinn::RecvStream);

/// One QUIC connection, as `h3` wants to see it.
pub struct Connection {
    opener: OpenStreams,
    accepting_bidi: Option<Opening<TwoWay>>,
    accepting_uni: Option<Opening<quinn::RecvStream>>,
}

impl Connection {
    /// Wraps a connection whose handshake is done.
    #[must_use]
    pub fn new(quic: quinn::Connection) -> Self {
        Self { opener: OpenStreams::new(quic), accepting_bidi: None, accepting_uni: None }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("quic", &self.opener.quic).finish_non_exhaustive()
    }
}

impl<B: Buf> quic::Connection<B> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let quic = &self.opener.quic;
        let opened = ready!(poll_opening(&mut self.accepting_uni, cx, || {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_uni().await })
        }));
        Poll::Ready(opened.map(RecvStream::one_way).map_err(connection_error))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        let quic = &self.opener.quic;
        let opened = ready!(poll_opening(&mut self.accepting_bidi, cx, || {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_bi().await })
        }));
        Poll::Ready(opened.map(BidiStream::new).map_err(connection_error))
    }

    fn opener(&self) -> Self::OpenStreams {
        self.opener.clone()
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
    type BidiStream = BidiStream<B>;
    type SendStream = SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<B>::close(&mut self.opener, code, reason);
    }
}

/// Opens streams of a [`Connection`].
pub struct OpenStreams {
    quic: quinn::Connection,
    opening_bidi: Option<Opening<TwoWay>>,
    opening_uni: Option<Opening<quinn::SendStream>>,
}

impl OpenStreams {
    fn new(quic: quinn::Connection) -> Self {
        Self { quic, opening_bidi: None, opening_uni: None }
    }
}

impl Clone for OpenStreams {
    fn clone(&self) -> Self {
        Self::new(self.quic.clone())
    }
}

impl std::fmt::Debug for OpenStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenStreams").field("quic", &self.quic).finish_non_exhaustive()
    }
}

impl<B: Buf> quic::OpenStreams<B> for OpenStreams {
    type BidiStream = BidiStream<B>;
    type SendStream = SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opened = ready!(poll_opening(&mut self.opening_bidi, cx, || {
            let quic = quic.clone();
            Box::pin(async move { quic.open_bi().await })
        }));
        Poll::Ready(opened.map(BidiStream::new).map_err(stream_error))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opened = ready!(poll_opening(&mut self.opening_uni, cx, || {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        }));
        Poll::Ready(opened.map(SendStream::one_way).map_err(stream_error))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(error_code(code.value()), reason);
    }
}

/// A request stream, both directions.
#[derive(Debug)]
pub struct BidiStream<B: Buf> {
    send: SendStream<B>,
    recv: RecvStream,
}

impl<B: Buf> BidiStream<B> {
    fn new((send, recv): TwoWay) -> Self {
        Self { send: SendStream::request(send), recv: RecvStream::request(recv) }
    }
}

impl<B: Buf> quic::BidiStream<B> for BidiStream<B> {
    type SendStream = SendStream<B>;
    type RecvStream = RecvStream;

    fn split(self) -> (Self::SendStream, Self::RecvStream) {
        (self.send, self.recv)
    }
}

impl<B: Buf> quic::RecvStream for BidiStream<B> {
    type Buf = bytes::Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Self::Buf>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> quic::StreamId {
        self.recv.recv_id()
    }
}

impl<B: Buf> quic::SendStream<B> for BidiStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> quic::StreamId {
        self.send.send_id()
    }
}

fn poll_opening<T>(
    slot: &mut Option<Opening<T>>,
    cx: &mut Context<'_>,
    begin: impl FnOnce() -> Opening<T>,
) -> Poll<Result<T, ConnectionError>> {
    let opened = ready!(slot.get_or_insert_with(begin).as_mut().poll(cx));
    *slot = None;
    Poll::Ready(opened)
}

fn stream_id(id: quinn::StreamId) -> quic::StreamId {
    u64::from(VarInt::from(id)).try_into().expect("a QUIC stream id has 62 bits")
}

/// A code for the wire; one above 62 bits, which none of ours is, becomes the largest.
fn error_code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn stream_error(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}
