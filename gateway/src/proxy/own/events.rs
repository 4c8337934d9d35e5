//! Tells clients unasked what concerns them: that their routes have changed, how long their session lasts and that it has ended, that
//! the gateway drains ([ADR 0042](../../../../docs/adr/0042-events-a-line-each.md)).
//!
//! Nothing is queued: each event is made when the client's connection takes one, from how things stand then. A client that does not
//! read holds the one line that it has not read, until `listen/held.rs` lets go of the answer.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use pomerium_shared::{
    clock::{Now, unix_seconds},
    events::{Ended, Event, MEDIA_TYPE, PING_EVERY},
};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Connection, Live, Proxy, Refusal,
        caller::{Caller, store_failed},
    },
    routes,
};
use crate::{
    body::{self, Body},
    device::Device,
    session::{Session, SessionId, UserId},
    store::Store,
};

/// Clients of one person that listen at a time: some machines, and what is left of connections that are gone.
const LISTENERS_OF_ONE_MAX: u32 = 16;
/// Clients that listen at a time.
const LISTENERS_MAX: usize = 20_000;
/// Changes this close together are looked at once: a directory that is read in changes many people.
const PAUSE: Duration = Duration::from_millis(150);

/// Who listens.
#[derive(Debug)]
pub(in crate::proxy) struct Listeners {
    seats: Arc<Mutex<HashMap<UserId, u32>>>,
    left: Arc<Semaphore>,
    /// The gateway is stopping: they are told, and let go.
    drain: CancellationToken,
}

/// One that listens; the seat is free again when this is dropped.
#[derive(Debug)]
struct Seat {
    seats: Arc<Mutex<HashMap<UserId, u32>>>,
    who: UserId,
    _place: OwnedSemaphorePermit,
}

impl Listeners {
    pub(in crate::proxy) fn new(drain: CancellationToken) -> Self {
        Self { seats: Arc::default(), left: Arc::new(Semaphore::new(LISTENERS_MAX)), drain }
    }

    /// `None` if too many listen.
    fn seat(&self, who: &UserId) -> Option<Seat> {
        let place = Arc::clone(&self.left).try_acquire_owned().ok()?;
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let count = seats.entry(who.clone()).or_default();
        if *count >= LISTENERS_OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Seat { seats: Arc::clone(&self.seats), who: who.clone(), _place: place })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = seats.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                seats.remove(&self.who);
            }
        }
    }
}

/// What one client has been told, and what it depends on.
struct Listener {
    session: SessionId,
    connection: Connection,
    live: Arc<ArcSwap<Live>>,
    store: Store,
    revision: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
    drain: CancellationToken,
    told: Told,
    _seat: Seat,
}

/// What a client knows.
#[derive(Default)]
struct Told {
    expires: Option<SystemTime>,
    routes: Option<[u8; 32]>,
    /// Of whom the routes were listed, under which configuration: while these are the same, so are the routes, but for the clock.
    of: Option<(Arc<Session>, Option<Device>, u64)>,
}

impl Proxy {
    /// An answer that goes on for as long as the session does.
    pub(super) async fn events(
        &self,
        live: &Live,
        session: Arc<Session>,
        connection: &Connection,
        now: Now,
    ) -> Result<Response<Body>, Refusal> {
        let caller = Caller::of_session(Some(Arc::clone(&session)), &self.store, now).await;
        let caller = caller.map_err(|error| store_failed(&error))?;
        let seat = self.listeners.seat(&session.user_id).ok_or(Refusal::TooMany)?;
        let mut listener = Listener {
            session: session.id.clone(),
            connection: connection.clone(),
            live: Arc::clone(&self.live),
            store: self.store.clone(),
            revision: self.revision.subscribe(),
            changes: self.store.changes(),
            drain: self.listeners.drain.clone(),
            told: Told::default(),
            _seat: seat,
        };
        // What the client is about to ask for is not news.
        listener.told.routes = Some(digest_of(live, &caller, connection, now));
        let events = stream::unfold(Some(listener), |listener| async {
            let mut listener = listener?;
            let event = listener.next().await;
            let is_last = matches!(event, Event::Ended { .. } | Event::Draining);
            let line = Ok::<_, Infallible>(Frame::data(event.line()));
            Some((line, (!is_last).then_some(listener)))
        });
        let mut response = Response::new(body::boxed(StreamBody::new(events)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

impl Listener {
    /// The next event; waits for it.
    async fn next(&mut self) -> Event {
        let quiet_until = Instant::now() + PING_EVERY;
        loop {
            self.revision.mark_unchanged();
            self.changes.mark_unchanged();
            let now = Now::read();
            let is_due = Instant::now() >= quiet_until;
            let expires = match self.look(now, is_due).await {
                Ok(expires) => expires,
                Err(event) => return event,
            };
            if is_due {
                return Event::Ping;
            }
            tokio::select! {
                biased;
                () = self.drain.cancelled() => return Event::Draining,
                _ = self.revision.changed() => {}
                _ = self.changes.changed() => {}
                // A clock that was set meanwhile is seen with the next ping.
                () = sleep(expires.duration_since(now.wall).unwrap_or_default()) => {}
                () = sleep_until(quiet_until) => continue,
            }
            sleep(PAUSE).await;
        }
    }

    /// When the session ends, if there is nothing to tell; the event, if there is. What only the clock changes is seen when
    /// it `is_due` to look.
    async fn look(&mut self, now: Now, is_due: bool) -> Result<SystemTime, Event> {
        if self.drain.is_cancelled() {
            return Err(Event::Draining);
        }
        let revision = *self.revision.borrow();
        let live = self.live.load_full();
        // A store that does not answer is no reason to say anything: streams end by themselves then.
        let Ok(found) = self.store.session(&self.session).await else { return Ok(now.wall + PING_EVERY) };
        let ended = |reason| Err(Event::Ended { reason });
        let Some(session) = found else { return ended(Ended::Revoked) };
        if !live.authenticate.stands_by(&session, now.wall) {
            return ended(if session.is_valid_at(now.wall) { Ended::Revoked } else { Ended::Expired });
        }
        let expires = session.expires_at;
        if self.told.expires != Some(expires) {
            self.told.expires = Some(expires);
            return Err(Event::Session { expires: unix_seconds(expires) });
        }
        let Ok(caller) = Caller::of_session(Some(Arc::clone(&session)), &self.store, now).await else {
            return Ok(expires);
        };
        let of = Some((session, caller.device.clone(), revision));
        if self.told.of != of || is_due {
            self.told.of = of;
            let routes = Some(digest_of(&live, &caller, &self.connection, now));
            if self.told.routes != routes {
                self.told.routes = routes;
                return Err(Event::Routes);
            }
        }
        Ok(expires)
    }
}

fn digest_of(live: &Live, caller: &Caller, connection: &Connection, now: Now) -> [u8; 32] {
    Sha256::digest(routes::list(live, caller, connection, now)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_takes_no_more_seats_than_are_theirs_and_gives_them_back() {
        let listeners = Listeners::new(CancellationToken::new());
        let alice = UserId::new("alice");
        let seats: Vec<_> = (0..LISTENERS_OF_ONE_MAX).map(|_| listeners.seat(&alice).unwrap()).collect();
        assert!(listeners.seat(&alice).is_none());
        assert!(listeners.seat(&UserId::new("bob")).is_some());
        drop(seats);
        assert!(listeners.seat(&alice).is_some());
        assert!(listeners.seats.lock().unwrap().is_empty(), "who left leaves nothing");
    }
}
