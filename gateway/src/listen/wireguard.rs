//! The door for WireGuard apps: sockets, and a task for each peer that runs its tunnel and netstack.
//!
//! [`receive`] reads datagrams in batches and hands each to its peer's task, or to the one that finds out whose handshake it is;
//! [`roster`] knows who may come in, [`worker`] is the life of one peer, [`flows`] what comes out of its tunnel, [`drops`] tells what was
//! thrown away. What a datagram means is decided in [`crate::wireguard`], who may reach what in [`crate::proxy`].

mod buffers;
mod drops;
mod flows;
mod receive;
mod roster;
mod socket;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use arc_swap::ArcSwap;
use pomerium_shared::{names::AddressBook, wireguard::PrivateKey};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

use self::{
    buffers::Pool,
    drops::{Drops, Seen},
    roster::Handle,
    socket::Socket,
};
use super::Lifetime;
use crate::{
    proxy::Proxy,
    secret::Secret,
    wireguard::{front::HANDSHAKES_PER_SECOND, table::Table, tunnel::Identity},
    wireguard_peer::Networks,
};

/// Handshakes that wait to be looked at; more are dropped, and come again after five seconds.
const HANDSHAKES_WAITING: usize = 256;

/// Octets, in units of 1024, that wait for the tasks of all peers together at most; more are dropped.
const WAITING_MAX_KIB: usize = 64 * 1024;

/// The WireGuard door.
#[derive(Debug)]
pub(crate) struct WireGuard {
    sockets: Vec<Arc<Socket>>,
    door: Arc<Door>,
}

/// What the tasks of the door share.
#[derive(Debug)]
struct Door {
    identity: Identity,
    networks: Networks,
    proxy: Arc<Proxy>,
    lifetime: Lifetime,
    drops: Drops,
    /// Who may come in now.
    peers: ArcSwap<Table<Arc<Handle>>>,
    /// Which address inside tunnels is which host.
    book: ArcSwap<AddressBook>,
    waiting: Arc<Semaphore>,
    buffers: Pool,
    /// Owns the peers' tasks.
    workers: TaskTracker,
}

impl WireGuard {
    /// Takes bound sockets; nothing is read before [`WireGuard::run`].
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(
        sockets: Vec<std::net::UdpSocket>,
        key: &Secret<PrivateKey>,
        networks: Networks,
        proxy: Arc<Proxy>,
        lifetime: Lifetime,
    ) -> std::io::Result<Self> {
        let sockets = sockets.into_iter().map(|socket| Socket::new(socket).map(Arc::new));
        let door = Door {
            identity: Identity::new(*key.expose().expose(), HANDSHAKES_PER_SECOND),
            networks,
            proxy,
            lifetime,
            drops: Drops::default(),
            peers: ArcSwap::default(),
            book: ArcSwap::from_pointee(AddressBook::new(networks.routes(), &[])),
            waiting: Arc::new(Semaphore::new(WAITING_MAX_KIB)),
            buffers: Pool::default(),
            workers: TaskTracker::new(),
        };
        Ok(Self { sockets: sockets.collect::<Result<_, _>>()?, door: Arc::new(door) })
    }

    /// Serves peers until the lifetime is cut and what was open has said so.
    pub(crate) async fn run(self) {
        let Self { sockets, door } = self;
        let (strangers, handshakes) = mpsc::channel(HANDSHAKES_WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn(roster::follow(door.clone()));
        tasks.spawn(flows::follow_names(door.clone()));
        tasks.spawn(drops::tell(door.clone()));
        tasks.spawn(receive::find_out(door.clone(), handshakes));
        for socket in sockets {
            tasks.spawn(receive::run(door.clone(), socket, strangers.clone()));
        }
        let tracker = &door.lifetime.tracker;
        tokio::select! {
            () = async { door.lifetime.cut.cancelled().await; tracker.wait().await } => {}
            // None of them ends by itself.
            ended = tasks.join_next() => {
                tracing::error!(?ended, "the WireGuard door has failed: restart the gateway");
            }
        }
        for peer in door.peers.load().peers() {
            peer.end();
        }
        door.workers.close();
        door.workers.wait().await;
        door.drops.seen().tell_since(&Seen::default());
        tracing::info!("wireguard has stopped");
    }
}
