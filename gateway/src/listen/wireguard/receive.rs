//! From the socket to the task of the peer whose datagram it is.

use std::{io::IoSliceMut, net::IpAddr, sync::Arc};

use bytes::Bytes;
use pomerium_shared::clock::Now;
use quinn_udp::{BATCH_SIZE, RecvMeta};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Door, Handle, Socket};
use crate::wireguard::{
    counters::Dropped,
    front::Front,
    train::Ready,
    tunnel::{Admitted, Index, NotAdmitted},
};

/// Octets that one read of the system gives at most: a whole train of datagrams.
const READ_MAX: usize = 65_536;

/// How the other end of a datagram is answered.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) socket: Arc<Socket>,
    /// The address of ours that it was sent to.
    pub(super) local: Option<IpAddr>,
    pub(super) peer: std::net::SocketAddr,
}

/// Datagrams of one length, but for the last, that came one behind the other from one place.
#[derive(Debug)]
pub(super) struct Datagrams {
    pub(super) way: Way,
    pub(super) octets: Bytes,
    pub(super) each: usize,
    /// Its share of what may wait for its peer, and for all.
    pub(super) _places: [OwnedSemaphorePermit; 2],
}

/// A handshake of somebody.
#[derive(Debug)]
pub(super) struct Stranger {
    way: Way,
    datagram: Bytes,
}

/// Reads the socket for as long as it is polled.
pub(super) async fn run(door: Arc<Door>, socket: Arc<Socket>, strangers: mpsc::Sender<Stranger>) {
    let mut front = Front::new(Now::read().monotonic);
    let mut memory = vec![0; READ_MAX * BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let mut buffers: Vec<_> = memory.chunks_mut(READ_MAX).map(IoSliceMut::new).collect();
        let count = match socket.receive(&mut buffers, &mut metas).await {
            Ok(count) => count,
            Err(error) => {
                // An ICMP error about somebody whom we sent to, or a moment without memory.
                tracing::debug!(%error, "a datagram was not read");
                tokio::task::yield_now().await;
                continue;
            }
        };
        drop(buffers);
        for (meta, read) in metas.iter().zip(memory.chunks(READ_MAX)).take(count) {
            let Some(octets) = read.get(..meta.len) else { continue };
            let way = Way { socket: socket.clone(), local: meta.dst_ip, peer: meta.addr };
            sort(&door, &mut front, way, octets, meta.stride.max(1), &strangers);
        }
        // A flood does not keep the runtime to itself.
        tokio::task::coop::consume_budget().await;
    }
}

/// Hands on what one read brought: runs of datagrams for one peer go together.
fn sort(
    door: &Door,
    front: &mut Front,
    way: Way,
    octets: &[u8],
    each: usize,
    strangers: &mpsc::Sender<Stranger>,
) {
    let now = Now::read().monotonic;
    let mut cookie = [0; 64];
    let mut run: Option<(Index, &[u8])> = None;
    let mut rest = octets;
    while !rest.is_empty() {
        let (datagram, behind) = rest.split_at(each.min(rest.len()));
        let begins_here = rest;
        rest = behind;
        let admitted = front.sort(&door.identity, datagram, way.peer, now, &mut cookie);
        if let Ok(Admitted::For(index)) = admitted {
            if run.is_some_and(|(of, _)| of == index) {
                continue;
            }
            deliver(door, &way, run.replace((index, begins_here)), begins_here, each);
            continue;
        }
        deliver(door, &way, run.take(), begins_here, each);
        match admitted {
            Ok(Admitted::Initiation) => {
                let stranger = Stranger { way: way.clone(), datagram: Bytes::copy_from_slice(datagram) };
                if strangers.try_send(stranger).is_err() {
                    door.drops.datagrams.count(Dropped::HandshakesFull);
                }
            }
            Ok(Admitted::For(_)) => {}
            Err(NotAdmitted::Dropped(why)) => door.drops.datagrams.count(why),
            Err(NotAdmitted::Cookie(reply)) => {
                door.drops.datagrams.count(Dropped::CookieSent);
                let reply = Ready { contents: reply, segment: reply.len(), segments: 1 };
                // Not sent, it is as good as lost on the way.
                if way.socket.try_send(reply, way.peer, way.local).is_err() {
                    door.drops.datagrams.count(Dropped::NotSent);
                }
            }
        }
    }
    deliver(door, &way, run, rest, each);
}

/// Hands a run, which ends where `rest` begins, to its peer.
fn deliver(door: &Door, way: &Way, run: Option<(Index, &[u8])>, rest: &[u8], each: usize) {
    let Some((index, from)) = run else { return };
    let Some(octets) = from.len().checked_sub(rest.len()).and_then(|len| from.get(..len)) else { return };
    let times = u64::try_from(octets.len().div_ceil(each)).unwrap_or(0);
    match door.peers.load().of_index(index) {
        Some(peer) => {
            if !hand_over(door, peer, way.clone(), Bytes::copy_from_slice(octets), each) {
                door.drops.datagrams.count_many(Dropped::QueueFull, times);
            }
        }
        None => door.drops.datagrams.count_many(Dropped::UnknownIndex, times),
    }
}

/// Puts datagrams before a peer's task; whether there was room.
fn hand_over(door: &Door, peer: &Handle, way: Way, octets: Bytes, each: usize) -> bool {
    places(octets.len(), &peer.waiting, &door.waiting)
        .is_some_and(|places| peer.inbox.try_send(Datagrams { way, octets, each, _places: places }).is_ok())
}

/// Room for so many octets, among the peer's own and among those of all.
fn places(octets: usize, own: &Arc<Semaphore>, of_all: &Arc<Semaphore>) -> Option<[OwnedSemaphorePermit; 2]> {
    let share = u32::try_from(octets.div_ceil(1024)).ok()?;
    let place = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(share).ok();
    Some([place(own)?, place(of_all)?])
}

/// Finds out whose handshakes they are, for as long as it is polled. What that costs keeps no datagram of a peer waiting.
pub(super) async fn find_out(door: Arc<Door>, mut strangers: mpsc::Receiver<Stranger>) {
    while let Some(Stranger { way, datagram }) = strangers.recv().await {
        let known = door.identity.initiator(&datagram).and_then(|key| {
            let peers = door.peers.load();
            peers.of_key(&key).cloned().ok_or(Dropped::UnknownKey)
        });
        match known {
            Ok(peer) => {
                peer.start(&door);
                let each = datagram.len();
                if !hand_over(&door, &peer, way, datagram, each) {
                    door.drops.datagrams.count(Dropped::QueueFull);
                }
            }
            Err(why) => {
                tracing::debug!(peer = %way.peer, %why, "a WireGuard handshake leads nowhere");
                door.drops.datagrams.count(why);
            }
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{WAITING_MAX_KIB, roster::WAITING_KIB},
        *,
    };

    #[test]
    fn a_peer_that_floods_leaves_the_others_their_room() {
        let room = |kib| Arc::new(Semaphore::new(kib));
        let (one, other, of_all) = (room(WAITING_KIB), room(WAITING_KIB), room(WAITING_MAX_KIB));
        let flood: Vec<_> = std::iter::from_fn(|| places(READ_MAX, &one, &of_all)).collect();
        assert_eq!(flood.len(), WAITING_KIB * 1024 / READ_MAX);
        assert!(places(READ_MAX, &other, &of_all).is_some());
        drop(flood);
        assert!(places(READ_MAX, &one, &of_all).is_some(), "what was read makes room again");
    }
}
