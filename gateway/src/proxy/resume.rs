//! Streams that their clients may ask for again over another connection, and who may.
//!
//! Each has a name that only its client knows. Whoever asks for it is put before policy like everybody, and must be the same
//! person with the same device key who wants the same app; what is not theirs, what is over and what never was look alike.
//! What goes over the connections, and what is kept meanwhile, is `pomerium_shared::resume`'s.

mod restart;
mod slot;

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use pomerium_shared::{
    destination::Destination,
    reason::EndReason,
    relay::Leg,
    resume::{Attach, Attached, Budget, End, Offer, Standing, StreamName},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::restart::TakenOver;
use self::{restart::Leaving, slot::Slot};
use super::{Connection, Refusal, watch::Watch};
use crate::{
    authorize::Permit,
    device::Thumbprint,
    fd_store::Wrapped,
    session::{Session, UserId},
};

/// Octets that are kept for all clients, and for one person's.
const KEPT_LEN_MAX: usize = 512 * 1024 * 1024;
const KEPT_LEN_OF_ONE_MAX: usize = 64 * 1024 * 1024;

/// Streams without a connection, each of which holds a connection to an app: of all clients, and of one person's.
const PARKED_MAX: usize = 4096;
const PARKED_OF_ONE_MAX: usize = 512;

/// Whose a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    person: Person,
    /// The key that the client proved to hold in the handshake.
    key: Option<Thumbprint>,
    to: Destination,
}

/// Somebody at their provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Person {
    idp: String,
    user: UserId,
}

impl Owner {
    /// Who opens a stream; `None` without a session: one stranger is not told from another.
    pub(super) fn of(session: Option<&Session>, connection: &Connection, to: &Destination) -> Option<Self> {
        let session = session?;
        let person = Person { idp: session.idp_id.clone(), user: session.user_id.clone() };
        Some(Self { person, key: connection.key().cloned(), to: to.clone() })
    }
}

/// All streams that can be resumed.
#[derive(Debug, Clone)]
pub(super) struct Resumables {
    books: Arc<Mutex<Books>>,
    budget: Budget,
    /// Cancelled: nobody will come back.
    closed: CancellationToken,
    leaving: Arc<Leaving>,
}

#[derive(Debug, Default)]
struct Books {
    streams: HashMap<StreamName, Entry>,
    people: HashMap<Person, Holding>,
    parked: usize,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    standing: Standing,
    arrivals: Arc<Slot<Arrival>>,
}

/// What one person has.
#[derive(Debug)]
struct Holding {
    budget: Budget,
    streams: usize,
    parked: usize,
}

/// A client that is back.
#[derive(Debug)]
struct Arrival {
    leg: Leg,
    received: u64,
    watch: Watch,
    /// Of the request that brought it.
    request_id: String,
    connection: Connection,
}

/// A stream that has a name, until this is dropped.
#[derive(Debug)]
pub(crate) struct Named {
    offer: Offer,
    owner: Owner,
    all: Resumables,
    arrivals: Arc<Slot<Arrival>>,
    /// Who judges it from now on.
    watches: Arc<Slot<Watch>>,
    /// How often it was resumed.
    resumed: Arc<AtomicU32>,
    request_id: String,
}

/// A client's right to go on with a stream of its own.
#[derive(Debug)]
pub(crate) struct Again {
    arrivals: Arc<Slot<Arrival>>,
    received: u64,
    watch: Watch,
    request_id: String,
    connection: Connection,
}

impl Resumables {
    /// Nobody who is away is waited for once `closed` is cancelled.
    pub(super) fn new(closed: CancellationToken) -> Self {
        Self { books: Arc::default(), budget: Budget::new(KEPT_LEN_MAX), closed, leaving: Arc::default() }
    }

    /// Owns the streams.
    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.leaving.tracker
    }

    /// Resolves when streams are to be left to the next process.
    pub(super) async fn leave_is_due(&self) {
        self.leaving.now().await;
    }

    /// Has all streams left to the next process, and gives what they left within the limit.
    pub(super) async fn leave_all(&self, limit: Duration) -> Vec<Wrapped> {
        self.leaving.all(limit).await
    }

    /// Gives a stream a name, and makes the end that will carry it.
    pub(super) fn name(&self, owner: Owner, window: Duration, request_id: &str) -> Option<(Named, End)> {
        let mut octets = [0; 16];
        aws_lc_rs::rand::fill(&mut octets).ok()?;
        let offer = Offer { name: StreamName::of_random(octets), window };
        Some(self.register(offer, owner, request_id, |budget| End::new(budget, window)))
    }

    fn register(
        &self,
        offer: Offer,
        owner: Owner,
        request_id: &str,
        end: impl FnOnce(Budget) -> End,
    ) -> (Named, End) {
        let arrivals = Arc::<Slot<Arrival>>::default();
        let mut books = self.lock();
        let holding = books.people.entry(owner.person.clone()).or_insert_with(|| Holding {
            budget: self.budget.part(KEPT_LEN_OF_ONE_MAX),
            streams: 0,
            parked: 0,
        });
        holding.streams += 1;
        let end = end(holding.budget.clone());
        let entry = Entry { owner: owner.clone(), standing: end.standing(), arrivals: arrivals.clone() };
        books.streams.insert(offer.name, entry);
        drop(books);
        let named = Named {
            offer,
            owner,
            all: self.clone(),
            arrivals,
            watches: Arc::default(),
            resumed: Arc::default(),
            request_id: request_id.to_owned(),
        };
        (named, end)
    }

    /// The way back to a stream, which policy has just allowed anew, for its owner alone.
    pub(super) fn again(
        &self,
        _permit: Permit,
        name: StreamName,
        owner: Option<&Owner>,
        received: u64,
    ) -> Result<Place, Refusal> {
        let books = self.lock();
        let entry = books.streams.get(&name).filter(|entry| Some(&entry.owner) == owner);
        let entry = entry.filter(|entry| entry.standing.can_go_on_from(received));
        let arrivals = entry.ok_or(Refusal::Gone)?.arrivals.clone();
        Ok(Place { arrivals, received })
    }

    /// Counts a stream without a connection; `None` if there are too many.
    fn park(&self, person: &Person) -> Option<Parked> {
        let mut books = self.lock();
        if books.parked >= PARKED_MAX {
            return None;
        }
        let holding = books.people.get_mut(person).filter(|holding| holding.parked < PARKED_OF_ONE_MAX)?;
        holding.parked += 1;
        books.parked += 1;
        Some(Parked { all: self.clone(), person: person.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a client comes back to.
#[derive(Debug)]
pub(super) struct Place {
    arrivals: Arc<Slot<Arrival>>,
    received: u64,
}

impl Place {
    /// With who judges the stream from then on, and for the log.
    pub(super) fn judged_by(self, watch: Watch, request_id: &str, connection: &Connection) -> Again {
        let Self { arrivals, received } = self;
        let (request_id, connection) = (request_id.to_owned(), connection.clone());
        Again { arrivals, received, watch, request_id, connection }
    }
}

impl Again {
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Brings the stream its next leg. A stream that has ended meanwhile cuts it.
    pub(super) fn bring(self, leg: Leg) {
        let Self { arrivals, received, watch, request_id, connection } = self;
        arrivals.put(Arrival { leg, received, watch, request_id, connection });
    }
}

/// A place among those without a connection.
#[derive(Debug)]
struct Parked {
    all: Resumables,
    person: Person,
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut books = self.all.lock();
        books.parked -= 1;
        if let Some(holding) = books.people.get_mut(&self.person) {
            holding.parked -= 1;
        }
    }
}

impl Named {
    /// What the client is told.
    pub(super) const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Counts for the last line of the log.
    pub(super) fn resumed(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.resumed)
    }

    /// Who judges it by the word of a client that is back.
    pub(super) fn newest_watch(&self) -> Option<Watch> {
        self.watches.newest()
    }

    /// Resolves when the stream must end: by the word of whoever judges it, which is the newest of `watch` and those that came
    /// with a client that was back.
    pub(super) fn judged(&self, watch: Watch) -> impl Future<Output = EndReason> + Send + use<> {
        let later = Arc::clone(&self.watches);
        async move {
            let mut revoked = Box::pin(watch.revoked());
            loop {
                tokio::select! {
                    biased;
                    reason = &mut revoked => return reason,
                    watch = later.take() => revoked = Box::pin(watch.revoked()),
                }
            }
        }
    }

    fn welcome(&self, arrival: Arrival) -> Attached {
        let Arrival { leg, received, watch, request_id, connection } = arrival;
        tracing::info!(
            "request-id" = self.request_id,
            "attached-by" = request_id,
            user = %self.owner.person.user,
            destination = %self.owner.to,
            ip = %connection.peer.ip(),
            protocol = connection.protocol,
            "stream attached"
        );
        self.resumed.fetch_add(1, Ordering::Relaxed);
        self.watches.put(watch);
        Attached { leg, received: Some(received) }
    }
}

impl Attach for Named {
    async fn superseded(&mut self) {
        self.arrivals.filled().await;
    }

    async fn next(&mut self, _received: u64) -> Result<Attached, EndReason> {
        if let Some(arrival) = self.arrivals.newest() {
            return Ok(self.welcome(arrival));
        }
        let Some(_parked) = self.all.park(&self.owner.person) else {
            tracing::info!("request-id" = self.request_id, user = %self.owner.person.user, "too many streams are parked");
            return Err(EndReason::ResumeFailed);
        };
        tracing::info!(
            "request-id" = self.request_id,
            user = %self.owner.person.user,
            destination = %self.owner.to,
            "stream parked"
        );
        tokio::select! {
            biased;
            () = self.all.closed.cancelled() => Err(EndReason::Shutdown),
            arrival = self.arrivals.take() => Ok(self.welcome(arrival)),
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut books = self.all.lock();
        books.streams.remove(&self.offer.name);
        if let MapEntry::Occupied(mut holding) = books.people.entry(self.owner.person.clone()) {
            holding.get_mut().streams -= 1;
            if holding.get().streams == 0 {
                holding.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn owner(user: &str) -> Owner {
        let person = Person { idp: "idp".to_owned(), user: UserId::new(user) };
        Owner { person, key: None, to: "desk.corp.test:22".parse().unwrap() }
    }

    fn name(all: &Resumables, user: &str) -> Named {
        all.name(owner(user), WINDOW, "request").unwrap().0
    }

    #[test]
    fn nothing_is_left_of_a_stream_that_is_over() {
        let all = Resumables::new(CancellationToken::new());
        let (first, second) = (name(&all, "alice"), name(&all, "alice"));
        assert_ne!(first.offer.name, second.offer.name);
        let known = || {
            let books = all.lock();
            (books.streams.len(), books.people.len())
        };
        drop(first);
        assert_eq!(known(), (1, 1));
        drop(second);
        assert_eq!(known(), (0, 0));
    }

    #[test]
    fn one_person_does_not_take_all_places_and_all_together_have_so_many() {
        let all = Resumables::new(CancellationToken::new());
        let users: Vec<_> = (0..=PARKED_MAX / PARKED_OF_ONE_MAX).map(|number| number.to_string()).collect();
        let _named: Vec<_> = users.iter().map(|user| name(&all, user)).collect();
        let mut parked = Vec::new();
        for user in &users[1..] {
            parked.extend((0..PARKED_OF_ONE_MAX).map(|_| all.park(&owner(user).person).unwrap()));
            assert!(all.park(&owner(user).person).is_none(), "{user} has enough");
        }
        assert!(all.park(&owner(&users[0]).person).is_none(), "the gateway is full");
        parked.pop();
        assert!(all.park(&owner(&users[0]).person).is_some());
    }

    #[tokio::test]
    async fn a_gateway_that_stops_waits_for_nobody() {
        let all = Resumables::new(CancellationToken::new());
        let mut named = name(&all, "alice");
        all.closed.cancel();
        assert_eq!(named.next(0).await.unwrap_err(), EndReason::Shutdown, "who is away is not waited for");
        assert_eq!(all.lock().parked, 0);
    }
}
