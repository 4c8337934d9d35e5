//! Carries one end of a stream over one leg after the other.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Buf as _;
use h3::{
    error::{Code, ConnectionError, StreamError},
    quic::ConnectionErrorIncoming,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Attach, Attached, Stream,
    frames::{self, Frame, Reader},
    pipe::Batch,
    state::Begins,
};
use crate::{
    reason::EndReason,
    relay::{Leg, LegError, Side, Sink, Source},
    tunnel::Chunks,
};

/// Where only the stream itself shows that the way is gone (a TCP connection), the client asks after so long without a word, and
/// gives the leg up after so long.
const ASK_AFTER: Duration = Duration::from_secs(10);
const LOST_AFTER: Duration = Duration::from_secs(20);

/// For the last words to arrive.
const FAREWELL: Duration = Duration::from_secs(2);

/// How it went with a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Both ends have everything.
    Done,
    /// The relay has cut the stream.
    Cut,
    /// The peer has ended the stream, or broken its rules.
    Over(EndReason),
    /// The leg is gone, and the stream is not.
    Lost,
    /// Somebody else will go on with it.
    Left,
}

/// What a stream begins on.
pub(super) enum First {
    /// The leg that it was opened over.
    New(Leg),
    /// One of those after it.
    Later(Attached),
}

/// Works until the stream is over; `Ok` when both ends have everything.
pub(super) async fn run(
    stream: Arc<Stream>,
    batches: mpsc::Sender<Batch>,
    first: First,
    peer: Side,
    window: Duration,
    mut attach: impl Attach,
) -> Result<(), EndReason> {
    let mut next = match first {
        First::New(leg) => Ok((leg, Begins::New)),
        First::Later(attached) => stream.attach(attached),
    };
    loop {
        let (leg, begins) = next.inspect_err(|reason| stream.end(*reason))?;
        stream.room.notify_one();
        // Whoever drops the relay wants no other leg.
        let mut leg = leg.dropped_with(match peer {
            Side::App => EndReason::Client,
            Side::Client => EndReason::Shutdown,
        });
        let is_writing = AtomicBool::new(false);
        let over = Over { stream: &stream, batches: &batches, peer, begins, is_writing: &is_writing };
        match over.carry(&mut leg, &mut attach).await {
            Outcome::Done => {
                leg.close();
                return Ok(());
            }
            Outcome::Cut => {
                let reason = stream.lock().cut.unwrap_or(EndReason::Network);
                stream.end(reason);
                farewell(leg, reason, is_writing.load(Ordering::Relaxed)).await;
                return Err(reason);
            }
            Outcome::Over(reason) => {
                stream.end(reason);
                leg.abort(reason);
                return Err(reason);
            }
            Outcome::Lost => leg.abort(EndReason::Network),
            Outcome::Left => {
                // As if the network had taken it: the client asks for the stream again.
                leg.abort(EndReason::Network);
                return Err(stream.left());
            }
        }
        let received = stream.lock().detach();
        let attached = tokio::select! {
            biased;
            () = stream.cut.cancelled() => Err(stream.lock().cut.unwrap_or(EndReason::Network)),
            () = stream.leave.cancelled() => return Err(stream.left()),
            attached = timeout(window, attach.next(received)) => {
                attached.unwrap_or(Err(EndReason::ResumeFailed))
            }
        };
        next = attached.and_then(|attached| stream.attach(attached));
    }
}

/// Cuts a leg, so that the peer knows why. Not in the middle of a frame: the peer then learns that the stream is over when it
/// asks for it again.
async fn farewell(mut leg: Leg, reason: EndReason, is_writing: bool) {
    if leg.is_io() && !is_writing {
        let (source, sink) = leg.halves();
        let mut word = frames::word(&Frame::Cut(reason)).into();
        let _best_effort = timeout(FAREWELL, async {
            sink.write(&mut word).await?;
            sink.finish().await?;
            // A connection that is closed before all was read from it may take the last word along.
            while source.read().await?.is_some() {}
            Ok::<_, LegError>(())
        })
        .await;
    }
    leg.abort(reason);
}

/// A stream's end over one leg.
struct Over<'a> {
    stream: &'a Stream,
    batches: &'a mpsc::Sender<Batch>,
    peer: Side,
    begins: Begins,
    is_writing: &'a AtomicBool,
}

impl Over<'_> {
    async fn carry(&self, leg: &mut Leg, attach: &mut impl Attach) -> Outcome {
        let asks = self.peer == Side::App && leg.is_io();
        let (source, sink) = leg.halves();
        let standing = CancellationToken::new();
        if self.begins != Begins::Hearing {
            standing.cancel();
        }
        let mut receiving = pin!(self.receive(source, &standing));
        let sent = tokio::select! {
            biased;
            () = self.stream.cut.cancelled() => return Outcome::Cut,
            () = self.stream.leave.cancelled() => return Outcome::Left,
            () = attach.superseded() => return Outcome::Lost,
            () = self.silence(), if asks => return Outcome::Lost,
            outcome = self.send(sink, &standing) => outcome,
            outcome = &mut receiving => return outcome,
        };
        match sent {
            // The peer ends its side when it has heard our last word.
            Outcome::Done => {
                let _late_is_harmless = timeout(FAREWELL, receiving).await;
                Outcome::Done
            }
            // Where nothing can be written any more, the peer's last word may wait to be read.
            Outcome::Lost => timeout(FAREWELL, receiving).await.unwrap_or(Outcome::Lost),
            over => over,
        }
    }

    async fn send(&self, sink: &mut Sink, standing: &CancellationToken) -> Outcome {
        if self.begins == Begins::Saying {
            let place = self.stream.lock().tell();
            if let Err(error) = self.write(sink, frames::word(&Frame::Confirm(place)).into()).await {
                return self.outcome(&error);
            }
        }
        standing.cancelled().await;
        loop {
            let (words, due) = self.stream.lock().next(Instant::now());
            if !words.is_empty() {
                if let Err(error) = self.write(sink, words).await {
                    return self.outcome(&error);
                }
                // The next batch may have waited for this one.
                self.stream.room.notify_one();
                continue;
            }
            if self.stream.lock().is_settled() {
                return match sink.finish().await {
                    Ok(()) => Outcome::Done,
                    Err(error) => self.outcome(&error),
                };
            }
            tokio::select! {
                () = self.stream.to_send.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    async fn write(&self, sink: &mut Sink, mut words: Chunks) -> Result<(), LegError> {
        self.is_writing.store(true, Ordering::Relaxed);
        sink.write(&mut words).await?;
        self.is_writing.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn receive(&self, source: &mut Source, standing: &CancellationToken) -> Outcome {
        let mut reader = Reader::default();
        loop {
            let room = self.room().await;
            let mut pieces = match source.read().await {
                Ok(Some(pieces)) => pieces,
                Ok(None) if self.stream.lock().has_all() => return Outcome::Done,
                Ok(None) => return Outcome::Lost,
                Err(error) => return self.outcome(&error),
            };
            let mut batch = Batch { octets: Chunks::default(), is_last: false };
            let mut over = None;
            {
                let mut state = self.stream.lock();
                state.heard = Instant::now();
                while let Some(piece) = pieces.pop() {
                    let taken = reader.take(piece, |frame| {
                        if over.is_none() {
                            over = state.take(frame, &mut batch, standing);
                        }
                    });
                    if taken.is_err() {
                        over = over.or(Some(EndReason::ResumeFailed));
                    }
                }
            }
            self.stream.to_send.notify_one();
            self.stream.room.notify_one();
            let has_come = batch.octets.has_remaining() || batch.is_last;
            match room {
                Some(room) if has_come => room.send(batch),
                // The relay reads no more; what still comes is of no use.
                _ => {}
            }
            if let Some(reason) = over {
                return Outcome::Over(reason);
            }
        }
    }

    /// A place for what is read next; `None` if the relay reads no more. What is read counts as received, and must find a place
    /// even if this leg is gone by then.
    async fn room(&self) -> Option<mpsc::Permit<'_, Batch>> {
        match self.batches.try_reserve() {
            Ok(room) => Some(room),
            Err(mpsc::error::TrySendError::Closed(())) => None,
            Err(mpsc::error::TrySendError::Full(())) => {
                self.stream.lock().is_blocked = true;
                let room = self.batches.reserve().await.ok();
                self.stream.lock().unblock();
                room
            }
        }
    }

    /// Resolves when the peer has been silent for too long. It cannot be heard while the relay takes nothing, nor asked while it
    /// takes nothing itself; then TCP asks it.
    async fn silence(&self) {
        loop {
            let silent = {
                let mut state = self.stream.lock();
                if state.is_blocked || self.is_writing.load(Ordering::Relaxed) {
                    state.heard = Instant::now();
                }
                let silent = state.heard.elapsed();
                state.asks |= silent >= ASK_AFTER;
                silent
            };
            if silent >= LOST_AFTER {
                return;
            }
            self.stream.to_send.notify_one();
            let until = if silent < ASK_AFTER { ASK_AFTER } else { LOST_AFTER };
            sleep(until - silent).await;
        }
    }

    /// What the failure of a leg means for the stream.
    fn outcome(&self, error: &LegError) -> Outcome {
        match error {
            LegError::H3(StreamError::RemoteTerminate { code }) => {
                match EndReason::from_error_code(code.value()) {
                    None | Some(EndReason::Network) => Outcome::Lost,
                    Some(reason) => Outcome::Over(reason),
                }
            }
            // A client that closes its connection in peace has no more streams.
            LegError::H3(StreamError::ConnectionError(ConnectionError::Remote(
                ConnectionErrorIncoming::ApplicationClose { error_code },
            ))) if self.peer == Side::Client && *error_code == Code::H3_NO_ERROR.value() => {
                Outcome::Over(EndReason::Client)
            }
            LegError::H3(_) | LegError::Io(_) => Outcome::Lost,
            LegError::Over(reason) => Outcome::Over(*reason),
        }
    }
}
