//! What a user holds of a flow: an opening to decide on, a stream, or datagrams.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Asleep, Inner, Shared};
use crate::{
    clock::Now,
    netstack::{
        Read, Refusal,
        pair::FlowId,
        stack::{Gone, SendError},
    },
};

/// Our hold on a flow; dropped, the stack hears that nobody has it any more.
#[derive(Debug)]
pub(super) struct End {
    pub(super) shared: Arc<Shared>,
    pub(super) id: FlowId,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) is_left: bool,
}

impl End {
    fn sleep(
        inner: &mut Inner,
        id: FlowId,
        of: impl FnOnce(&mut Asleep) -> &mut Option<Waker>,
        cx: &Context<'_>,
    ) {
        let waker = of(inner.wakers.entry(id).or_default());
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn refuse(mut self, why: Refusal) {
        self.is_left = true;
        self.shared.lock().stack.refuse(self.id, why);
        self.shared.work.notify_one();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.wakers.remove(&self.id);
        if !self.is_left {
            inner.stack.leave(self.id, Now::read().monotonic);
            drop(inner);
            self.shared.work.notify_one();
        }
    }
}

/// A TCP connection that waits for a decision. Dropped without one, it is refused.
#[derive(Debug)]
pub struct Opening {
    pub(super) end: End,
}

impl Opening {
    /// Who opens it.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.end.source
    }

    /// What is reached for.
    #[must_use]
    pub const fn destination(&self) -> SocketAddr {
        self.end.destination
    }

    /// Answers, and only now: the app behind should have answered before.
    ///
    /// # Errors
    /// [`Gone`]: the other side gave up, it took too long, or there is no place for another connection.
    pub fn accept(self) -> Result<TcpStream, Gone> {
        let mut inner = self.end.shared.lock();
        inner.stack.accept(self.end.id, Now::read().monotonic)?;
        drop(inner);
        self.end.shared.work.notify_one();
        Ok(TcpStream { end: self.end, is_shut: false })
    }

    /// Says no.
    pub fn refuse(self, why: Refusal) {
        self.end.refuse(why);
    }
}

/// An accepted connection.
///
/// Each direction ends by itself: a read of nothing is the peer's end, `shutdown` is ours. A reset is an error, never an end.
/// Dropped after `shutdown` it delivers what was written; dropped before, the peer sees a reset.
#[derive(Debug)]
pub struct TcpStream {
    end: End,
    is_shut: bool,
}

impl TcpStream {
    /// Who opened it.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.end.source
    }

    /// What was reached for.
    #[must_use]
    pub const fn destination(&self) -> SocketAddr {
        self.end.destination
    }

    /// Resets the connection, also after a `shutdown`: what was written is not to be taken for whole.
    pub fn reset(self) {
        self.end.shared.lock().stack.abort(self.end.id);
    }

    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.end.shared.lock();
        if inner.is_over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(inner) }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut inner = self.inner()?;
        let read = inner.stack.read(self.end.id, |come| {
            let taken = come.len().min(buf.remaining());
            buf.put_slice(&come[..taken]);
            taken
        });
        match read {
            Ok(Read::Octets(_)) => self.end.shared.work.notify_one(),
            Ok(Read::End) => {}
            Ok(Read::Nothing) => {
                End::sleep(&mut inner, self.end.id, |asleep| &mut asleep.read, cx);
                return Poll::Pending;
            }
            Err(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut inner = self.inner()?;
        match inner.stack.write(self.end.id, octets, Now::read().monotonic) {
            Ok(0) if !octets.is_empty() => {
                End::sleep(&mut inner, self.end.id, |asleep| &mut asleep.write, cx);
                Poll::Pending
            }
            Ok(written) => {
                self.end.shared.work.notify_one();
                Poll::Ready(Ok(written))
            }
            Err(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Nothing is held back: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            self.inner()?.stack.shutdown(self.end.id);
            self.is_shut = true;
            self.end.shared.work.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

/// Datagrams from one source to one destination, and back. Dropped, the flow is forgotten; the next datagram opens another.
#[derive(Debug)]
pub struct UdpFlow {
    pub(super) end: End,
}

impl UdpFlow {
    /// Who opened it.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.end.source
    }

    /// What is reached for.
    #[must_use]
    pub const fn destination(&self) -> SocketAddr {
        self.end.destination
    }

    /// The next datagram; `None` when none came for too long, or the driver has ended. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| {
            let mut inner = self.end.shared.lock();
            if inner.is_over {
                return Poll::Ready(None);
            }
            match inner.stack.read_datagram(self.end.id) {
                Ok(Some(datagram)) => Poll::Ready(Some(datagram)),
                Ok(None) => {
                    End::sleep(&mut inner, self.end.id, |asleep| &mut asleep.read, cx);
                    Poll::Pending
                }
                Err(Gone) => Poll::Ready(None),
            }
        })
        .await
    }

    /// Sends a datagram back, or loses it; never waits.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, payload: &[u8]) -> Result<(), SendError> {
        let mut inner = self.end.shared.lock();
        if inner.is_over {
            return Err(SendError::Gone);
        }
        inner.stack.send_datagram(self.end.id, payload, Now::read().monotonic)?;
        drop(inner);
        self.end.shared.work.notify_one();
        Ok(())
    }

    /// Says no to the datagram that opened the flow, and forgets it.
    pub fn refuse(self, why: Refusal) {
        self.end.refuse(why);
    }
}
