//! Who may come in: the store's word, kept at hand.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use pomerium_shared::clock::Now;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Door,
    receive::Datagrams,
    worker::{self, Worker},
};
use crate::{
    session::SessionId,
    wireguard::{table::Table, tunnel::Index},
    wireguard_peer::{AdmittedPeer, Peer},
};

/// Reads of datagrams that wait for a peer's task at most; more are dropped, as by a full socket. A read may be of one datagram: all
/// that the window of a stream lets its peer send at once has room, while the task has no processor.
const READS_WAITING: usize = 1024;

/// Octets of them, in units of 1024: a sixteenth of what may wait for all peers, so that nobody's flood takes the room of others.
pub(super) const WAITING_KIB: usize = super::WAITING_MAX_KIB / 16;

/// How long what the store said is believed, if it says nothing new: a lost notification must not keep anybody in.
const RECHECK: Duration = Duration::from_secs(30);

/// Until a store that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// A peer that may come in.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) index: Index,
    pub(super) peer: Peer,
    pub(super) inbox: mpsc::Sender<Datagrams>,
    /// What may still wait in it.
    pub(super) waiting: Arc<Semaphore>,
    /// The session that it stands on now.
    pub(super) session: ArcSwap<SessionId>,
    /// Where it is now.
    pub(super) endpoint: ArcSwapOption<SocketAddr>,
    /// Cancelled: it is no peer any more.
    pub(super) ended: CancellationToken,
    /// Taken by its task as it starts.
    unread: Mutex<Option<mpsc::Receiver<Datagrams>>>,
}

impl Handle {
    fn new(admitted: AdmittedPeer, index: Index) -> Self {
        let (inbox, unread) = mpsc::channel(READS_WAITING);
        Self {
            index,
            peer: admitted.peer,
            inbox,
            waiting: Arc::new(Semaphore::new(WAITING_KIB)),
            session: ArcSwap::from_pointee(admitted.session_id),
            endpoint: ArcSwapOption::empty(),
            ended: CancellationToken::new(),
            unread: Mutex::new(Some(unread)),
        }
    }

    /// Starts its task, unless that runs.
    pub(super) fn start(self: &Arc<Self>, door: &Arc<Door>) {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inbox) = unread {
            door.workers.spawn(worker::run(Worker::new(door.clone(), self.clone()), inbox));
        }
    }

    /// Ends its task and all that is open.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Whether it is the same peer with the same secrets, and its task has not failed.
    fn is(&self, peer: &Peer) -> bool {
        let Peer { id, public_key, preshared_key, addresses, .. } = &self.peer;
        (id, public_key, addresses) == (&peer.id, &peer.public_key, &peer.addresses)
            && *preshared_key == peer.preshared_key
            && !self.inbox.is_closed()
    }
}

/// Keeps the door's peers in step with the store, for as long as it is polled.
pub(super) async fn follow(door: Arc<Door>) {
    let mut changes = door.proxy.session_changes();
    let mut revisions = door.proxy.revisions();
    loop {
        changes.mark_unchanged();
        revisions.mark_unchanged();
        let pause = match door.proxy.admitted_peers(&door.networks).await {
            Ok(admitted) => {
                let end = admitted.iter().map(|peer| peer.until).min();
                replace(&door, admitted);
                until(end).min(RECHECK)
            }
            Err(error) => {
                // Nothing is known: what is open asks for itself, and nobody new comes in.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the WireGuard peers cannot be read"
                );
                replace(&door, Vec::new());
                RETRY
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            _ = revisions.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How long until then; a moment at least, so that a clock that stands still is not asked all the time.
fn until(end: Option<SystemTime>) -> Duration {
    let left = end.map(|end| end.duration_since(Now::read().wall).unwrap_or_default());
    left.unwrap_or(RECHECK).max(Duration::from_millis(100))
}

fn replace(door: &Door, admitted: Vec<AdmittedPeer>) {
    let before = door.peers.load_full();
    let mut after = Table::default();
    for admitted in admitted {
        let key = *admitted.peer.public_key.as_bytes();
        let handle = match before.of_key(&key).filter(|known| known.is(&admitted.peer)) {
            Some(known) => {
                if **known.session.load() != admitted.session_id {
                    known.session.store(Arc::new(admitted.session_id));
                }
                known.clone()
            }
            None => {
                let index = loop {
                    let index = after.free_index(random);
                    // Datagrams of the one are not taken for the other's.
                    if before.of_index(index).is_none() {
                        break index;
                    }
                };
                Arc::new(Handle::new(admitted, index))
            }
        };
        after.insert(key, handle.index, handle);
    }
    let after = Arc::new(after);
    door.peers.store(after.clone());
    for peer in before.peers() {
        let stays = after.of_index(peer.index).is_some_and(|now| Arc::ptr_eq(now, peer));
        if !stays {
            peer.end();
        }
    }
}

/// From the system's random source; without one, what comes is as free as any.
pub(super) fn random() -> u32 {
    let mut octets = [0; 4];
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        tracing::error!("the system's random source does not answer");
    }
    u32::from_le_bytes(octets)
}
