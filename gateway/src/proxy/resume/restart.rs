//! Streams that go on in the next process of the gateway.
//!
//! The process that stops leaves each as a parcel: the connection to the app, and a record of the rest. The next one touches neither
//! before the client is back, whom policy has allowed anew.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pomerium_shared::{
    clock::Now,
    destination::Destination,
    reason::EndReason,
    relay::RelayEnd,
    resume::{BadRecord, End, Offer, Places, Suspended},
};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Named, Owner, Person, Resumables};
use crate::{
    device::Thumbprint,
    fd_store::{Parcel, Wrapped},
    proxy::account::{Account, AccountSoFar},
    session::UserId,
};

/// Streams that can be left to the next process.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Cancelled: they are to be left.
    now: CancellationToken,
    left: Mutex<Vec<Wrapped>>,
    /// Owns them.
    pub(super) tracker: TaskTracker,
}

/// What a later process must know of a stream beside how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    offer: Offer,
    owner: Owner,
    pub(crate) request_id: String,
}

/// A stream of the process before, until its client is back.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) named: Named,
    pub(crate) end: End,
    pub(crate) app: TcpStream,
    pub(crate) account: Account,
}

/// Why a stream of the process before is not gone on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTakenOver {
    /// It was written by a gateway that says it differently.
    #[error("its record cannot be read")]
    Record(#[from] serde_json::Error),
    /// The octets are not those of the record.
    #[error(transparent)]
    Octets(#[from] BadRecord),
    /// A part of the record is not what it should be.
    #[error("its record says nothing of its {0}")]
    Part(&'static str),
    /// The connection cannot be used.
    #[error("the connection to its app cannot be used")]
    Connection(#[from] io::Error),
}

/// All of a stream but its octets, which follow in the parcel.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    request_id: String,
    offer: String,
    idp: String,
    user: UserId,
    key: Option<String>,
    to: String,
    account: AccountSoFar,
    places: Places,
}

impl Leaving {
    /// Resolves when streams are to be left.
    pub(super) async fn now(&self) {
        self.now.cancelled().await;
    }

    /// Has all streams left, and gives what they left within the limit: one that takes longer keeps no other from it.
    pub(super) async fn all(&self, limit: Duration) -> Vec<Wrapped> {
        self.now.cancel();
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                open = self.tracker.len(),
                "some streams could not be left to the next process in time"
            );
        }
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Named {
    /// What a later process must know of it.
    pub(crate) fn label(&self) -> Label {
        Label { offer: self.offer, owner: self.owner.clone(), request_id: self.request_id.clone() }
    }

    /// How long its client may be away.
    pub(crate) const fn window(&self) -> Duration {
        self.offer.window
    }
}

impl Resumables {
    /// Leaves a stream to the next process. Where that fails, it has ended.
    pub(crate) fn leave(&self, label: &Label, account: &Account, stream: &Suspended, app: TcpStream) {
        let request_id = label.request_id.as_str();
        let so_far = account.so_far(stream.bytes_from_client(), stream.bytes_from_app(), Now::read());
        match wrap(label, so_far.clone(), stream, app) {
            Ok(wrapped) => {
                self.leaving.left.lock().unwrap_or_else(PoisonError::into_inner).push(wrapped);
                tracing::info!("request-id" = request_id, "stream left to the next process");
            }
            Err(error) => {
                tracing::warn!("request-id" = request_id, %error, "a stream could not be left to the next process");
                let account = Account::going_on(so_far, label.owner.to.clone(), Now::read());
                let end = RelayEnd { reason: EndReason::Shutdown, bytes_from_client: 0, bytes_from_app: 0 };
                account.close(request_id, end);
            }
        }
    }

    /// Goes on with what the process before has left of a stream.
    pub(crate) fn take_over(&self, parcel: Parcel, now: Now) -> Result<TakenOver, NotTakenOver> {
        let Parcel { connection, mut record } = parcel;
        let head_len = record.iter().position(|octet| *octet == b'\n').ok_or(NotTakenOver::Part("person"))?;
        let octets = record.split_off(head_len + 1);
        let record: Record = serde_json::from_slice(&record)?;
        let stream = Suspended::of(record.places, Bytes::from(octets))?;
        let offer: Offer = record.offer.parse().map_err(|_| NotTakenOver::Part("name"))?;
        let to: Destination = record.to.parse().map_err(|_| NotTakenOver::Part("destination"))?;
        let person = Person { idp: record.idp, user: record.user };
        let owner = Owner { person, key: record.key.map(Thumbprint::from_text), to: to.clone() };
        let app = opened(connection)?;
        let window = offer.window;
        let (named, end) =
            self.register(offer, owner, &record.request_id, |budget| End::of(stream, budget, window));
        Ok(TakenOver { named, end, app, account: Account::going_on(record.account, to, now) })
    }
}

fn wrap(label: &Label, account: AccountSoFar, stream: &Suspended, app: TcpStream) -> io::Result<Wrapped> {
    let Label { offer, owner, request_id } = label;
    let head = Record {
        request_id: request_id.clone(),
        offer: offer.to_string(),
        idp: owner.person.idp.clone(),
        user: owner.person.user.clone(),
        key: owner.key.as_ref().map(ToString::to_string),
        to: owner.to.to_string(),
        account,
        places: stream.places(),
    };
    let mut record = serde_json::to_vec(&head)?;
    record.push(b'\n');
    stream.write_octets(&mut record)?;
    let app = app.into_std()?;
    // Whoever closes it without having gone on with it has cut the stream.
    SockRef::from(&app).set_linger(Some(Duration::ZERO))?;
    Parcel { connection: app.into(), record }.wrap()
}

fn opened(connection: OwnedFd) -> io::Result<TcpStream> {
    let app = std::net::TcpStream::from(connection);
    // Of a TCP connection alone.
    app.peer_addr()?;
    SockRef::from(&app).set_linger(None)?;
    app.set_nonblocking(true)?;
    TcpStream::from_std(app)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd as _};

    use pomerium_shared::resume::Budget;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn owner(user: &str) -> Owner {
        let person = Person { idp: "idp".to_owned(), user: UserId::new(user) };
        Owner { person, key: Some(Thumbprint::from_text("k")), to: "desk.corp.test:22".parse().unwrap() }
    }

    fn account() -> Account {
        let so_far = serde_json::json!({
            "route": "desk", "user": "alice", "ip": "192.0.2.1", "protocol": "h3", "idle": null,
            "past": {
                "open": {"secs": 7, "nanos": 0}, "resumed": 2, "bytes_from_client": 0, "bytes_from_app": 0,
            },
        });
        let to = "desk.corp.test:22".parse().unwrap();
        Account::going_on(serde_json::from_value(so_far).unwrap(), to, Now::read())
    }

    async fn app() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// What one process leaves of a stream of alice's.
    async fn left() -> (Offer, Parcel, std::net::TcpStream) {
        let (app, far) = app().await;
        let before = Resumables::new(CancellationToken::new());
        let (named, _end) = before.name(owner("alice"), WINDOW, "request").unwrap();
        let stream = End::new(Budget::new(0), WINDOW).suspend();
        before.leave(&named.label(), &account(), &stream, app);
        let wrapped = before.leave_all(WINDOW).await.pop().unwrap();
        (named.offer, wrapped.open().unwrap(), far)
    }

    #[tokio::test]
    async fn a_stream_keeps_its_name_its_owner_and_its_account() {
        let (offer, parcel, _far) = left().await;
        let after = Resumables::new(CancellationToken::new());
        let taken = after.take_over(parcel, Now::read()).unwrap();
        assert_eq!((taken.named.offer.name, taken.named.window()), (offer.name, WINDOW));
        assert_eq!((&taken.named.owner, taken.named.request_id.as_str()), (&owner("alice"), "request"));
        assert_eq!(after.lock().streams[&offer.name].owner, owner("alice"));
        let so_far = serde_json::to_value(taken.account.so_far(5, 6, Now::read())).unwrap();
        assert_eq!(so_far["past"]["resumed"], 2);
        assert_eq!(so_far["past"]["bytes_from_app"], 6);
        assert!(so_far["past"]["open"]["secs"].as_u64().unwrap() >= 7);
    }

    #[tokio::test]
    async fn what_is_no_stream_is_let_go_and_cuts_its_app() {
        for change in [
            (|record| record.clear()) as fn(&mut Vec<u8>),
            |record| record.insert(0, b'x'),
            |record| record.truncate(20),
            |record| record.push(0),
            |record| *record = String::from_utf8_lossy(record).replace(":22", "").into_bytes(),
            |record| *record = String::from_utf8_lossy(record).replace("name=", "nome=").into_bytes(),
        ] {
            let (_, mut parcel, far) = left().await;
            change(&mut parcel.record);
            let text = String::from_utf8_lossy(&parcel.record).into_owned();
            let after = Resumables::new(CancellationToken::new());
            assert!(after.take_over(parcel, Now::read()).is_err(), "{text}");
            assert!(after.lock().streams.is_empty());
            let error = io::Read::read(&mut &far, &mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{text}");
        }
        let (_, parcel, _far) = left().await;
        let (socket, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let other = Parcel { connection: socket.as_fd().try_clone_to_owned().unwrap(), ..parcel };
        let after = Resumables::new(CancellationToken::new());
        let error = after.take_over(other, Now::read()).unwrap_err();
        assert!(matches!(error, NotTakenOver::Connection(_)), "{error}");
    }
}
