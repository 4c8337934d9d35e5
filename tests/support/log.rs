//! The lines that a process writes, kept so that tests can wait for one and a failure can show them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    sync::watch,
};

use crate::wait;

/// Lines kept at most: a process that writes more than this has gone wrong, and its first lines say how.
const LINES_MAX: usize = 100_000;

/// A growing list of lines; clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Sender<usize>,
}

impl Default for Log {
    fn default() -> Self {
        Self { lines: Arc::default(), count: watch::Sender::new(0) }
    }
}

impl Log {
    /// All lines until now.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lines until now as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// How many lines contain `part`.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }

    /// The first line, written or yet to come, of which `choose` makes something.
    ///
    /// # Errors
    /// None came within the limit.
    pub async fn find<T>(&self, what: &str, mut choose: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        let mut count = self.count.subscribe();
        let mut seen = 0;
        let searching = async {
            loop {
                count.borrow_and_update();
                let lines = self.lines();
                for line in lines.iter().skip(seen) {
                    if let Some(found) = choose(line) {
                        return found;
                    }
                }
                seen = lines.len();
                if count.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        wait::within(&format!("a log line: {what}"), searching).await
    }

    /// Waits for a line that contains `part`, and gives it.
    ///
    /// # Errors
    /// None came within the limit.
    pub async fn line_with(&self, part: &str) -> anyhow::Result<String> {
        self.find(part, |line| line.contains(part).then(|| line.to_owned())).await
    }

    /// Reads lines until the other end closes.
    pub async fn read(self, from: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(from).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).into_owned();
            let count = {
                let mut kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < LINES_MAX {
                    kept.push(line);
                }
                kept.len()
            };
            self.count.send_replace(count);
        }
    }
}
