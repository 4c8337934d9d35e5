//! Where the relay takes and gives: between it and the pump.

use std::{iter, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

use super::{Stream, Suspended};
use crate::{
    reason::EndReason,
    relay::{InFlight, LegError},
    tunnel::Chunks,
};

/// How long a full ledger waits for confirmations while the relay takes nothing of what came before them: then what was sent is
/// given up, since both ends might wait for each other.
const STALL: Duration = Duration::from_secs(5);

/// What comes from the far end: octets, and whether they are the last.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) octets: Chunks,
    pub(super) is_last: bool,
}

/// What the relay reads.
pub(crate) struct PipeReader {
    /// What came before this reader was there.
    waiting: Option<Batch>,
    arriving: mpsc::Receiver<Batch>,
    stream: Arc<Stream>,
    has_ended: bool,
}

impl PipeReader {
    pub(super) const fn new(
        waiting: Option<Batch>,
        arriving: mpsc::Receiver<Batch>,
        stream: Arc<Stream>,
    ) -> Self {
        Self { waiting, arriving, stream, has_ended: false }
    }

    /// Waits for a batch; `None` at the end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Option<Chunks>, LegError> {
        if self.has_ended {
            return Ok(None);
        }
        let Some(batch) = self.next().await else {
            let over = self.stream.lock().over;
            return Err(LegError::Over(over.unwrap_or(EndReason::Network)));
        };
        self.has_ended = batch.is_last;
        Ok((!batch.octets.is_empty()).then_some(batch.octets))
    }

    async fn next(&mut self) -> Option<Batch> {
        match self.waiting.take() {
            Some(waiting) => Some(waiting),
            None => self.arriving.recv().await,
        }
    }

    /// Takes what nobody has read.
    fn rest(&mut self) -> impl Iterator<Item = Bytes> {
        let waiting = self.waiting.take();
        let batches = waiting.into_iter().chain(iter::from_fn(|| self.arriving.try_recv().ok()));
        batches.flat_map(|mut batch| iter::from_fn(move || batch.octets.pop()))
    }
}

/// What the relay writes.
pub(crate) struct PipeWriter {
    stream: Arc<Stream>,
}

impl PipeWriter {
    pub(super) const fn new(stream: Arc<Stream>) -> Self {
        Self { stream }
    }

    /// Takes a batch as soon as there is room. Cancel-safe: what was not taken is still in it.
    pub(crate) async fn write(&self, batch: &mut Chunks) -> Result<(), LegError> {
        loop {
            {
                let mut state = self.stream.lock();
                if let Some(reason) = state.over {
                    return Err(LegError::Over(reason));
                }
                if state.add(batch) {
                    break;
                }
            }
            if timeout(STALL, self.stream.room.notified()).await.is_err() {
                self.stream.lock().break_stall();
            }
        }
        self.stream.to_send.notify_one();
        Ok(())
    }

    /// Passes on that no more comes. Whether the far end has everything is known when the pump is done.
    pub(crate) fn finish(&self) -> Result<(), LegError> {
        let mut state = self.stream.lock();
        if let Some(reason) = state.over {
            return Err(LegError::Over(reason));
        }
        state.ledger.end();
        drop(state);
        self.stream.to_send.notify_one();
        Ok(())
    }

    /// Has the pump let go of its leg without a word about the stream.
    pub(crate) fn leave(&self) {
        self.stream.leave.cancel();
    }

    /// What is kept of a stream whose pump has left: with what was read on one side and is not written on the other. `None` if
    /// it was over before.
    pub(crate) fn suspend(&self, reader: &mut PipeReader, in_flight: InFlight) -> Option<Suspended> {
        let mut state = self.stream.lock();
        if !state.has_left {
            return None;
        }
        let InFlight { up: mut arrived, down } = in_flight;
        for octets in reader.rest() {
            arrived.push(octets);
        }
        state.ledger.add(down);
        Some(state.suspend(arrived))
    }

    pub(crate) fn abort(&self, reason: EndReason) {
        self.stream.lock().cut.get_or_insert(reason);
        self.stream.cut.cancel();
    }
}
