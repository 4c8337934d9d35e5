//! The shell: runs a [`Stack`] under tokio and turns its flows into streams.
//!
//! One lock guards the stack. It is held for single calls, never across an await.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    time::sleep_until,
};

use super::{
    counters::Counters,
    pair::FlowId,
    stack::{Event, Gone, Kind, Stack},
};
use crate::clock::Now;

mod streams;

use streams::End;
pub use streams::{Opening, TcpStream, UdpFlow};

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
