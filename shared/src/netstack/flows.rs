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
    sync::{Notify, mpsc},
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

    /// Where what is thrown away can be looked up by others.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { shared: Arc::clone(&self.shared) }
    }
}

/// What a stack threw away, to be looked up at any time, also after its end.
#[derive(Debug, Clone)]
pub struct Tally {
    shared: Arc<Shared>,
}

impl Tally {
    /// So far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shared.lock().stack.counters()
    }
}

/// Moves packets between the device and the stack. Dropped, all flows of the stack fail.
///
/// [`Driver::run`] serves a device behind two channels. Who has a loop of its own calls [`Driver::receive`], [`Driver::turn`] and
/// [`Driver::ready`] in it.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    flows: mpsc::Sender<Flow>,
}

/// What a turn of a [`Driver`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// More packets wait to be sent.
    pub has_packets: bool,
    /// Flows wait for whoever takes them.
    has_flows: bool,
    /// When there is something to do by the clock.
    deadline: Option<Instant>,
}

impl Driver {
    /// Runs until one of the channels or the receiver of the flows is gone. Cancel-safe in so far as dropping it ends the stack.
    pub async fn run(self, mut incoming: mpsc::Receiver<Bytes>, outgoing: mpsc::Sender<Bytes>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut packets = Vec::new();
        loop {
            let Ok(turn) = self.turn(&mut packets, outgoing.capacity()) else { return };
            for packet in packets.drain(..) {
                // There is room: nobody else sends.
                if outgoing.try_send(packet.into()).is_err() {
                    return;
                }
            }
            let has_room = outgoing.capacity() > 0;
            tokio::select! {
                // What comes goes first: it may be the acknowledgement that frees a buffer.
                biased;
                count = incoming.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.receive(batch.iter().map(|packet| &packet[..]));
                    batch.clear();
                }
                room = outgoing.reserve(), if turn.has_packets && !has_room => {
                    if room.is_err() {
                        return;
                    }
                }
                () = std::future::ready(()), if turn.has_packets && has_room => {}
                () = self.ready(turn) => {}
            }
            // A device that never rests does not keep the runtime to itself.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Hands packets from the wire to the stack.
    pub fn receive<'p>(&self, packets: impl IntoIterator<Item = &'p [u8]>) {
        let mut inner = self.shared.lock();
        let now = Now::read().monotonic;
        for packet in packets {
            inner.stack.receive(packet, now);
        }
    }

    /// Does all that can be done without waiting, and fills `packets` up to `packets_max` with what is for the wire.
    ///
    /// # Errors
    /// [`Gone`]: nobody takes flows any more.
    pub fn turn(&self, packets: &mut Vec<Vec<u8>>, packets_max: usize) -> Result<Turn, Gone> {
        let mut wakers = Vec::new();
        let mut inner = self.shared.lock();
        let now = Now::read().monotonic;
        let mut deadline = inner.stack.poll(now);
        for _ in 0..ROUNDS {
            let before = packets.len();
            while packets.len() < packets_max
                && let Some(packet) = inner.stack.next_packet()
            {
                packets.push(packet);
            }
            if packets.len() == before {
                break;
            }
            // The room that they leave is for the next.
            deadline = inner.stack.poll(now);
        }
        while let Some(id) = inner.stack.next_ready() {
            if let Some(asleep) = inner.wakers.remove(&id) {
                wakers.extend([asleep.read, asleep.write].into_iter().flatten());
            }
        }
        let room = self.flows.capacity();
        let events: Vec<_> = std::iter::from_fn(|| inner.stack.next_event()).take(room).collect();
        let (has_packets, has_flows) = (inner.stack.has_packets(), inner.stack.has_events());
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        for event in events {
            // There is room: nobody else sends.
            self.flows.try_send(self.flow(event)).map_err(|_| Gone)?;
        }
        Ok(Turn { has_packets, has_flows, deadline })
    }

    /// Resolves when there is something for a turn to do, beside packets: a flow's user did something, or it is time. Cancel-safe.
    pub async fn ready(&self, last: Turn) {
        tokio::select! {
            biased;
            () = self.shared.work.notified() => {}
            _ = self.flows.reserve(), if last.has_flows => {}
            () = until(last.deadline) => {}
        }
    }

    /// What was thrown away so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shared.lock().stack.counters()
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
