//! Two-way copying between a client's stream and an app's.
//!
//! Each direction flows and ends by itself; a cut is never mistaken for an end; and every end has one reason. Here live
//! the legs (`leg`) and the loop; who opens the legs, and who decides to cut, does not.

use std::{
    future::pending,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Buf as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{reason::EndReason, resume::Suspended, tunnel::Chunks};

mod leg;
mod sink;
mod source;

pub use leg::Leg;
pub(crate) use leg::{H3Recv, H3Send, LegError, Side};
pub(crate) use sink::Sink;
pub(crate) use source::Source;

/// How a relay behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct RelayOptions {
    /// Cut the stream after this long without a byte moved in either direction; `None`: never.
    pub idle: Option<Duration>,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayEnd {
    /// Why: after a clean end, the side that ended first.
    pub reason: EndReason,
    /// Bytes that the app's leg took.
    pub bytes_from_client: u64,
    /// Bytes that the client's leg took.
    pub bytes_from_app: u64,
}

/// Bytes that were moved so far, for whoever looks on: by one relay, or by several that count together.
#[derive(Debug, Default)]
pub struct Counters {
    from_client: AtomicU64,
    from_app: AtomicU64,
}

impl Counters {
    /// Bytes that legs of apps took.
    #[must_use]
    pub fn from_client(&self) -> u64 {
        self.from_client.load(Ordering::Relaxed)
    }

    /// Bytes that legs of clients took.
    #[must_use]
    pub fn from_app(&self) -> u64 {
        self.from_app.load(Ordering::Relaxed)
    }

    fn add(&self, from: Side, len: u64) {
        let counter = match from {
            Side::Client => &self.from_client,
            Side::App => &self.from_app,
        };
        counter.fetch_add(len, Ordering::Relaxed);
    }
}

/// Copies both ways until both directions ended, a leg failed, nothing moved for too long, or `cut` says why to stop.
///
/// The end of one direction is passed on and the other flows on. Anything but two clean ends aborts both legs: QUIC
/// streams are reset with the reason's error code, TCP connections with RST, so that neither peer takes what it got for
/// whole. Dropped before it is done, the same happens, with no reason given.
pub async fn run(
    client: Leg,
    app: Leg,
    options: RelayOptions,
    cut: impl Future<Output = EndReason>,
) -> RelayEnd {
    run_counted(client, app, options, cut, &Counters::default()).await
}

/// [`run`], which counts what it moves while it goes on.
pub async fn run_counted(
    client: Leg,
    app: Leg,
    options: RelayOptions,
    cut: impl Future<Output = EndReason>,
    counters: &Counters,
) -> RelayEnd {
    let progress = Progress::new(counters);
    let mut legs = Legs { client, app, in_flight: InFlight::default() };
    let ended = match legs.carry(options, cut, pending(), &progress).await {
        Stop::Ended(ended) => ended,
        Stop::Leave => Err(EndReason::Shutdown),
    };
    progress.end(legs.let_go(ended).await)
}

/// [`run`], until `leave` resolves: then the stream is left as it is, with all that another process needs to go on with it. The
/// client's leg must be the gateway's end of a stream that can be resumed, and the app's a TCP connection.
pub async fn run_or_leave(
    client: Leg,
    app: Leg,
    options: RelayOptions,
    cut: impl Future<Output = EndReason>,
    leave: impl Future<Output = ()>,
) -> Outcome {
    let together = Counters::default();
    let progress = Progress::new(&together);
    let mut legs = Legs { client, app, in_flight: InFlight::default() };
    let ended = match legs.carry(options, cut, leave, &progress).await {
        Stop::Ended(ended) => ended,
        Stop::Leave => return legs.leave(&progress).await,
    };
    Outcome::Ended(progress.end(legs.let_go(ended).await))
}

/// How a relay ended that could be left.
#[derive(Debug)]
pub enum Outcome {
    /// As any other.
    Ended(RelayEnd),
    /// It was left, and has not ended.
    Left(Box<Left>),
}

/// A stream that was left.
#[derive(Debug)]
pub struct Left {
    /// The client's side of it.
    pub stream: Suspended,
    /// The app's side.
    pub app: TcpStream,
}

/// Why copying stopped.
enum Stop {
    /// `Ok` after two clean ends.
    Ended(Result<EndReason, EndReason>),
    Leave,
}

/// What was read on one side and is not written on the other.
#[derive(Default)]
pub(crate) struct InFlight {
    /// From the client.
    pub(crate) up: Chunks,
    /// From the app.
    pub(crate) down: Chunks,
}

/// What a relay works on.
struct Legs {
    client: Leg,
    app: Leg,
    in_flight: InFlight,
}

impl Legs {
    async fn carry(
        &mut self,
        options: RelayOptions,
        cut: impl Future<Output = EndReason>,
        leave: impl Future<Output = ()>,
        progress: &Progress<'_>,
    ) -> Stop {
        // What decides may be large, and is moved here once.
        let mut stop = Box::pin(async {
            tokio::select! {
                biased;
                reason = cut => Stop::Ended(Err(reason)),
                () = progress.idle_for(options.idle) => Stop::Ended(Err(EndReason::Idle)),
                () = leave => Stop::Leave,
            }
        });
        let Self { client, app, in_flight } = self;
        let ended = {
            let ((client, behind_client), (app, behind_app)) = (client.parts(), app.parts());
            let work = copy_both(client, app, in_flight, progress);
            tokio::select! {
                // A revocation goes before the next buffer.
                biased;
                stop = &mut stop => return stop,
                never = behind_client.go_on() => match never {},
                never = behind_app.go_on() => match never {},
                ended = work => ended,
            }
        };
        let Ok(reason) = ended else { return Stop::Ended(ended) };
        tokio::select! {
            biased;
            stop = &mut stop => stop,
            settled = async { tokio::try_join!(client.settle(), app.settle()) } => {
                Stop::Ended(settled.map(|_| reason))
            }
        }
    }

    /// Lets go of both: cuts them, after anything but two clean ends.
    async fn let_go(self, ended: Result<EndReason, EndReason>) -> EndReason {
        match ended {
            Ok(reason) => reason,
            Err(reason) => {
                tokio::join!(self.client.cut_short(reason), self.app.cut_short(reason));
                reason
            }
        }
    }

    async fn leave(self, progress: &Progress<'_>) -> Outcome {
        let Self { client, app, in_flight } = self;
        let ended = match client.suspend(in_flight).await {
            Ok(stream) => match app.into_tcp() {
                Some(app) => return Outcome::Left(Box::new(Left { stream, app })),
                None => EndReason::Shutdown,
            },
            // Both ends had everything, in the last moment.
            Err(Ok(())) => {
                app.close();
                EndReason::Client
            }
            Err(Err(reason)) => {
                app.abort(reason);
                reason
            }
        };
        Outcome::Ended(progress.end(ended))
    }
}

/// Runs both directions; `Ok` after two clean ends, `Err` as soon as a leg fails.
async fn copy_both(
    client: (&mut Source, &mut Sink),
    app: (&mut Source, &mut Sink),
    in_flight: &mut InFlight,
    progress: &Progress<'_>,
) -> Result<EndReason, EndReason> {
    let InFlight { up, down } = in_flight;
    let upload = copy((client.0, Side::Client), (app.1, Side::App), up, progress);
    let download = copy((app.0, Side::App), (client.1, Side::Client), down, progress);
    tokio::pin!(upload, download);
    let (first, rest) = tokio::select! {
        end = &mut upload => { end?; (EndReason::Client, download.await) }
        end = &mut download => { end?; (EndReason::App, upload.await) }
    };
    rest.map(|()| first)
}

async fn copy(
    (source, from): (&mut Source, Side),
    (sink, to): (&mut Sink, Side),
    in_flight: &mut Chunks,
    progress: &Progress<'_>,
) -> Result<(), EndReason> {
    while let Some(batch) = source.read().await.map_err(|error: LegError| error.reason(from))? {
        let len = batch.remaining() as u64;
        *in_flight = batch;
        sink.write(in_flight).await.map_err(|error| error.reason(to))?;
        progress.moved(from, len);
    }
    sink.finish().await.map_err(|error| error.reason(to))
}

/// Sets `TCP_NODELAY` and keep-alive probes (after 30 s, every 10 s, three lost): a vanished peer is noticed in a minute.
///
/// # Errors
/// What the system says to the options.
pub fn keepalive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// What moved, and when last.
pub(crate) struct Progress<'a> {
    own: Counters,
    /// What counts beside.
    together: &'a Counters,
    last: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(together: &'a Counters) -> Self {
        Self { own: Counters::default(), together, last: Mutex::new(Instant::now()) }
    }

    pub(crate) fn moved(&self, from: Side, len: u64) {
        self.own.add(from, len);
        self.together.add(from, len);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(crate) fn end(&self, reason: EndReason) -> RelayEnd {
        let (bytes_from_client, bytes_from_app) = (self.own.from_client(), self.own.from_app());
        RelayEnd { reason, bytes_from_client, bytes_from_app }
    }

    /// Resolves when nothing has moved for so long.
    pub(crate) async fn idle_for(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return pending().await };
        loop {
            let deadline = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
