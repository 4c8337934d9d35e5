//! The shell: runs a [`Stack`] under tokio and turns its flows into streams.
//!
//! One lock guards the stack. It is held for single calls, never across an await.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    time::sleep_until,
};

use super::{
    Read, Refusal,
    counters::Counters,
    pair::FlowId,
    stack::{Event, Gone, Kind, SendError, Stack},
};
use crate::clock::Now;

/// Packets that are taken from the device before connections have their turn.
const BATCH: usize = 128;
/// Times that the outbox is filled and emptied before packets from the device are looked at again.
const ROUNDS: usize = 4;
/// Flows that wait for their user; further ones wait in the stack, within its bounds.
const FLOWS_WAITING: usize = 64;

/// A flow that somebody opens.
#[derive(Debug)]
pub enum Flow {
    /// A TCP connection, not answered yet.
    Tcp(Opening),
    /// A UDP flow.
    Udp(UdpFlow),
}

/// Runs `stack`: the driver has to be polled for anything to happen.
#[must_use]
pub fn netstack(stack: Stack) -> (Driver, Flows) {
    let shared = Arc::new(Shared {
        inner: Mutex::new(Inner { stack, wakers: HashMap::new(), is_over: false }),
        work: Notify::new(),
    });
    let (sender, receiver) = mpsc::channel(FLOWS_WAITING);
    (Driver { shared: Arc::clone(&shared), flows: sender }, Flows { shared, receiver })
}

/// The flows of a stack, as they are opened.
#[derive(Debug)]
pub struct Flows {
    shared: Arc<Shared>,
    receiver: mpsc::Receiver<Flow>,
}

impl Flows {
    /// The next flow; `None` when the driver has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Flow> {
        self.receiver.recv().await
    }

    /// What was thrown away so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shared.lock().stack.counters()
    }
}

/// Moves packets between the device and the stack. Dropped, all flows of the stack fail.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    flows: mpsc::Sender<Flow>,
}

impl Driver {
    /// Runs until one of the channels or the receiver of the flows is gone. Cancel-safe in so far as dropping it ends the stack.
    pub async fn run(self, mut incoming: mpsc::Receiver<Bytes>, outgoing: mpsc::Sender<Bytes>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut waiting = Waiting { packet: None, flow: None };
        loop {
            let Ok(deadline) = self.turn(&outgoing, &mut waiting) else { return };
            tokio::select! {
                // What comes goes first: it may be the acknowledgement that frees a buffer.
                biased;
                count = incoming.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    let mut inner = self.shared.lock();
                    let now = Now::read().monotonic;
                    for packet in batch.drain(..) {
                        inner.stack.receive(&packet, now);
                    }
                }
                permit = outgoing.reserve(), if waiting.packet.is_some() => {
                    let (Ok(permit), Some(packet)) = (permit, waiting.packet.take()) else { return };
                    permit.send(packet);
                }
                permit = self.flows.reserve(), if waiting.flow.is_some() => {
                    let (Ok(permit), Some(flow)) = (permit, waiting.flow.take()) else { return };
                    permit.send(flow);
                }
                () = self.shared.work.notified() => {}
                () = until(deadline) => {}
            }
            // A device that never rests does not keep the runtime to itself.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Does all that can be done without waiting, and says until when there is nothing else to do.
    fn turn(&self, outgoing: &mpsc::Sender<Bytes>, waiting: &mut Waiting) -> Result<Option<Instant>, Gone> {
        let mut wakers = Vec::new();
        let mut events = Vec::new();
        let mut inner = self.shared.lock();
        let now = Now::read().monotonic;
        let mut deadline = inner.stack.poll(now);
        for round in 0..ROUNDS {
            if !send_all(&mut inner.stack, outgoing, waiting)? {
                break;
            }
            deadline = inner.stack.poll(now);
            if round + 1 == ROUNDS {
                self.shared.work.notify_one();
            }
        }
        while let Some(id) = inner.stack.next_ready() {
            if let Some(asleep) = inner.wakers.remove(&id) {
                wakers.extend([asleep.read, asleep.write].into_iter().flatten());
            }
        }
        let room = self.flows.capacity();
        while waiting.flow.is_none()
            && events.len() <= room
            && let Some(event) = inner.stack.next_event()
        {
            events.push(event);
            if events.len() > room {
                break;
            }
        }
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        for event in events {
            match self.flows.try_send(self.flow(event)) {
                Ok(()) => {}
                // At most one: no more were taken than there was room for, and one to wait with.
                Err(TrySendError::Full(flow)) => waiting.flow = Some(flow),
                Err(TrySendError::Closed(_)) => return Err(Gone),
            }
        }
        Ok(deadline)
    }

    fn flow(&self, event: Event) -> Flow {
        let end = End {
            shared: Arc::clone(&self.shared),
            id: event.id,
            source: event.source,
            destination: event.destination,
            is_left: false,
        };
        match event.kind {
            Kind::Tcp => Flow::Tcp(Opening { end }),
            Kind::Udp => Flow::Udp(UdpFlow { end }),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.is_over = true;
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        wakers.into_values().flat_map(|asleep| [asleep.read, asleep.write]).flatten().for_each(Waker::wake);
    }
}

/// What found its channel full.
struct Waiting {
    packet: Option<Bytes>,
    flow: Option<Flow>,
}

/// Sends what the stack has to send; whether anything was sent and more may be.
fn send_all(stack: &mut Stack, outgoing: &mpsc::Sender<Bytes>, waiting: &mut Waiting) -> Result<bool, Gone> {
    let mut has_sent = false;
    while waiting.packet.is_none()
        && let Some(packet) = stack.next_packet()
    {
        match outgoing.try_send(packet.into()) {
            Ok(()) => has_sent = true,
            Err(TrySendError::Full(packet)) => waiting.packet = Some(packet),
            Err(TrySendError::Closed(_)) => return Err(Gone),
        }
    }
    Ok(has_sent && waiting.packet.is_none())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Shared {
    inner: Mutex<Inner>,
    /// The stack has something to do.
    work: Notify,
}

struct Inner {
    stack: Stack,
    wakers: HashMap<FlowId, Asleep>,
    /// The driver is gone: nothing moves any more.
    is_over: bool,
}

#[derive(Default)]
struct Asleep {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Shared {
    /// A panic under the lock ends the flow that caused it; the stack's tables are in order after each call.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Our hold on a flow; dropped, the stack hears that nobody has it any more.
#[derive(Debug)]
struct End {
    shared: Arc<Shared>,
    id: FlowId,
    source: SocketAddr,
    destination: SocketAddr,
    is_left: bool,
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
    end: End,
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
        match inner.stack.write(self.end.id, octets) {
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
    end: End,
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
