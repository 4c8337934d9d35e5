//! Room for one: the newest.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Holds what was put last, until somebody takes it.
#[derive(Debug)]
pub(super) struct Slot<T> {
    newest: Mutex<Option<T>>,
    filled: Notify,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { newest: Mutex::new(None), filled: Notify::new() }
    }
}

impl<T> Slot<T> {
    /// Puts something in; what was there is dropped.
    pub(super) fn put(&self, newest: T) {
        let _older = self.newest.lock().unwrap_or_else(PoisonError::into_inner).replace(newest);
        self.filled.notify_one();
    }

    /// What is there.
    pub(super) fn newest(&self) -> Option<T> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for something to be there. For one that waits at a time; cancel-safe.
    pub(super) async fn filled(&self) {
        while self.newest.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.filled.notified().await;
        }
    }

    /// Waits for something, and takes it. As [`Self::filled`].
    pub(super) async fn take(&self) -> T {
        loop {
            self.filled().await;
            if let Some(newest) = self.newest() {
                return newest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_is_taken() {
        let slot = Slot::default();
        slot.put(1);
        slot.put(2);
        slot.filled().await;
        assert_eq!(slot.take().await, 2);
        assert_eq!(slot.newest(), None);
        let (taken, ()) = tokio::join!(slot.take(), async { slot.put(3) });
        assert_eq!(taken, 3);
    }
}
