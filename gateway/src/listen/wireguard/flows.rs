//! What comes out of a peer's tunnel: streams and flows for the proxy, and questions for names.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pomerium_shared::{
    destination::Destination,
    names::dns,
    netstack::{
        Refusal,
        flows::{Flow, Flows, UdpFlow},
    },
};
use tokio::task::JoinSet;

use super::{Door, Handle};
use crate::proxy::peer::Origin;

/// Where names are asked for.
const DNS_PORT: u16 = 53;

/// Until a store that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the addresses of hosts in step with the configuration, for as long as it is polled.
pub(super) async fn follow_names(door: Arc<Door>) {
    let mut revisions = door.proxy.revisions();
    loop {
        revisions.mark_unchanged();
        match door.proxy.address_book(&door.networks).await {
            Ok(book) => {
                door.book.store(Arc::new(book));
                // Levels, not edges: a change in the meantime is seen here.
                if revisions.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "hosts have no addresses inside tunnels"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Takes what the peer opens, for as long as its netstack runs.
pub(super) async fn serve(door: Arc<Door>, peer: Arc<Handle>, mut flows: Flows) {
    let mut questions = JoinSet::new();
    while let Some(flow) = flows.next().await {
        while questions.try_join_next().is_some() {}
        let to = match &flow {
            Flow::Tcp(opening) => opening.destination(),
            Flow::Udp(flow) => flow.destination(),
        };
        let is_open = !door.lifetime.drain.is_cancelled() && !peer.ended.is_cancelled();
        let (way, origin) = (destination(&door, to), origin(&peer));
        match (flow, way, origin) {
            (Flow::Udp(flow), ..) if is_resolver(&door, to) => {
                questions.spawn(answer(door.clone(), flow));
            }
            (Flow::Tcp(opening), Some(to), Some(origin)) if is_open => {
                let proxy = door.proxy.clone();
                door.lifetime.tracker.spawn(async move {
                    proxy.serve_peer_connection(opening, to, &origin).await;
                });
            }
            (Flow::Udp(flow), Some(to), Some(origin)) if is_open => {
                let proxy = door.proxy.clone();
                door.lifetime.tracker.spawn(async move { proxy.serve_peer_flow(flow, to, &origin).await });
            }
            (Flow::Tcp(opening), ..) => opening.refuse(Refusal::Reset),
            (Flow::Udp(flow), ..) => flow.refuse(Refusal::Reset),
        }
    }
}

/// Which host and port an address inside the tunnel stands for.
fn destination(door: &Door, to: SocketAddr) -> Option<Destination> {
    let book = door.book.load();
    Destination::new(book.host_of(to.ip())?.as_str(), to.port()).ok()
}

fn is_resolver(door: &Door, to: SocketAddr) -> bool {
    let own = door.networks.gateway();
    to.port() == DNS_PORT && [own.v4.into(), own.v6.into()].contains(&to.ip())
}

/// `None`: nobody has heard the peer, which then opens nothing.
fn origin(peer: &Arc<Handle>) -> Option<Origin> {
    let at = **peer.endpoint.load().as_ref()?;
    let (session, watched) = (peer.session.load().as_ref().clone(), peer.clone());
    let now_at = move || watched.endpoint.load().as_ref().map_or(at, |now| **now);
    Some(Origin::new(session, peer.ended.clone(), at, now_at))
}

/// A peer's questions for names.
async fn answer(door: Arc<Door>, mut flow: UdpFlow) {
    while let Some(question) = flow.recv().await {
        if let Some(answer) = dns::answer(&question, &door.book.load()) {
            // Lost, as datagrams are; the resolver asks again.
            _ = flow.send(&answer);
        }
    }
}
