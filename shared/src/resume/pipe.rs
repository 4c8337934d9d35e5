//! Where the relay takes and gives: between it and the pump.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::Stream;
use crate::{reason::EndReason, relay::LegError, tunnel::Chunks};

/// How long a full ledger waits for confirmations while the relay takes nothing of what came before them: then what was sent is
/// given up, since both ends might wait for each other.
const STALL: Duration = Duration::from_secs(5);

/// What comes from the far end: octets, and whether they are the last.
pub(super) struct Batch {
    pub(super) octets: Chunks,
    pub(super) is_last: bool,
}

/// What the relay reads.
pub(crate) struct PipeReader {
    arriving: mpsc::Receiver<Batch>,
    stream: Arc<Stream>,
    has_ended: bool,
}

impl PipeReader {
    pub(super) const fn new(arriving: mpsc::Receiver<Batch>, stream: Arc<Stream>) -> Self {
        Self { arriving, stream, has_ended: false }
    }

    /// Waits for a batch; `None` at the end. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Option<Chunks>, LegError> {
        if self.has_ended {
            return Ok(None);
        }
        let Some(batch) = self.arriving.recv().await else {
            let over = self.stream.lock().over;
            return Err(LegError::Over(over.unwrap_or(EndReason::Network)));
        };
        self.has_ended = batch.is_last;
        Ok((!batch.octets.is_empty()).then_some(batch.octets))
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

    /// Takes a batch as soon as there is room.
    pub(crate) async fn write(&self, mut batch: Chunks) -> Result<(), LegError> {
        loop {
            {
                let mut state = self.stream.lock();
                if let Some(reason) = state.over {
                    return Err(LegError::Over(reason));
                }
                if state.add(&mut batch) {
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

    pub(crate) fn abort(&self, reason: EndReason) {
        self.stream.lock().cut.get_or_insert(reason);
        self.stream.cut.cancel();
    }
}
