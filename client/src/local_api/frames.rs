//! A stream over the Unix socket, in frames: a length of four bytes (big-endian), then so many bytes; a length of 0 ends its
//! direction. A connection that ends without it was cut: a Unix socket has no reset that could say so.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a frame at most.
const FRAME_LEN_MAX: usize = 256 * 1024;
const HEAD_LEN: usize = 4;

/// Reads a direction of a stream out of frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    inner: R,
    head: [u8; HEAD_LEN],
    head_filled: usize,
    left: usize,
    is_ended: bool,
}

impl<R> FrameReader<R> {
    /// Reads frames from `inner`.
    pub(crate) const fn new(inner: R) -> Self {
        Self { inner, head: [0; HEAD_LEN], head_filled: 0, left: 0, is_ended: false }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for FrameReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.is_ended || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.left == 0 {
                let mut head = ReadBuf::new(&mut this.head[this.head_filled..]);
                ready!(Pin::new(&mut this.inner).poll_read(context, &mut head))?;
                if head.filled().is_empty() {
                    return Poll::Ready(Err(cut()));
                }
                this.head_filled += head.filled().len();
                if this.head_filled < HEAD_LEN {
                    continue;
                }
                this.head_filled = 0;
                this.left = usize::try_from(u32::from_be_bytes(this.head)).map_err(io::Error::other)?;
                if this.left > FRAME_LEN_MAX {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a frame is too long",
                    )));
                }
                this.is_ended = this.left == 0;
                continue;
            }
            let room = this.left.min(into.remaining());
            let mut part = ReadBuf::new(into.initialize_unfilled_to(room));
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
            let len = part.filled().len();
            if len == 0 {
                return Poll::Ready(Err(cut()));
            }
            into.advance(len);
            this.left -= len;
            return Poll::Ready(Ok(()));
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the stream was cut")
}

/// Writes a direction of a stream in frames; only its shutdown ends it cleanly.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    inner: W,
    head: [u8; HEAD_LEN],
    head_left: usize,
    /// Bytes that the frame begun last still lacks.
    left: usize,
    is_ended: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `inner`.
    pub(crate) const fn new(inner: W) -> Self {
        Self { inner, head: [0; HEAD_LEN], head_left: 0, left: 0, is_ended: false }
    }

    fn begin(&mut self, len: usize) -> io::Result<()> {
        self.head = u32::try_from(len).map_err(io::Error::other)?.to_be_bytes();
        (self.head_left, self.left) = (HEAD_LEN, len);
        Ok(())
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.head_left > 0 {
            let rest = &self.head[HEAD_LEN - self.head_left..];
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head_left -= written;
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for FrameWriter<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.left == 0 {
            self.begin(bytes.len().min(FRAME_LEN_MAX))?;
        }
        ready!(self.poll_head(context))?;
        let part = &bytes[..bytes.len().min(self.left)];
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, part))?;
        self.left -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.left > 0 {
            return Poll::Ready(Err(io::Error::other("a frame was not written whole")));
        }
        if !self.is_ended {
            self.begin(0)?;
            self.is_ended = true;
        }
        ready!(self.poll_head(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    async fn framed(pieces: &[Vec<u8>], is_ended: bool) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut writer = FrameWriter::new(&mut wire);
        for piece in pieces {
            writer.write_all(piece).await.unwrap();
        }
        if is_ended {
            writer.shutdown().await.unwrap();
        }
        wire
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_is_cut_and_not_ended() {
        let (near, far) = duplex(64);
        let mut writer = FrameWriter::new(near);
        writer.write_all(b"half").await.unwrap();
        drop(writer);
        let (mut reader, mut read) = (FrameReader::new(far), Vec::new());
        let error = reader.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), read.as_slice()), (io::ErrorKind::ConnectionReset, &b"half"[..]));
    }

    #[tokio::test]
    async fn a_frame_of_any_size_is_not_believed() {
        let wire = [&[0xff_u8; 4][..], b"x"].concat();
        assert!(FrameReader::new(&wire[..]).read_to_end(&mut Vec::new()).await.is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_whatever_the_pieces(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            room in 1_usize..40,
        ) {
            let read = run(async {
                let (near, far) = duplex(room);
                let mut writer = FrameWriter::new(near);
                let write = async {
                    for piece in &pieces {
                        writer.write_all(piece).await.unwrap();
                    }
                    writer.shutdown().await.unwrap();
                };
                let (mut reader, mut read) = (FrameReader::new(far), Vec::new());
                let (_, ended) = tokio::join!(write, reader.read_to_end(&mut read));
                ended.unwrap();
                read
            });
            prop_assert_eq!(read, pieces.concat());
        }

        #[test]
        fn nothing_that_is_cut_anywhere_seems_whole(bytes in proptest::collection::vec(any::<u8>(), 1..60), keep: prop::sample::Index) {
            let wire = run(framed(&[bytes], true));
            let cut = &wire[..keep.index(wire.len())];
            let ended = run(async { FrameReader::new(cut).read_to_end(&mut Vec::new()).await });
            prop_assert!(ended.is_err());
        }
    }
}
