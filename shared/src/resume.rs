//! Streams that outlive the connection under them.
//!
//! Each end keeps what it sent until the other confirms it. When the leg between them is lost, another one is attached, over
//! whatever connection there is by then; each end says how far it got, and what is missing is sent again. To the relays at
//! both ends it is one stream, a [`Leg`] like any other. Who may attach, and how, is decided by the gateway and the client
//! ([`Attach`]); here is what they say in the header (`field`) and what goes over the legs: `frames`, counted by `ledger`,
//! carried by `pump`, and taken and given by the relay at the `pipe`. A process that ends may leave its end to the next one, as a
//! `suspended` one.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::pipe::{PipeReader, PipeWriter};
use self::state::{Begins, State};
pub use self::{
    budget::Budget,
    field::{BadField, FIELD, Offer, StreamName, Wish},
    suspended::{BadRecord, Places, Suspended},
};
use self::{pipe::Batch, pump::First};
use crate::{
    reason::EndReason,
    relay::{Leg, Side},
    tunnel::Chunks,
};

mod budget;
mod field;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ledger;
mod pipe;
mod pump;
mod state;
mod suspended;
#[cfg(test)]
mod tests;

/// Batches that wait for the relay.
const BATCHES_MAX: usize = 2;

/// Where the legs after the first come from.
pub trait Attach: Send + 'static {
    /// Waits until the leg in use should make way for another one. Cancel-safe.
    fn superseded(&mut self) -> impl Future<Output = ()> + Send;

    /// Brings the next leg to a peer that hears that its octets came as far as `received`, or says why there will be none.
    /// Cancel-safe; not asked for longer than the stream's window.
    fn next(&mut self, received: u64) -> impl Future<Output = Result<Attached, EndReason>> + Send;
}

/// A later leg.
#[derive(Debug)]
pub struct Attached {
    /// The leg itself.
    pub leg: Leg,
    /// How far our octets have come, by the peer's word; `None`: the peer says so over the leg.
    pub received: Option<u64>,
}

/// One end of a stream that can be resumed, before its first leg is there.
#[derive(Debug)]
pub struct End {
    stream: Arc<Stream>,
    window: Duration,
    /// What the relay of another process has not taken.
    waiting: Option<Batch>,
}

/// Looks at a stream from outside.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Stream>);

impl End {
    /// An end that keeps what `budget` has room for, and waits up to `window` for another leg.
    #[must_use]
    pub fn new(budget: Budget, window: Duration) -> Self {
        let state = State::new(budget, Instant::now());
        Self { stream: Arc::new(Stream::new(state)), window, waiting: None }
    }

    /// The gateway's end of a stream that another process has left. It has no leg, and nothing flows before one is there.
    #[must_use]
    pub fn of(suspended: Suspended, budget: Budget, window: Duration) -> Self {
        let Suspended { ledger, received, peer_ended, arrived } = suspended;
        let state = State::restored(ledger, received, peer_ended, budget, Instant::now());
        let waiting = Batch { octets: arrived, is_last: peer_ended };
        let waiting = (waiting.is_last || !waiting.octets.is_empty()).then_some(waiting);
        Self { stream: Arc::new(Stream::new(state)), window, waiting }
    }

    /// The stream as it was, for yet another process.
    #[must_use]
    pub fn suspend(self) -> Suspended {
        let arrived = self.waiting.map_or_else(Chunks::default, |waiting| waiting.octets);
        self.stream.lock().suspend(arrived)
    }

    /// What tells others how it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing(Arc::clone(&self.stream))
    }

    /// The gateway's end of a stream whose first leg leads to a client: what [`crate::relay::run`] takes.
    #[must_use]
    pub fn to_client(self, first: Leg, attach: impl Attach) -> Leg {
        self.leg(First::New(first), Side::Client, attach)
    }

    /// The gateway's end, whose client is back.
    #[must_use]
    pub fn back_to_client(self, first: Attached, attach: impl Attach) -> Leg {
        self.leg(First::Later(first), Side::Client, attach)
    }

    /// The client's end, whose first leg leads to the gateway.
    #[must_use]
    pub fn to_gateway(self, first: Leg, attach: impl Attach) -> Leg {
        self.leg(First::New(first), Side::App, attach)
    }

    fn leg(self, first: First, peer: Side, attach: impl Attach) -> Leg {
        let Self { stream, window, waiting } = self;
        let (batches, arriving) = mpsc::channel(BATCHES_MAX);
        let reader = PipeReader::new(waiting, arriving, Arc::clone(&stream));
        let writer = PipeWriter::new(Arc::clone(&stream));
        Leg::pipe(reader, writer, pump::run(stream, batches, first, peer, window, attach))
    }
}

impl Standing {
    /// Whether a peer that has all before `received` can be sent what follows.
    #[must_use]
    pub fn can_go_on_from(&self, received: u64) -> bool {
        self.0.lock().ledger.has_from(received)
    }
}

/// One end of a stream, shared by the relay's two halves and the pump.
struct Stream {
    state: Mutex<State>,
    /// There may be something to send.
    to_send: Notify,
    /// There may be room in the ledger.
    room: Notify,
    /// The relay has cut it.
    cut: CancellationToken,
    /// The relay leaves it to another process.
    leave: CancellationToken,
}

impl Stream {
    fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            to_send: Notify::new(),
            room: Notify::new(),
            cut: CancellationToken::new(),
            leave: CancellationToken::new(),
        }
    }

    /// Takes a later leg.
    fn attach(&self, attached: Attached) -> Result<(Leg, Begins), EndReason> {
        let Attached { leg, received } = attached;
        let begins = self.lock().attach(received)?;
        Ok((leg, begins))
    }

    /// The pump leaves it as it is; what it ends with, nobody hears.
    fn left(&self) -> EndReason {
        self.lock().has_left = true;
        EndReason::Shutdown
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder is that stream's; its counts are whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the relay why nothing more comes or goes.
    fn end(&self, reason: EndReason) {
        self.lock().over.get_or_insert(reason);
        self.room.notify_one();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}
