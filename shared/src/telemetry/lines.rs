//! Log lines on their way out: who logs goes on at once, and one thread writes what has come in meanwhile with one system call.
//!
//! No line is lost to speed: where the other end does not keep up, whoever logs waits. What is still to be written when the
//! process ends is written by [`Lines::flush`]; only a kill loses it, and that is what came in within the last millisecond.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Between two writes: under load a wake-up of the thread for each line would cost more than the line.
const PAUSE: Duration = Duration::from_millis(1);

/// Octets that may wait; beyond them, whoever logs does.
const WAITING_MAX: usize = 1 << 20;

/// The way out, for many threads.
#[derive(Debug, Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Something was written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`, which runs as long as the process.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub(super) fn to(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let run = move || {
            let mut batch = Vec::new();
            loop {
                theirs.take(&mut batch);
                // Nobody is left to tell that the log is gone.
                let _gone = out.write_all(&batch).and_then(|()| out.flush());
                batch.clear();
                theirs.state().is_writing = false;
                theirs.written.notify_all();
                thread::sleep(PAUSE);
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self(shared))
    }

    /// Returns when all that came in before is written.
    pub(super) fn flush(&self) {
        let all_written = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        drop(self.0.written.wait_while(self.0.state(), all_written));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps what waits for the empty `batch`, once there is something.
    fn take(&self, batch: &mut Vec<u8>) {
        let nothing = |state: &mut State| state.waiting.is_empty();
        let mut state = self.filled.wait_while(self.state(), nothing).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.waiting, batch);
        state.is_writing = true;
    }
}

/// Takes a whole line at a time, as `tracing_subscriber` gives them.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_full =
            |state: &mut State| !state.waiting.is_empty() && state.waiting.len() + line.len() > WAITING_MAX;
        let mut state =
            self.0.written.wait_while(self.0.state(), is_full).unwrap_or_else(PoisonError::into_inner);
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.0.filled.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Shows what is written, and goes on with it only when it is told to.
    struct Slow {
        begun: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _nobody_looks = self.begun.send(bytes.to_vec());
            let _at_the_end = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_come_while_one_is_written_go_out_together_and_in_order() {
        let ((begun, began), (goes_on, go_on)) = (mpsc::channel(), mpsc::channel());
        let mut lines = Lines::to(Slow { begun, go_on }).unwrap();
        lines.write_all(b"one\n").unwrap();
        assert_eq!(began.recv().unwrap(), b"one\n");
        lines.write_all(b"two\n").unwrap();
        lines.write_all(b"three\n").unwrap();
        goes_on.send(()).unwrap();
        assert_eq!(began.recv().unwrap(), b"two\nthree\n");
        goes_on.send(()).unwrap();
        lines.flush();
        assert!(began.try_recv().is_err());
    }

    #[test]
    fn where_the_other_end_does_not_keep_up_whoever_logs_waits() {
        let ((begun, began), (goes_on, go_on)) = (mpsc::channel(), mpsc::channel());
        let mut lines = Lines::to(Slow { begun, go_on }).unwrap();
        lines.write_all(b"first\n").unwrap();
        began.recv().unwrap();
        lines.write_all(&vec![b'x'; WAITING_MAX]).unwrap();
        let mut theirs = lines.clone();
        let waits = thread::spawn(move || theirs.write_all(b"last\n"));
        goes_on.send(()).unwrap();
        assert_eq!(began.recv().unwrap().len(), WAITING_MAX);
        goes_on.send(()).unwrap();
        waits.join().unwrap().unwrap();
        assert_eq!(began.recv().unwrap(), b"last\n");
        goes_on.send(()).unwrap();
        lines.flush();
    }
}
