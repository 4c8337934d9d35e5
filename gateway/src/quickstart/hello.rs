//! A TCP service that greets and repeats, so that a tunnel has something to reach.

use std::io;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::loopback::LoopbackListener;

/// The first line that everyone gets.
pub(super) const GREETING: &str = "hello from behind the gateway\n";

/// Bytes of a line that is repeated as one; longer ones come back in pieces.
const LINE_LEN_MAX: u64 = 16 * 1024;

/// Serves until `stop`; connections end with it.
pub(super) async fn serve(listener: LoopbackListener, tracker: TaskTracker, stop: CancellationToken) {
    while let Some(stream) = stop.run_until_cancelled(listener.accept()).await {
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
            let (read, write) = stream.into_split();
            if let Err(error) = converse(BufReader::new(read), write).await {
                tracing::debug!(%error, "the hello service's connection ended");
            }
        }));
    }
}

/// Greets, repeats each line until the other side has finished, and finishes too.
async fn converse(
    mut from: BufReader<impl AsyncRead + Unpin>,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    to.write_all(GREETING.as_bytes()).await?;
    let mut line = Vec::new();
    while (&mut from).take(LINE_LEN_MAX).read_until(b'\n', &mut line).await? > 0 {
        to.write_all(&line).await?;
        line.clear();
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_back_behind_the_greeting_and_the_end_is_passed_on() {
        let long = "x".repeat(40_000);
        let said = format!("one\n{long}\nno line end");
        let mut heard = Vec::new();
        converse(BufReader::new(said.as_bytes()), &mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), format!("{GREETING}{said}"));
    }
}
