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
    reason::EndReason,
    relay::{Counters, RelayOptions},
    udp::{self, Local, Near, PAYLOAD_LEN_MAX},
};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Seen, shutdown};
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

    /// Takes payloads until told to stop, which ends its flows: once nobody hears their programs there is nothing to wait for.
    /// The port is free when this returns.
    ///
    /// # Cancellation
    /// Dropped, it ends its flows as well, which then tell nobody.
    pub(crate) async fn run(self, access: Arc<Access>, seen: Arc<dyn Seen>, stop: CancellationToken) {
        let (mut buffer, mut flows) = (BytesMut::new(), JoinSet::new());
        loop {
            buffer.reserve(PAYLOAD_LEN_MAX);
            let arrived = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = flows.join_next() => {
                    reap(ended);
                    continue;
                }
                arrived = self.socket.recv_buf_from(&mut buffer) => arrived,
            };
            match arrived {
                Ok((_, peer)) => {
                    let payload = buffer.split().freeze();
                    if let Some(inbox) = self.deliver(peer, payload) {
                        let (access, seen, stop) = (Arc::clone(&access), Arc::clone(&seen), stop.clone());
                        flows.spawn(self.flow(peer, inbox, access, seen, stop));
                    }
                }
                // A program that does not listen any more: its flow falls silent by itself.
                Err(error) => tracing::debug!(%error, "a local datagram was not received"),
            }
        }
        while let Some(ended) = flows.join_next().await {
            reap(ended);
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
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (socket, destination) = (Arc::clone(&self.socket), self.destination.clone());
        let inboxes = Arc::clone(&self.inboxes);
        async move {
            seen.began();
            let local = Local::Peer { socket, peer, inbox };
            let (up, down, told) = carry(&access, local, &destination, &stop, &seen.counters()).await;
            inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
            seen.ended(up, down, &told);
        }
    }
}

fn reap(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panicked) = ended {
        tracing::error!(error = %panicked, "a flow ended by our own fault");
    }
}

/// Carries one program's payloads to the flow's end; says how many bytes went up and down, and in words how it ended.
async fn carry(
    access: &Access,
    local: Local,
    to: &Destination,
    stop: &CancellationToken,
    counters: &Counters,
) -> (u64, u64, String) {
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return (0, 0, format!("flow ended: {}", EndReason::Shutdown)),
        opened = access.connect_udp(to) => opened,
    };
    match opened {
        Ok(carriage) => {
            let options = RelayOptions { idle: Some(IDLE) };
            let stopped = shutdown(stop);
            let end = udp::run_counted(carriage, local, Near::Client, options, stopped, counters).await;
            let (up, down) = (end.bytes_from_client, end.bytes_from_app);
            (up, down, format!("flow ended: {} ({up} B up, {down} B down)", end.reason))
        }
        Err(failure) => (0, 0, crate::exit::message(&failure)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::access::{Caller, tests::access_to};

    /// What is told of flows.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn add(&self, what: &str) {
            self.0.lock().unwrap().push(what.to_owned());
        }
    }

    impl Seen for Told {
        fn began(&self) {
            self.add("began");
        }

        fn ended(&self, _up: u64, _down: u64, how: &str) {
            self.add(how);
        }

        fn refused(&self, _to: &Destination, why: &str) {
            self.add(why);
        }
    }

    /// Lets a flow begin at the gateway, or leaves it without an answer; gives its connection when the flow has got so far.
    async fn flow_at(gateway: &TcpListener, is_opened: bool) -> TcpStream {
        let (mut stream, _) = gateway.accept().await.unwrap();
        let mut said = [0; 4096];
        assert!(stream.read(&mut said).await.unwrap() > 0, "the question for a flow");
        if is_opened {
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: connect-udp\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            assert!(stream.read(&mut said).await.unwrap() > 0, "its first payload");
        }
        stream
    }

    #[tokio::test]
    async fn a_forward_that_stops_ends_its_flows_and_its_port_is_free_at_once() {
        for is_opened in [true, false] {
            let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let access = access_to(gateway.local_addr().unwrap(), None, Caller::Device);
            let (forward, told, stop) = (forward().await, Arc::<Told>::default(), CancellationToken::new());
            let at = forward.local().unwrap();
            let program = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            program.send_to(b"ping", at).await.unwrap();
            let seen: Arc<dyn Seen> = Arc::<Told>::clone(&told);
            let mut running = Box::pin(forward.run(access, seen, stop.clone()));
            let mut flow = tokio::select! {
                () = &mut running => panic!("nobody has stopped it"),
                flow = flow_at(&gateway, is_opened) => flow,
            };
            stop.cancel();
            running.await;
            UdpSocket::bind(at).await.unwrap();
            let told = told.0.lock().unwrap().clone();
            assert!(told.len() == 2 && told[1].starts_with("flow ended: shutdown"), "{told:?}");
            let mut rest = Vec::new();
            let _closed_or_reset = flow.read_to_end(&mut rest).await;
        }
    }

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
