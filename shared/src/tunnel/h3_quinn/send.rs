//! The sending half: a frame goes to quinn as one buffer, and a stream that was not finished is reset.

use std::{
    marker::PhantomData,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, StreamErrorIncoming, WriteBuf},
};
use quinn::WriteError;

use super::{connect::plain_connect, error_code, stream_error, stream_id};

/// The sending half of a stream.
///
/// Dropping a quinn stream finishes it, and the peer takes a half-written answer for a whole one. Dropping this one
/// before its end resets it with `H3_REQUEST_CANCELLED`.
#[derive(Debug)]
pub struct SendStream<B> {
    quic: quinn::SendStream,
    // What of the frame quinn did not take yet.
    writing: Bytes,
    // The first frame of a stream is its header.
    is_first: bool,
    is_open: bool,
    buf: PhantomData<fn(B)>,
}

impl<B: Buf> SendStream<B> {
    pub(super) fn request(quic: quinn::SendStream) -> Self {
        Self { quic, writing: Bytes::new(), is_first: true, is_open: true, buf: PhantomData }
    }

    /// A one-way stream of HTTP/3's own, which lives as long as the connection and is never reset
    /// (RFC 9114, 6.2.1).
    pub(super) fn one_way(quic: quinn::SendStream) -> Self {
        Self { quic, writing: Bytes::new(), is_first: false, is_open: false, buf: PhantomData }
    }
}

impl<B: Buf> quic::SendStream<B> for SendStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            let mut bufs = [std::mem::take(&mut self.writing)];
            let written = pin!(self.quic.write_chunks(&mut bufs)).poll(cx);
            // quinn takes from the front, so this is the rest, all of it if nothing was taken.
            let [rest] = bufs;
            self.writing = rest;
            if let Err(error) = ready!(written) {
                self.writing = Bytes::new();
                return Poll::Ready(Err(write_error(error)));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        debug_assert!(self.writing.is_empty(), "h3 waits for poll_ready before it sends more");
        let mut data = data.into();
        // One copy into one buffer: quinn then cuts packets from it without another.
        let frame = data.copy_to_bytes(data.remaining());
        self.writing =
            if std::mem::replace(&mut self.is_first, false) { plain_connect(frame) } else { frame };
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        self.is_open = false;
        Poll::Ready(self.quic.finish().map_err(|closed| StreamErrorIncoming::Unknown(Box::new(closed))))
    }

    fn reset(&mut self, reset_code: u64) {
        self.is_open = false;
        // An error says that the stream is over already, which is all that is wanted.
        let _ = self.quic.reset(error_code(reset_code));
    }

    fn send_id(&self) -> quic::StreamId {
        stream_id(self.quic.id())
    }
}

impl<B> Drop for SendStream<B> {
    fn drop(&mut self) {
        if self.is_open {
            let _ = self.quic.reset(error_code(Code::H3_REQUEST_CANCELLED.value()));
        }
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => stream_error(error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            StreamErrorIncoming::Unknown(Box::new(error))
        }
    }
}
