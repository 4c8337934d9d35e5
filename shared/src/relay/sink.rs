//! The writing half of a leg: a batch goes out in as few calls as it takes.

use std::{
    io::{self, IoSlice},
    mem,
    net::Shutdown,
    sync::Arc,
};

use bytes::Buf as _;
use socket2::SockRef;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::leg::{H3Send, LegError, reset_on_close};
use crate::{reason::EndReason, resume::PipeWriter, tunnel::Chunks};

/// Pieces in one vectored write: 64 packets' worth, far below the system's limit of 1,024.
const SLICES_MAX: usize = 64;

pub(crate) enum Sink {
    Io(Box<dyn AsyncWrite + Send + Unpin>),
    Tcp(Arc<TcpStream>),
    H3(Box<H3Send>),
    Pipe(PipeWriter),
}

impl Sink {
    pub(crate) fn io(writer: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self::Io(writer)
    }

    pub(crate) fn tcp(stream: Arc<TcpStream>) -> Self {
        Self::Tcp(stream)
    }

    pub(crate) fn h3(send: H3Send) -> Self {
        Self::H3(Box::new(send))
    }

    /// Writes all of a batch. Over TCP and into a pipe cancel-safe: what is left in the batch was not written. Any other leg whose
    /// write was dropped must be aborted.
    pub(crate) async fn write(&mut self, batch: &mut Chunks) -> Result<(), LegError> {
        match self {
            Self::Io(writer) => {
                writer.write_all_buf(batch).await.map_err(LegError::Io)?;
                writer.flush().await.map_err(LegError::Io)
            }
            Self::Tcp(stream) => write_tcp(stream, batch).await.map_err(LegError::Io),
            Self::H3(send) => send.send(mem::take(batch)).await.map_err(LegError::H3),
            Self::Pipe(writer) => writer.write(batch).await,
        }
    }

    /// Passes on that no more bytes come.
    pub(crate) async fn finish(&mut self) -> Result<(), LegError> {
        match self {
            Self::Io(writer) => writer.shutdown().await.map_err(LegError::Io),
            Self::Tcp(stream) => match SockRef::from(&**stream).shutdown(Shutdown::Write) {
                // The peer is gone both ways; the reading half says how.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                done => done.map_err(LegError::Io),
            },
            Self::H3(send) => send.finish().await.map_err(LegError::H3),
            Self::Pipe(writer) => writer.finish(),
        }
    }

    pub(crate) fn abort(&mut self, reason: EndReason) {
        match self {
            Self::Io(_) => {}
            Self::Tcp(stream) => reset_on_close(stream),
            Self::H3(send) => send.abort(reason),
            Self::Pipe(writer) => writer.abort(reason),
        }
    }

    /// The word for `Debug`.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Tcp(_) => "tcp",
            Self::H3(_) => "h3",
            Self::Pipe(_) => "pipe",
        }
    }
}

async fn write_tcp(stream: &TcpStream, batch: &mut Chunks) -> io::Result<()> {
    while !batch.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = batch.chunks_vectored(&mut slices);
        match stream.try_write_vectored(&slices[..filled]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => batch.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
