//! Services that send back what they get: one on TCP, which says `bye` once the other side has ended its half, and one on UDP.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::wait::until;

/// What comes after the echo, when the client has finished sending.
pub const FAREWELL: &[u8] = b"bye";

/// A running echo service.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    dials: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Echo {
    /// Starts the service on a port of its own.
    ///
    /// # Errors
    /// Loopback cannot be listened on.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let dials = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, dials.clone()));
        Ok(Self { address, dials, _task: task })
    }

    /// How many connections it has accepted. One that somebody has just made may not be among them: see [`Self::dialled`].
    #[must_use]
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// Waits until it has accepted so many connections.
    ///
    /// # Errors
    /// They did not come in time.
    pub async fn dialled(&self, count: usize) -> anyhow::Result<()> {
        until("connections to the echo service", async || (self.dials() >= count).then_some(())).await
    }
}

/// Says `text` to whoever is there, ends, and gives all that comes back.
///
/// # Errors
/// Nobody answers, or the connection breaks.
pub async fn exchange(to: SocketAddr, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn serve(listener: TcpListener, dials: Arc<AtomicUsize>) {
    let mut streams = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        dials.fetch_add(1, Ordering::SeqCst);
        streams.spawn(async move {
            // A client that leaves in the middle is its own affair.
            let _gone = echo(stream).await;
        });
        while streams.try_join_next().is_some() {}
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        stream.write_all(&buffer[..count]).await?;
    }
    stream.write_all(FAREWELL).await?;
    stream.shutdown().await
}

/// A running echo service for datagrams.
#[derive(Debug)]
pub struct UdpEcho {
    /// Where it listens.
    pub address: SocketAddr,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    datagrams: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl UdpEcho {
    /// Starts the service on a port of its own.
    ///
    /// # Errors
    /// Loopback has no port.
    pub async fn start() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let (peers, datagrams) =
            (Arc::<Mutex<HashSet<SocketAddr>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (seen, count) = (peers.clone(), datagrams.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                // Who is gone again says so by ICMP, which is not ours to care about.
                let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
                let _lost = socket.send_to(&buffer[..len], peer).await;
            }
        });
        Ok(Self { address, peers, datagrams, _task: task })
    }

    /// How many sockets have sent to it.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many datagrams have come.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.datagrams.load(Ordering::SeqCst)
    }
}
