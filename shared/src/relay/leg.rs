//! One side of a relay: what is read from it, what is written to it, and how it is cut.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::{pending, ready},
    io,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use h3::error::{Code, StreamError};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{InFlight, sink::Sink, source::Source};
use crate::{
    reason::EndReason,
    resume::{PipeReader, PipeWriter, Suspended},
    tunnel::{Chunks, h3_quinn, stream_reason},
};

/// One side of a relay: a source of bytes and a sink for bytes, open in both directions.
///
/// A leg that is dropped is cut: its peer sees a reset, not an end.
pub struct Leg {
    source: Source,
    sink: Sink,
    work: Work,
    is_open: bool,
    /// The reason to give when it is dropped.
    on_drop: EndReason,
    /// What must not end before it.
    held: Option<Box<dyn Any + Send>>,
}

/// The work behind a leg, if there is any; it goes on only while somebody waits for it.
#[derive(Default)]
pub(crate) struct Work(Option<Working>);

type Working = Pin<Box<dyn Future<Output = Result<(), EndReason>> + Send>>;

impl Work {
    /// Goes on with it. Cancel-safe.
    pub(crate) async fn go_on(&mut self) -> Infallible {
        // A failure shows on the leg's halves, or, where both are through, when the leg is settled.
        if let Err(reason) = self.end().await {
            self.0 = Some(Box::pin(ready(Err(reason))));
        }
        pending().await
    }

    /// Waits for its end. Cancel-safe.
    pub(crate) async fn end(&mut self) -> Result<(), EndReason> {
        let Some(work) = &mut self.0 else { return Ok(()) };
        let ended = work.await;
        self.0 = None;
        ended
    }
}

/// The receiving half of a tunnel stream, at either end.
pub(crate) enum H3Recv {
    Server(h3::server::RequestStream<h3_quinn::RecvStream, Chunks>),
    Client(h3::client::RequestStream<h3_quinn::RecvStream, Chunks>),
}

/// The sending half of a tunnel stream, at either end.
pub(crate) enum H3Send {
    Server(h3::server::RequestStream<h3_quinn::SendStream<Chunks>, Chunks>),
    Client(h3::client::RequestStream<h3_quinn::SendStream<Chunks>, Chunks>),
}

impl Leg {
    /// A TCP connection.
    #[must_use]
    pub fn tcp(stream: TcpStream) -> Self {
        let stream = Arc::new(stream);
        Self::open(Source::tcp(Arc::clone(&stream)), Sink::tcp(stream))
    }

    /// Anything else: standard input and output, an upgraded HTTP/1.1 or HTTP/2 stream. It is cut by being dropped, which
    /// must not look like a clean end to its peer.
    #[must_use]
    pub fn io(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self::open(Source::io(Box::new(reader)), Sink::io(Box::new(writer)))
    }

    pub(crate) fn h3(recv: H3Recv, send: H3Send) -> Self {
        Self::open(Source::h3(recv), Sink::h3(send))
    }

    /// One end of a stream that can be resumed, and the work behind it.
    pub(crate) fn pipe(
        reader: PipeReader,
        writer: PipeWriter,
        work: impl Future<Output = Result<(), EndReason>> + Send + 'static,
    ) -> Self {
        let mut leg = Self::open(Source::Pipe(reader), Sink::Pipe(writer));
        leg.work = Work(Some(Box::pin(work)));
        leg
    }

    /// The same leg, which gives this reason when it is dropped.
    pub(crate) fn dropped_with(mut self, reason: EndReason) -> Self {
        self.on_drop = reason;
        self
    }

    /// The same leg, which keeps `what` until it ends: a token of its connection, that waits for it.
    #[must_use]
    pub fn holding(mut self, what: impl Any + Send) -> Self {
        self.held = Some(Box::new(what));
        self
    }

    /// Whether it cannot say why it is cut, nor notice that its way is gone.
    pub(crate) const fn is_io(&self) -> bool {
        matches!(self.sink, Sink::Io(_))
    }

    /// Cuts both directions with a reason: a reset on QUIC, an RST on TCP.
    pub fn abort(mut self, reason: EndReason) {
        self.cut(reason);
    }

    pub(crate) fn halves(&mut self) -> (&mut Source, &mut Sink) {
        (&mut self.source, &mut self.sink)
    }

    pub(crate) fn parts(&mut self) -> ((&mut Source, &mut Sink), &mut Work) {
        ((&mut self.source, &mut self.sink), &mut self.work)
    }

    /// Lets go of a leg whose both directions ended cleanly, once the work behind it is done. Cancel-safe.
    pub(crate) async fn settle(&mut self) -> Result<(), EndReason> {
        let settled = self.work.end().await;
        if settled.is_ok() {
            self.is_open = false;
        }
        settled
    }

    /// Cuts it, if it is not closed yet, and lets the work behind it say so.
    pub(crate) async fn cut_short(mut self, reason: EndReason) {
        if self.is_open {
            self.cut(reason);
        }
        // What it comes to is known: this.
        let _cut = self.work.end().await;
    }

    /// Leaves a stream that can be resumed as it is. Where it has ended by itself meanwhile, says how.
    pub(crate) async fn suspend(mut self, in_flight: InFlight) -> Result<Suspended, Result<(), EndReason>> {
        if let Sink::Pipe(writer) = &self.sink {
            writer.leave();
        }
        let ended = self.work.end().await;
        let (Source::Pipe(reader), Sink::Pipe(writer)) = (&mut self.source, &self.sink) else {
            return Err(Err(EndReason::Shutdown));
        };
        let suspended = writer.suspend(reader, in_flight).ok_or(ended)?;
        self.is_open = false;
        Ok(suspended)
    }

    /// The TCP connection of a leg, which is not cut. `None`, and cut, if it is something else.
    pub(crate) fn into_tcp(mut self) -> Option<TcpStream> {
        let Sink::Tcp(stream) = &self.sink else { return None };
        let stream = Arc::clone(stream);
        self.is_open = false;
        drop(self);
        Arc::into_inner(stream)
    }

    /// Lets go of a leg whose both directions ended cleanly.
    pub(crate) fn close(mut self) {
        self.is_open = false;
    }

    fn open(source: Source, sink: Sink) -> Self {
        Self { source, sink, work: Work::default(), is_open: true, on_drop: EndReason::Network, held: None }
    }

    fn cut(&mut self, reason: EndReason) {
        self.is_open = false;
        self.source.abort(reason);
        self.sink.abort(reason);
    }
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg").field("kind", &self.sink.kind()).finish_non_exhaustive()
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        if self.is_open {
            self.cut(self.on_drop);
        }
    }
}

/// Which side a leg is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    App,
}

/// Why a leg failed.
#[derive(Debug)]
pub(crate) enum LegError {
    Io(io::Error),
    H3(StreamError),
    /// A stream that could be resumed, and was not.
    Over(EndReason),
}

impl LegError {
    /// The reason to give: the peer's own word, or else the side that failed.
    pub(crate) fn reason(&self, side: Side) -> EndReason {
        let said = match self {
            Self::H3(error) => stream_reason(error),
            Self::Io(error) => said_in(error).or_else(|| network_reason(error)),
            Self::Over(reason) => Some(*reason),
        };
        said.unwrap_or(match side {
            Side::Client => EndReason::Client,
            Side::App => EndReason::App,
        })
    }
}

/// The reason that a stream without resets of its own carries in its error.
fn said_in(error: &io::Error) -> Option<EndReason> {
    error.get_ref()?.downcast_ref::<EndReason>().copied()
}

/// [`EndReason::Network`] for errors that say that the path is gone, rather than the peer.
fn network_reason(error: &io::Error) -> Option<EndReason> {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown)
        .then_some(EndReason::Network)
}

/// Makes the connection's close an RST (`SO_LINGER` of 0), for when the last handle to it is dropped.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    // On an error the socket is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl H3Recv {
    pub(crate) fn abort(&mut self, reason: EndReason) {
        let code = Code::from(reason.error_code());
        match self {
            Self::Server(stream) => stream.stop_sending(code),
            Self::Client(stream) => stream.stop_sending(code),
        }
    }
}

impl H3Send {
    pub(crate) fn abort(&mut self, reason: EndReason) {
        let code = Code::from(reason.error_code());
        match self {
            Self::Server(stream) => stream.stop_stream(code),
            Self::Client(stream) => stream.stop_stream(code),
        }
    }

    pub(crate) async fn send(&mut self, batch: Chunks) -> Result<(), StreamError> {
        match self {
            Self::Server(stream) => stream.send_data(batch).await,
            Self::Client(stream) => stream.send_data(batch).await,
        }
    }

    pub(crate) async fn finish(&mut self) -> Result<(), StreamError> {
        match self {
            Self::Server(stream) => stream.finish().await,
            Self::Client(stream) => stream.finish().await,
        }
    }
}
