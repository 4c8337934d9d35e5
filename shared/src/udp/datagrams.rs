//! One QUIC connection's DATAGRAM frames, shared by its flows: each begins with the flow's name, the number of its request's
//! stream divided by four (RFC 9297, 2.1).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::capsule;

/// Payloads of one flow that wait for it at most. More are dropped, as a full socket buffer would.
const QUEUE_LEN: usize = 256;

/// Where what arrives is put, by name.
type Inboxes = Arc<Mutex<HashMap<u64, mpsc::Sender<Bytes>>>>;

/// The DATAGRAM frames of a connection; clones share them.
#[derive(Debug, Clone)]
pub struct Datagrams {
    quic: quinn::Connection,
    inboxes: Inboxes,
}

impl Datagrams {
    /// Nothing is read before [`run`](Self::run).
    #[must_use]
    pub fn new(quic: quinn::Connection) -> Self {
        Self { quic, inboxes: Inboxes::default() }
    }

    /// Hands what arrives to the flows until the connection ends. What is for no flow is dropped.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub async fn run(&self) {
        while let Ok(datagram) = self.quic.read_datagram().await {
            let mut rest = &datagram[..];
            let Some(name) = capsule::varint(&mut rest) else { continue };
            let header_len = datagram.len() - rest.len();
            let Some(payload) = capsule::payload(datagram.slice(header_len..)) else { continue };
            let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(inbox) = inboxes.get(&name) {
                // Full: UDP drops.
                _ = inbox.try_send(payload);
            }
        }
    }

    /// The flow whose request is on this stream.
    #[must_use]
    pub fn flow(&self, stream_id: u64) -> Flow {
        let name = stream_id / 4;
        let (inbox, arrived) = mpsc::channel(QUEUE_LEN);
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(name, inbox);
        let mut header = BytesMut::new();
        capsule::put_varint(&mut header, name);
        // The context of UDP payloads (RFC 9298, 4).
        capsule::put_varint(&mut header, 0);
        Flow { name, header: header.freeze(), arrived, datagrams: self.clone() }
    }
}

/// The DATAGRAM frames of one flow; when it is dropped, what still arrives for it is dropped as well.
#[derive(Debug)]
pub struct Flow {
    name: u64,
    header: Bytes,
    arrived: mpsc::Receiver<Bytes>,
    datagrams: Datagrams,
}

impl Flow {
    /// Waits for a payload; `None` never comes while the flow lives. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Option<Bytes> {
        self.arrived.recv().await
    }

    /// Sends a payload; gives it back if it is too long for the path.
    pub(super) fn send(&self, payload: Bytes) -> Result<(), Bytes> {
        let quic = &self.datagrams.quic;
        let fits = quic.max_datagram_size().is_some_and(|max| self.header.len() + payload.len() <= max);
        if !fits {
            return Err(payload);
        }
        let mut frame = BytesMut::with_capacity(self.header.len() + payload.len());
        frame.extend_from_slice(&self.header);
        frame.extend_from_slice(&payload);
        match quic.send_datagram(frame.freeze()) {
            Err(quinn::SendDatagramError::TooLarge) => Err(payload),
            // The end of the connection is seen on the flow's stream.
            _ => Ok(()),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.datagrams.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
