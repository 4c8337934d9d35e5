//! A stream over the Unix socket, in frames: a length of four bytes (big-endian), then so many bytes; a length of 0 ends its
//! direction, and one of the error codes of `EndReason` cuts it for that reason. A connection that ends with neither was cut
//! too: a Unix socket has no reset that could say so.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pomerium_shared::reason::EndReason;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::oneshot,
};

/// Bytes of a frame at most.
const FRAME_LEN_MAX: usize = 256 * 1024;
/// Bytes of a frame of ours: as much as a read of the relay brings.
const FRAME_LEN_WRITTEN: usize = 64 * 1024;
const HEAD_LEN: usize = 4;

// A length is never taken for a reason.
const _: () = assert!(FRAME_LEN_MAX < EndReason::Client.error_code() as usize);

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
                let word = u32::from_be_bytes(this.head);
                if let Some(reason) = EndReason::from_error_code(word.into()) {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, reason)));
                }
                this.left = usize::try_from(word).map_err(io::Error::other)?;
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
///
/// What is written and not yet taken is held, so that a stream that is cut in the middle of a frame can still say why.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    inner: Option<W>,
    frame: Vec<u8>,
    written: usize,
    is_ended: bool,
    home: Option<oneshot::Sender<Unended<W>>>,
}

/// The connection of a direction that was dropped before its end.
#[derive(Debug)]
pub(crate) struct Unended<W> {
    inner: W,
    rest: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `inner`.
    pub(crate) const fn new(inner: W) -> Self {
        Self { inner: Some(inner), frame: Vec::new(), written: 0, is_ended: false, home: None }
    }

    /// The same; dropped before its end, the connection comes back, so that it can be told why.
    pub(crate) fn returning(inner: W) -> (Self, oneshot::Receiver<Unended<W>>) {
        let (home, back) = oneshot::channel();
        let mut writer = Self::new(inner);
        writer.home = Some(home);
        (writer, back)
    }

    fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.frame.clear();
        self.frame.extend_from_slice(&len.to_be_bytes());
        self.frame.extend_from_slice(bytes);
        self.written = 0;
        Ok(())
    }

    fn inner(&mut self) -> io::Result<Pin<&mut W>> {
        self.inner.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.frame.len() {
            let Some(inner) = &mut self.inner else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let taken = ready!(Pin::new(inner).poll_write(context, &self.frame[self.written..]))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken;
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
        ready!(self.poll_frame(context))?;
        let part = &bytes[..bytes.len().min(FRAME_LEN_WRITTEN)];
        self.begin(part)?;
        // What does not go out at once goes with the next write or flush.
        match self.poll_frame(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frame(context))?;
        self.inner()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_frame(context))?;
        if !self.is_ended {
            self.is_ended = true;
            self.begin(&[])?;
            ready!(self.poll_frame(context))?;
        }
        self.inner()?.poll_shutdown(context)
    }
}

impl<W> Drop for FrameWriter<W> {
    fn drop(&mut self) {
        if let (false, Some(home), Some(inner)) = (self.is_ended, self.home.take(), self.inner.take()) {
            let rest = self.frame.split_off(self.written.min(self.frame.len()));
            // Nobody waits for it: then the connection ends without a word, which is a cut too.
            let _unwanted = home.send(Unended { inner, rest });
        }
    }
}

impl<W: AsyncWrite + Unpin> Unended<W> {
    /// Writes what was held, and why nothing follows.
    pub(crate) async fn cut(mut self, reason: EndReason) -> io::Result<()> {
        let code = u32::try_from(reason.error_code()).map_err(io::Error::other)?;
        self.inner.write_all(&self.rest).await?;
        self.inner.write_all(&code.to_be_bytes()).await?;
        self.inner.shutdown().await
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
            writer.flush().await.unwrap();
        }
        if is_ended {
            writer.shutdown().await.unwrap();
        }
        drop(writer);
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
        writer.flush().await.unwrap();
        drop(writer);
        let (mut reader, mut read) = (FrameReader::new(far), Vec::new());
        let error = reader.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), read.as_slice()), (io::ErrorKind::ConnectionReset, &b"half"[..]));
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_in_a_frame_loses_nothing_that_was_written_and_says_why() {
        let (near, far) = duplex(3);
        let (mut writer, back) = FrameWriter::returning(near);
        assert_eq!(writer.write(b"half").await.unwrap(), 4);
        drop(writer);
        let (mut reader, mut read) = (FrameReader::new(far), Vec::new());
        let (cut, ended) =
            tokio::join!(back.await.unwrap().cut(EndReason::Policy), reader.read_to_end(&mut read));
        cut.unwrap();
        let error = ended.unwrap_err();
        let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<EndReason>());
        assert_eq!((reason, read.as_slice()), (Some(&EndReason::Policy), &b"half"[..]));
    }

    #[tokio::test]
    async fn a_direction_that_ended_does_not_come_back() {
        let (near, _far) = duplex(64);
        let (mut writer, back) = FrameWriter::returning(near);
        writer.shutdown().await.unwrap();
        drop(writer);
        assert!(back.await.is_err());
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
