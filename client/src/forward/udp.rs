//! A local UDP port: each program that sends to it gets a flow of its own over the gateway's one connection.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use pomerium_shared::{
    destination::Destination,
    relay::RelayOptions,
    udp::{self, Local, Near, PAYLOAD_LEN_MAX},
};
use tokio::{net::UdpSocket, sync::mpsc};
use tokio_util::task::TaskTracker;

use super::{Seen, Stop, shutdown};
use crate::{access::Access, failure::Failure};

/// Programs at a time; what others send is dropped until one of them is quiet for long enough.
const PEERS_MAX: usize = 1024;
/// Payloads of one program that wait for its flow, among others while it is opened. More are dropped.
const QUEUE_LEN: usize = 64;
/// A flow on which nothing moves for so long has ended; the program's next payload begins another (RFC 4787, 4.3, asks
/// for two minutes at least).
const IDLE: Duration = Duration::from_secs(300);

/// Where the payloads of each program go.
type Inboxes = Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<Bytes>>>>;

/// A local UDP port that leads to one app.
#[derive(Debug)]
pub(crate) struct UdpForward {
    socket: Arc<UdpSocket>,
    destination: Destination,
    inboxes: Inboxes,
}

impl UdpForward {
    /// Takes a local port.
    pub(crate) async fn bind(address: SocketAddr, destination: Destination) -> Result<Self, Failure> {
        let socket = UdpSocket::bind(address).await.map_err(|source| Failure::Listen {
            wanted_by: destination.clone(),
            address,
            source,
        })?;
        Ok(Self { socket: Arc::new(socket), destination, inboxes: Inboxes::default() })
    }

    /// Where programs send.
    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes payloads until told to stop; its flows live in the tracker, and end with it.
    pub(crate) async fn run(
        self,
        access: Arc<Access>,
        seen: Arc<dyn Seen>,
        tracker: TaskTracker,
        stop: Stop,
    ) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PAYLOAD_LEN_MAX);
            let arrived = tokio::select! {
                biased;
                () = stop.accepting.cancelled() => {
                    // Nobody hears their programs any more; the socket goes with the last of them.
                    self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return;
                }
                arrived = self.socket.recv_buf_from(&mut buffer) => arrived,
            };
            match arrived {
                Ok((_, peer)) => {
                    let payload = buffer.split().freeze();
                    if let Some(inbox) = self.deliver(peer, payload) {
                        let (access, seen, stop) = (Arc::clone(&access), Arc::clone(&seen), stop.clone());
                        tracker.spawn(self.flow(peer, inbox, access, seen, stop));
                    }
                }
                // A program that does not listen any more: its flow falls silent by itself.
                Err(error) => tracing::debug!(%error, "a local datagram was not received"),
            }
        }
    }

    /// Hands a payload to its program's flow; the inbox of a new one, if it needs one.
    fn deliver(&self, peer: SocketAddr, payload: Bytes) -> Option<mpsc::Receiver<Bytes>> {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = inboxes.get(&peer) {
            // Full: UDP drops.
            _ = inbox.try_send(payload);
            return None;
        }
        if inboxes.len() >= PEERS_MAX {
            tracing::debug!(%peer, "a datagram was dropped: too many programs at a time");
            return None;
        }
        let (inbox, arrived) = mpsc::channel(QUEUE_LEN);
        _ = inbox.try_send(payload);
        inboxes.insert(peer, inbox);
        Some(arrived)
    }

    /// The life of one flow.
    fn flow(
        &self,
        peer: SocketAddr,
        inbox: mpsc::Receiver<Bytes>,
        access: Arc<Access>,
        seen: Arc<dyn Seen>,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (socket, destination) = (Arc::clone(&self.socket), self.destination.clone());
        let inboxes = Arc::clone(&self.inboxes);
        async move {
            seen.began();
            let local = Local::Peer { socket, peer, inbox };
            let (up, down, told) = tokio::select! {
                biased;
                reason = shutdown(&stop.streams) => (0, 0, format!("flow ended: {reason}")),
                told = carry(&access, local, &destination) => told,
            };
            inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
            seen.ended(up, down, &told);
        }
    }
}

/// Carries one program's payloads to the flow's end; says how many bytes went up and down, and in words how it ended.
async fn carry(access: &Access, local: Local, to: &Destination) -> (u64, u64, String) {
    match access.connect_udp(to).await {
        Ok(carriage) => {
            let options = RelayOptions { idle: Some(IDLE) };
            let end = udp::run(carriage, local, Near::Client, options, std::future::pending()).await;
            let (up, down) = (end.bytes_from_client, end.bytes_from_app);
            (up, down, format!("flow ended: {} ({up} B up, {down} B down)", end.reason))
        }
        Err(failure) => (0, 0, crate::exit::message(&failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn forward() -> UdpForward {
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        UdpForward::bind(at, "dns.corp.example:53".parse().unwrap()).await.unwrap()
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test]
    async fn each_program_has_one_flow_with_what_it_sent_in_order() {
        let forward = forward().await;
        let mut first = forward.deliver(peer(1), Bytes::from_static(b"a")).unwrap();
        assert!(forward.deliver(peer(1), Bytes::from_static(b"b")).is_none());
        let mut second = forward.deliver(peer(2), Bytes::from_static(b"c")).unwrap();
        assert_eq!((first.try_recv().unwrap(), first.try_recv().unwrap()), ("a".into(), "b".into()));
        assert_eq!(second.try_recv().unwrap(), "c");
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_so_are_the_programs() {
        let forward = forward().await;
        let inbox = forward.deliver(peer(1), Bytes::new()).unwrap();
        for _ in 0..2 * QUEUE_LEN {
            assert!(forward.deliver(peer(1), Bytes::new()).is_none());
        }
        assert_eq!(inbox.len(), QUEUE_LEN);
        let more: Vec<_> =
            (2..).map(peer).take(PEERS_MAX).filter_map(|peer| forward.deliver(peer, Bytes::new())).collect();
        assert_eq!(more.len(), PEERS_MAX - 1);
    }
}
