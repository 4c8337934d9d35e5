//! The reading half of a leg: as much as is there at once, up to a batch.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use h3::error::StreamError;
use tokio::{io::AsyncRead, net::TcpStream};
use tokio_util::io::poll_read_buf;

use super::leg::{H3Recv, LegError, reset_on_close};
use crate::{reason::EndReason, resume::PipeReader, tunnel::Chunks};

/// Bytes handed on at a time at most: one DATA frame, or one vectored write.
const BATCH_LEN_MAX: usize = 256 * 1024;

/// Bytes of room that a quiet stream gets; a busy one grows to [`BATCH_LEN_MAX`].
const READ_LEN_MIN: usize = 16 * 1024;

pub(crate) enum Source {
    Io { reader: Box<dyn AsyncRead + Send + Unpin>, buffer: ReadBuffer },
    Tcp { stream: Arc<TcpStream>, buffer: ReadBuffer },
    H3 { recv: Box<H3Recv>, end: Option<Result<(), StreamError>> },
    Pipe(PipeReader),
}

impl Source {
    pub(crate) fn io(reader: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self::Io { reader, buffer: ReadBuffer::default() }
    }

    pub(crate) fn tcp(stream: Arc<TcpStream>) -> Self {
        Self::Tcp { stream, buffer: ReadBuffer::default() }
    }

    pub(crate) fn h3(recv: H3Recv) -> Self {
        Self::H3 { recv: Box::new(recv), end: None }
    }

    /// Waits for bytes and takes what is there; `None` at the end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Option<Chunks>, LegError> {
        match self {
            Self::Io { reader, buffer } => {
                let count = poll_fn(|cx| poll_io(reader, buffer, cx)).await.map_err(LegError::Io)?;
                Ok(buffer.take(count))
            }
            Self::Tcp { stream, buffer } => read_tcp(stream, buffer).await.map_err(LegError::Io),
            Self::H3 { recv, end } => poll_fn(|cx| poll_h3(recv, end, cx)).await.map_err(LegError::H3),
            Self::Pipe(reader) => reader.read().await,
        }
    }

    pub(crate) fn abort(&mut self, reason: EndReason) {
        match self {
            // The writing half of a pipe cuts both.
            Self::Io { .. } | Self::Pipe(_) => {}
            Self::Tcp { stream, .. } => reset_on_close(stream),
            Self::H3 { recv, .. } => recv.abort(reason),
        }
    }
}

fn poll_io(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    buffer: &mut ReadBuffer,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let polled = poll_read_buf(Pin::new(reader), cx, buffer.room());
    if polled.is_pending() {
        // Nothing there: a stream that waits holds no memory.
        buffer.release();
    }
    polled
}

async fn read_tcp(stream: &TcpStream, buffer: &mut ReadBuffer) -> io::Result<Option<Chunks>> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(buffer.room()) {
            Ok(count) => return Ok(buffer.take(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer.release(),
            Err(error) => return Err(error),
        }
    }
}

/// Takes all DATA that arrived, up to a batch; an end found behind it is kept for the next call.
fn poll_h3(
    recv: &mut H3Recv,
    end: &mut Option<Result<(), StreamError>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Chunks>, StreamError>> {
    let mut batch = Chunks::default();
    while end.is_none() && batch.remaining() < BATCH_LEN_MAX {
        match poll_recv(recv, cx) {
            Poll::Ready(Ok(Some(piece))) => batch.push(piece),
            Poll::Ready(Ok(None)) => *end = Some(Ok(())),
            Poll::Ready(Err(error)) => *end = Some(Err(error)),
            Poll::Pending if batch.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    if !batch.is_empty() {
        return Poll::Ready(Ok(Some(batch)));
    }
    match end.replace(Ok(())) {
        Some(Err(error)) => Poll::Ready(Err(error)),
        _ => Poll::Ready(Ok(None)),
    }
}

fn poll_recv(recv: &mut H3Recv, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
    fn whole(mut piece: impl Buf) -> Bytes {
        piece.copy_to_bytes(piece.remaining())
    }
    match recv {
        H3Recv::Server(stream) => stream.poll_recv_data(cx).map_ok(|piece| piece.map(whole)),
        H3Recv::Client(stream) => stream.poll_recv_data(cx).map_ok(|piece| piece.map(whole)),
    }
}

/// A buffer that grows with what one read brings, and is reused once its bytes were handed on.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    bytes: BytesMut,
    len: usize,
}

impl ReadBuffer {
    fn room(&mut self) -> &mut BytesMut {
        self.len = self.len.clamp(READ_LEN_MIN, BATCH_LEN_MAX);
        self.bytes.reserve(self.len);
        &mut self.bytes
    }

    fn take(&mut self, count: usize) -> Option<Chunks> {
        if count == 0 {
            return None;
        }
        if count == self.len {
            self.len *= 2;
        }
        Some(Chunks::from(self.bytes.split().freeze()))
    }

    fn release(&mut self) {
        self.bytes = BytesMut::new();
        self.len = READ_LEN_MIN;
    }
}
