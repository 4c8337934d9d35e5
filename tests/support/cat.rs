//! `cat` behind ssh, fed and read without end: every byte that comes back is held against its place, so that none is lost, doubled
//! or swapped.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{log::Log, wait};

/// Octets written at a time.
const BLOCK_LEN: usize = 4096;

/// Between two blocks of 4 KiB: about a megabyte a second.
pub const PAUSE: Duration = Duration::from_millis(4);

/// A running transfer.
#[derive(Debug)]
pub struct Cat {
    ssh: Child,
    errors: Log,
    stop: watch::Sender<bool>,
    sent: watch::Receiver<u64>,
    received: watch::Receiver<u64>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What stands at a place of the endless text.
fn octet(place: u64) -> u8 {
    let word = (place / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word[usize::try_from(place % 8).unwrap_or(0)]
}

impl Cat {
    /// Starts `ssh`, whose last word is `cat`, and waits until the first octet is back. Between two blocks there is a pause.
    ///
    /// # Errors
    /// It does not start, or says something else.
    pub async fn begin(mut ssh: Command, pause: Duration) -> anyhow::Result<Self> {
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut ssh = ssh.spawn()?;
        let (input, output) = (ssh.stdin.take().context("a pipe")?, ssh.stdout.take().context("a pipe")?);
        let (errors, stderr) = (Log::default(), ssh.stderr.take().context("a pipe")?);
        let (stop, stopped) = watch::channel(false);
        let (tell_sent, sent) = watch::channel(0);
        let (tell_received, received) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(feed(input, pause, tell_sent, stopped));
        tasks.spawn(read(output, tell_received));
        let log = errors.clone();
        tasks.spawn(async move {
            log.read(stderr).await;
            Ok(())
        });
        let cat = Self { ssh, errors, stop, sent, received, tasks };
        cat.returned(1).await?;
        Ok(cat)
    }

    /// Waits until so many octets are back.
    ///
    /// # Errors
    /// They do not come.
    pub async fn returned(&self, count: u64) -> anyhow::Result<()> {
        let mut received = self.received.clone();
        let back = wait::within("octets to come back", received.wait_for(|now| *now >= count)).await?;
        back.with_context(|| format!("ssh has ended: {}", self.errors.text())).map(drop)
    }

    /// How long it takes from now until an octet that is sent from now on is back.
    ///
    /// # Errors
    /// None comes back.
    pub async fn first_octet(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let sent = *self.sent.borrow();
        self.returned(sent + BLOCK_LEN as u64).await?;
        Ok(began.elapsed())
    }

    /// Ends it, and says how many octets were sent and are missing.
    ///
    /// # Errors
    /// It does not end in peace, or something else came back than was sent.
    pub async fn finish(mut self) -> anyhow::Result<(u64, u64)> {
        self.stop.send_replace(true);
        while let Some(ended) = wait::within("the transfer to end", self.tasks.join_next()).await? {
            ended?.with_context(|| self.errors.text())?;
        }
        let status = wait::within("ssh to end", self.ssh.wait()).await??;
        ensure!(status.success(), "{status}: {}", self.errors.text());
        let (sent, received) = (*self.sent.borrow(), *self.received.borrow());
        Ok((sent, sent - received))
    }
}

async fn feed(
    mut input: ChildStdin,
    pause: Duration,
    sent: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut place = 0;
    while !*stop.borrow() {
        let block: Vec<u8> = (place..place + BLOCK_LEN as u64).map(octet).collect();
        input.write_all(&block).await?;
        place += BLOCK_LEN as u64;
        sent.send_replace(place);
        sleep(pause).await;
    }
    Ok(())
}

async fn read(mut output: ChildStdout, received: watch::Sender<u64>) -> anyhow::Result<()> {
    let (mut place, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        let len = output.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        for (got, at) in buffer[..len].iter().zip(place..) {
            ensure!(*got == octet(at), "another octet than was sent, at {at}");
        }
        place += len as u64;
        received.send_replace(place);
    }
}
