//! Connections to one app over plain HTTP/1.1, kept from request to request, for requests without a body: nearly all of them.
//!
//! Each is driven by whoever uses it, request and answer alike, and by nobody while it is idle: no task of its own that has
//! to be woken, perhaps on another core, for each step. Whether the app has closed an idle one is found out on the next use,
//! and by [`Kept::tidy`]. Uploads, upgrades, TLS and HTTP/2 are left to hyper's own pool.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use pomerium_shared::clock::Now;

use super::{
    CallError, POOL_IDLE_MAX, READ_AHEAD_LEN,
    dial::{Dial, Wire},
};

/// For a connection on which nothing is asked.
const IDLE_TIME: Duration = Duration::from_secs(90);

/// The kept connections.
#[derive(Debug)]
pub(super) struct Kept {
    dial: Dial,
    /// The one that was used last is last, and used next.
    idle: Mutex<VecDeque<Idle>>,
}

#[derive(Debug)]
struct Idle {
    driven: Driven,
    since: Instant,
}

impl Kept {
    pub(super) fn new(dial: Dial) -> Arc<Self> {
        Arc::new(Self { dial, idle: Mutex::default() })
    }

    /// Sends a request without a body, on a connection that is idle or a new one. Cancel-safe: the connection ends with it.
    pub(super) async fn send(self: &Arc<Self>, head: Parts) -> Result<Response<Answer>, CallError> {
        let mut request = Request::from_parts(head, Empty::new());
        *request.uri_mut() = origin_form(request.uri());
        while let Some(mut driven) = self.take() {
            match driven.send(request).await {
                Ok(response) => return Ok(self.answer(driven, response)),
                // The app has closed it meanwhile, and has seen nothing of the request.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(CallError::Broken(error.into_error())),
                },
            }
        }
        let mut driven = Driven::open(&self.dial).await?;
        let response = driven.send(request).await.map_err(|error| CallError::Broken(error.into_error()))?;
        Ok(self.answer(driven, response))
    }

    /// Ends what has been idle for too long, or has been closed by the app.
    pub(super) fn tidy(&self, now: Instant) {
        let is_fresh = |idle: &Idle| now.saturating_duration_since(idle.since) < IDLE_TIME;
        self.idle().retain_mut(|idle| is_fresh(idle) && idle.driven.is_open());
    }

    /// An idle connection that is still open.
    fn take(&self) -> Option<Driven> {
        loop {
            let mut driven = self.idle().pop_back()?.driven;
            if driven.is_open() {
                return Some(driven);
            }
        }
    }

    fn put(&self, driven: Driven) {
        let mut idle = self.idle();
        if idle.len() < POOL_IDLE_MAX {
            idle.push_back(Idle { driven, since: Now::read().monotonic });
        }
    }

    fn answer(self: &Arc<Self>, driven: Driven, response: Response<Incoming>) -> Response<Answer> {
        response.map(|body| {
            let mut answer = Answer { body, used: Some(Used { driven, home: self.clone() }) };
            if answer.body.is_end_stream() {
                answer.release(&mut Context::from_waker(Waker::noop()));
            }
            answer
        })
    }

    /// Held for a few instructions at a time; what it guards is whole even after a panic elsewhere.
    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's URI as a server has it (RFC 9112, 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// A connection and the way to send on it.
struct Driven {
    sender: http1::SendRequest<Empty<Bytes>>,
    connection: http1::Connection<Wire, Empty<Bytes>>,
    has_ended: bool,
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl Driven {
    async fn open(dial: &Dial) -> Result<Self, CallError> {
        let wire = dial.clone().connect().await.map_err(CallError::Connect)?;
        let handshake = http1::Builder::new().max_buf_size(READ_AHEAD_LEN).handshake(wire).await;
        let (sender, connection) = handshake.map_err(CallError::Broken)?;
        Ok(Self { sender, connection, has_ended: false })
    }

    /// Sends, and waits for the head of the answer.
    async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Empty<Bytes>>>> {
        let mut answered = pin!(self.sender.try_send_request(request));
        poll_fn(|context| {
            drive(&mut self.connection, &mut self.has_ended, context);
            answered.as_mut().poll(context)
        })
        .await
    }

    /// Whether another request can be sent, as far as is known now.
    fn is_open(&mut self) -> bool {
        drive(&mut self.connection, &mut self.has_ended, &mut Context::from_waker(Waker::noop()));
        !self.has_ended && self.sender.is_ready()
    }
}

/// Goes on with what the connection has to do. How it ended is told by whatever waits for its answer.
fn drive(
    connection: &mut http1::Connection<Wire, Empty<Bytes>>,
    has_ended: &mut bool,
    context: &mut Context<'_>,
) {
    if !*has_ended {
        *has_ended = Pin::new(connection).poll(context).is_ready();
    }
}

/// The body of an app's answer, which drives the connection that it comes on.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Incoming,
    /// Of connections that drive themselves, and of those that are back home: none.
    used: Option<Used>,
}

#[derive(Debug)]
struct Used {
    driven: Driven,
    home: Arc<Kept>,
}

impl Answer {
    /// The body of an answer on a connection that somebody else drives.
    pub(super) fn of(body: Incoming) -> Self {
        Self { body, used: None }
    }

    /// The answer is through: its connection takes the next request, if it can.
    fn release(&mut self, context: &mut Context<'_>) {
        let Some(Used { mut driven, home }) = self.used.take() else { return };
        drive(&mut driven.connection, &mut driven.has_ended, context);
        if !driven.has_ended && driven.sender.is_ready() {
            home.put(driven);
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // First the body, which asks the connection for more; and again, for what that brought.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let Some(used) = &mut self.used else { return Poll::Pending };
        drive(&mut used.driven.connection, &mut used.driven.has_ended, context);
        Pin::new(&mut self.body).poll_frame(context)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(self.poll_body(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.release(context);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
