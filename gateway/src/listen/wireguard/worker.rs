//! The life of one peer: its tunnel, its netstack, and the way between them.

use std::{sync::Arc, time::Duration};

use pomerium_shared::{
    clock::Now,
    netstack::{
        counters::Counters,
        flows::{Driver, Turn, netstack},
        settings::Settings,
        stack::Stack,
    },
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Door, Handle, flows,
    receive::{Datagrams, Way},
    roster::random,
};
use crate::wireguard::{
    MTU,
    counters::{Dropped, to_text},
    peer::{Event, Peer},
    train::{Ready, Train},
    tunnel::Tunnel,
};

/// Reads that are opened before what they call for is sent.
const READS: usize = 64;
/// Octets that are opened or sealed before other tasks have their turn: less than a millisecond of a processor.
const TURN_LEN: usize = 256 * 1024;
/// Packets that the netstack gives to be sent before the socket is looked at again.
const PACKETS_MAX: usize = 512;
/// Streams and flows that one peer may have open, and connections that may wait for a decision.
const FLOWS_MAX: usize = 256;
pub(super) const HALF_OPEN_MAX: usize = 256;
/// Octets that a stream keeps each way at most: 100 Mbit/s at 40 ms.
const WINDOW: usize = 512 * 1024;
/// For resets to reach a peer that is none any more. It is part of the second in which a revocation has to cut.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// One peer at work.
#[derive(Debug)]
pub(super) struct Worker {
    door: Arc<Door>,
    handle: Arc<Handle>,
    peer: Peer,
    /// How it was heard last.
    way: Option<Way>,
    packets: Vec<Vec<u8>>,
    /// What its netstack threw away, as far as that was counted.
    dropped: Counters,
    pace: Pace,
}

/// Gives other tasks their turn after so much work.
#[derive(Debug, Default)]
struct Pace {
    octets: usize,
}

impl Pace {
    /// So many octets were opened or sealed, without waiting for anything.
    async fn took(&mut self, octets: usize) {
        self.octets += octets;
        if self.octets >= TURN_LEN {
            self.octets = 0;
            tokio::task::yield_now().await;
        }
    }
}

impl Worker {
    pub(super) fn new(door: Arc<Door>, handle: Arc<Handle>) -> Self {
        let tunnel = Tunnel::new(
            &door.identity,
            *handle.peer.public_key.as_bytes(),
            Some(*handle.peer.preshared_key.expose()),
            handle.index,
        );
        let peer = Peer::new(tunnel, handle.peer.addresses);
        let (packets, dropped, pace) = (Vec::new(), Counters::default(), Pace::default());
        Self { door, handle, peer, way: None, packets, dropped, pace }
    }
}

/// Runs until the peer is none any more.
pub(super) async fn run(mut worker: Worker, inbox: mpsc::Receiver<Datagrams>) {
    let (door, handle) = (worker.door.clone(), worker.handle.clone());
    let (stack_door, own) = (door.clone(), door.networks.gateway());
    let mut settings = Settings::new(u64::from(random()) << 32 | u64::from(random()));
    (settings.mtu, settings.window) = (MTU, WINDOW);
    settings.own = vec![own.v4.into(), own.v6.into()];
    (settings.flows_max, settings.flows_per_source_max) = (FLOWS_MAX, FLOWS_MAX);
    (settings.half_open_max, settings.half_open_per_source_max) = (HALF_OPEN_MAX, HALF_OPEN_MAX);
    let answers = move |to| stack_door.book.load().host_of(to).is_some();
    let (driver, opening) = netstack(Stack::new(settings, answers, Now::read().monotonic));
    tokio::select! {
        () = worker.pump(&driver, inbox) => {}
        () = flows::serve(door, handle.clone(), opening) => {}
    }
    worker.count(&driver);
    let dropped = to_text(worker.dropped.seen());
    tracing::info!(peer = %handle.peer.id, user = %handle.peer.user_id, dropped, "wireguard peer ended");
}

impl Worker {
    /// Moves packets both ways.
    async fn pump(&mut self, driver: &Driver, mut inbox: mpsc::Receiver<Datagrams>) {
        let mut reads = Vec::with_capacity(READS);
        let ended = self.handle.ended.clone();
        let mut last_words: Option<Instant> = None;
        loop {
            let Ok(turn) = driver.turn(&mut self.packets, PACKETS_MAX) else { return };
            self.send().await;
            self.count(driver);
            self.tell();
            tokio::select! {
                biased;
                () = ended.cancelled(), if last_words.is_none() => {
                    last_words = Some(Instant::now() + LAST_WORDS);
                }
                () = at(last_words) => return,
                count = inbox.recv_many(&mut reads, READS) => {
                    if count == 0 {
                        return;
                    }
                    self.receive(driver, &mut reads).await;
                }
                () = more(driver, turn) => {}
                () = at(self.peer.next_tick().map(Into::into)) => self.peer.tick(Now::read().monotonic),
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Opens what has come, and hands it to the netstack.
    async fn receive(&mut self, driver: &Driver, reads: &mut Vec<Datagrams>) {
        let mut buffers = self.door.buffers.borrow();
        let opened = &mut buffers.opened;
        for read in reads.drain(..) {
            let now = Now::read().monotonic;
            for datagram in read.octets.chunks(read.each.max(1)) {
                match self.peer.receive(datagram, read.way.peer, opened.room(), now) {
                    Ok(Some(len)) => {
                        if !opened.push(len) {
                            opened.hand_over(driver);
                        }
                    }
                    Ok(None) => {}
                    Err(why) => self.door.drops.datagrams.count(why),
                }
            }
            self.pace.took(read.octets.len()).await;
            self.follow(read.way);
        }
        opened.hand_over(driver);
        self.door.buffers.give_back(buffers);
    }

    /// Answers where the peer was heard.
    fn follow(&mut self, way: Way) {
        if self.peer.endpoint() != Some(way.peer) {
            return;
        }
        if self.way.as_ref().is_none_or(|before| before.peer != way.peer) {
            self.handle.endpoint.store(Some(Arc::new(way.peer)));
        }
        self.way = Some(way);
    }

    /// Sends replies and packets, as many as possible in a call.
    async fn send(&mut self) {
        let Some(way) = &self.way else {
            self.packets.clear();
            return;
        };
        let counters = &self.door.drops.datagrams;
        for reply in self.peer.replies() {
            let reply = Ready { contents: &reply, segment: reply.len(), segments: 1 };
            if way.socket.send(reply, way.peer, way.local).await.is_err() {
                counters.count(Dropped::NotSent);
            }
        }
        if self.packets.is_empty() {
            return;
        }
        let now = Now::read().monotonic;
        let mut buffers = self.door.buffers.borrow();
        let train = &mut buffers.train;
        train.limit(way.socket.segments_max());
        for packet in self.packets.drain(..) {
            match self.peer.seal(&packet, train.room(), now) {
                Ok(Some(len)) => {
                    if !train.push(len) {
                        send(train, way, &self.door).await;
                        train.restart(len);
                    }
                }
                Ok(None) => {}
                Err(why) => counters.count(why),
            }
            self.pace.took(packet.len()).await;
        }
        send(train, way, &self.door).await;
        train.restart(0);
        self.door.buffers.give_back(buffers);
    }

    /// Adds what the netstack has thrown away to what the door has.
    fn count(&mut self, driver: &Driver) {
        let now = driver.counters();
        if now != self.dropped {
            self.door.drops.count_packets(&now.since(&self.dropped));
            self.dropped = now;
        }
    }

    /// Says what a person would notice.
    fn tell(&mut self) {
        while let Some(event) = self.peer.next_event() {
            let ip = self.peer.endpoint().map(|endpoint| endpoint.to_string()).unwrap_or_default();
            let (peer, user) = (&self.handle.peer.id, &self.handle.peer.user_id);
            match event {
                Event::Up => tracing::info!(%peer, %user, ip, "wireguard peer is up"),
                Event::Moved => tracing::info!(%peer, %user, ip, "wireguard peer has moved"),
                Event::Silent => tracing::info!(%peer, %user, ip, "wireguard peer is silent"),
            }
        }
    }
}

async fn send(train: &Train, way: &Way, door: &Door) {
    let Some(ready) = train.ready() else { return };
    if let Err(error) = way.socket.send(ready, way.peer, way.local).await {
        door.drops.datagrams.count_many(Dropped::NotSent, u64::try_from(ready.segments).unwrap_or(u64::MAX));
        tracing::debug!(%error, "datagrams were not sent");
    }
}

/// Resolves when the netstack has something to do.
async fn more(driver: &Driver, turn: Turn) {
    if !turn.has_packets {
        driver.ready(turn).await;
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_leaves_others_their_turn() {
        let mut turns = 0;
        let flood = async {
            let mut pace = Pace::default();
            for _ in 0..64 {
                pace.took(TURN_LEN / 4).await;
            }
        };
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = flood => {}
            () = others => {}
        }
        assert_eq!(turns, 64 / 4);
    }
}
