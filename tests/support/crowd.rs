//! Many live streams to an echo, and the moment at which each of them ends.

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use crate::wait;

/// Streams that are open, quiet, and waited on.
#[derive(Debug)]
pub struct Crowd {
    streams: JoinSet<Instant>,
}

impl Crowd {
    /// Opens `size` streams to a local port behind which an [`crate::echo::Echo`] is; each has carried a byte when this
    /// returns.
    ///
    /// # Errors
    /// One of them did not get its echo.
    pub async fn open(port: u16, size: usize) -> anyhow::Result<Self> {
        let mut streams = JoinSet::new();
        for _ in 0..size {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.write_all(b"x").await?;
            let echoed = wait::within("an echo", stream.read_u8()).await??;
            ensure!(echoed == b'x', "{echoed} came back");
            streams.spawn(async move {
                // An end and a reset are both an end; nothing else is expected.
                let _end = stream.read_u8().await;
                Instant::now()
            });
        }
        Ok(Self { streams })
    }

    /// Whether none has ended yet.
    pub fn is_whole(&mut self) -> bool {
        self.streams.try_join_next().is_none()
    }

    /// Waits until all have ended, and tells when each did, in order.
    ///
    /// # Errors
    /// One of them lives on.
    pub async fn ends(self) -> anyhow::Result<Vec<Instant>> {
        let mut ends = wait::within("all streams to end", self.streams.join_all()).await?;
        ends.sort_unstable();
        Ok(ends)
    }
}
