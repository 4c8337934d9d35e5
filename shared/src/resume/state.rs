//! How it stands with one end of a stream: what it keeps, what came, what the peer was told. No leg is known here, and nothing
//! waits.

use std::{mem, time::Duration};

use bytes::Buf as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Budget, Suspended,
    budget::Share,
    frames::{self, Frame},
    ledger::{Ledger, Next},
    pipe::Batch,
};
use crate::{reason::EndReason, tunnel::Chunks};

/// The peer is told how far its octets came after so many, or so long, or along with octets of ours.
const TELL_LEN: u64 = 256 * 1024;
const TELL_AFTER: Duration = Duration::from_millis(500);

/// How a leg begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// At the beginning of the stream.
    New,
    /// This end says first how far the peer's octets came. How far its own did it has heard.
    Saying,
    /// The peer says first how far this end's octets came.
    Hearing,
}

pub(super) struct State {
    pub(super) ledger: Ledger,
    /// For what the ledger keeps.
    share: Share,
    /// How far the peer's octets have come, its end included.
    pub(super) received: u64,
    /// How far the peer has been told that they have.
    told: u64,
    /// When the first came that the peer was not told of.
    untold_since: Option<Instant>,
    pub(super) peer_ended: bool,
    /// What came waits for the relay, and what comes behind it for that.
    pub(super) is_blocked: bool,
    /// That was so for too long.
    is_stalled: bool,
    /// The peer wants to hear something.
    is_asked: bool,
    /// The peer is to say something.
    pub(super) asks: bool,
    pub(super) heard: Instant,
    pub(super) is_attached: bool,
    /// The pump has left it as it is.
    pub(super) has_left: bool,
    /// Why the relay has cut it.
    pub(super) cut: Option<EndReason>,
    /// Why it is over, for the relay.
    pub(super) over: Option<EndReason>,
}

impl State {
    pub(super) fn new(budget: Budget, now: Instant) -> Self {
        Self {
            ledger: Ledger::default(),
            share: Share::of(budget),
            received: 0,
            told: 0,
            untold_since: None,
            peer_ended: false,
            is_blocked: false,
            is_stalled: false,
            is_asked: false,
            asks: false,
            heard: now,
            is_attached: true,
            has_left: false,
            cut: None,
            over: None,
        }
    }

    /// One that was suspended; what had arrived is its reader's.
    pub(super) fn restored(
        ledger: Ledger,
        received: u64,
        peer_ended: bool,
        budget: Budget,
        now: Instant,
    ) -> Self {
        let mut state = Self { ledger, received, peer_ended, is_attached: false, ..Self::new(budget, now) };
        // What the budget has no room for is kept all the same: it was kept before.
        let _is_counted = state.share.grow_to(state.ledger.len());
        state
    }

    /// Takes out all that is needed to go on elsewhere.
    pub(super) fn suspend(&mut self, arrived: Chunks) -> Suspended {
        let ledger = mem::take(&mut self.ledger);
        Suspended { ledger, received: self.received, peer_ended: self.peer_ended, arrived }
    }

    /// Keeps a batch, if there is room. Where the budget has none, what was sent is no longer kept: the stream flows on, and
    /// cannot be resumed before the peer has all of that.
    pub(super) fn add(&mut self, batch: &mut Chunks) -> bool {
        if self.ledger.is_full() && self.is_stalled {
            self.give_up_sent();
        }
        if !self.ledger.has_room() {
            return false;
        }
        if !self.share.grow_to(self.ledger.len() + batch.remaining()) {
            if !self.is_attached {
                return false;
            }
            self.give_up_sent();
            // What is on its way to a leg is held by every stream.
            if self.ledger.len() > 0 {
                return false;
            }
        }
        self.ledger.add(mem::take(batch));
        true
    }

    /// Goes on where this end waits for a confirmation that may be behind what it does not take; and does not wait again until
    /// that is taken.
    pub(super) fn break_stall(&mut self) {
        self.is_stalled = self.is_attached && self.is_blocked;
    }

    fn give_up_sent(&mut self) {
        if self.ledger.give_up_sent() {
            tracing::debug!("what was sent is not kept: the stream cannot be resumed for now");
        }
        self.share.shrink_to(self.ledger.len());
    }

    /// The leg is gone; says how far the peer's octets came, for the next one.
    pub(super) fn detach(&mut self) -> u64 {
        self.is_attached = false;
        self.unblock();
        self.tell()
    }

    /// The relay takes again what comes.
    pub(super) fn unblock(&mut self) {
        (self.is_blocked, self.is_stalled) = (false, false);
    }

    /// Another leg is there, whose peer says so far how far our octets came.
    pub(super) fn attach(&mut self, received: Option<u64>) -> Result<Begins, EndReason> {
        (self.heard, self.asks) = (Instant::now(), false);
        let Some(place) = received else { return Ok(Begins::Hearing) };
        self.resume(place)?;
        Ok(Begins::Saying)
    }

    fn resume(&mut self, place: u64) -> Result<(), EndReason> {
        // Only now it is known what the peer misses: before, nothing may be given up.
        self.is_attached = true;
        let resumed = self.ledger.resume(place);
        self.share.shrink_to(self.ledger.len());
        resumed.map_err(|error| {
            tracing::debug!(%error, "a stream cannot be resumed");
            EndReason::ResumeFailed
        })
    }

    /// How far the peer's octets came, which it is told now.
    pub(super) fn tell(&mut self) -> u64 {
        (self.told, self.untold_since, self.is_asked) = (self.received, None, false);
        self.received
    }

    /// What to send now, and if nothing, when to look again at the latest.
    pub(super) fn next(&mut self, now: Instant) -> (Chunks, Option<Instant>) {
        let mut words = Chunks::default();
        let octets = self.ledger.next();
        let untold = self.received - self.told;
        let due = self.untold_since.map(|since| since + TELL_AFTER);
        let must_tell = untold >= TELL_LEN || self.peer_ended || due.is_some_and(|due| due <= now);
        if self.is_asked || (untold > 0 && (must_tell || octets.is_some())) {
            words.push(frames::word(&Frame::Confirm(self.tell())));
        }
        if mem::take(&mut self.asks) {
            words.push(frames::word(&Frame::Ping));
        }
        match octets {
            Some(Next::Octets(octets)) => frames::octets(octets, &mut words),
            Some(Next::End) => words.push(frames::word(&Frame::End)),
            None => {}
        }
        (words, due)
    }

    /// Takes a frame in; says why the stream is over, if that is what it means.
    pub(super) fn take(
        &mut self,
        frame: Frame,
        batch: &mut Batch,
        standing: &CancellationToken,
    ) -> Option<EndReason> {
        match frame {
            Frame::Octets(_) | Frame::End if self.peer_ended || !standing.is_cancelled() => {
                return Some(EndReason::ResumeFailed);
            }
            Frame::Octets(octets) => {
                self.received += octets.len() as u64;
                batch.octets.push(octets);
            }
            Frame::End => {
                self.received += 1;
                (self.peer_ended, batch.is_last) = (true, true);
            }
            Frame::Confirm(place) if !standing.is_cancelled() => {
                standing.cancel();
                return self.resume(place).err();
            }
            Frame::Confirm(place) => {
                let confirmed = self.ledger.confirm(place);
                self.share.shrink_to(self.ledger.len());
                return confirmed.err().map(|error| {
                    tracing::debug!(%error, "a peer confirms what it cannot have");
                    EndReason::ResumeFailed
                });
            }
            Frame::Cut(reason) => return Some(reason),
            Frame::Ping => {
                self.is_asked = true;
                return None;
            }
        }
        self.untold_since.get_or_insert_with(Instant::now);
        None
    }

    /// Whether both ends have everything, as far as this end knows.
    pub(super) fn has_all(&self) -> bool {
        self.peer_ended && self.ledger.is_settled()
    }

    /// Whether the peer knows that too.
    pub(super) fn is_settled(&self) -> bool {
        self.has_all() && self.told == self.received
    }
}
