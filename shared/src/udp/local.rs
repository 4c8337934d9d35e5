//! The end of a flow that speaks UDP itself: an app, or a program that talks to a local port.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{net::UdpSocket, sync::mpsc};

use super::PAYLOAD_LEN_MAX;
use crate::netstack::{flows::UdpFlow, stack::SendError};

/// Where a flow's payloads come from and go to.
#[derive(Debug)]
pub enum Local {
    /// A socket that is connected to its one peer.
    Connected(UdpSocket),
    /// One of many peers of a socket; who reads the socket fills the inbox.
    Peer {
        /// The socket that the peer knows.
        socket: Arc<UdpSocket>,
        /// The peer.
        peer: SocketAddr,
        /// What came from there.
        inbox: mpsc::Receiver<Bytes>,
    },
    /// A flow of a netstack.
    Flow(UdpFlow),
}

impl Local {
    /// Waits for a payload. Cancel-safe.
    ///
    /// # Errors
    /// What the system says, for example that nothing listens at the other end; `BrokenPipe` when nobody fills the inbox any
    /// more.
    pub(super) async fn recv(&mut self, buffer: &mut BytesMut) -> io::Result<Bytes> {
        match self {
            Self::Connected(socket) => {
                buffer.reserve(PAYLOAD_LEN_MAX);
                socket.recv_buf(buffer).await?;
                Ok(buffer.split().freeze())
            }
            Self::Peer { inbox, .. } => inbox.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into()),
            Self::Flow(flow) => flow.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Sends a payload; one that the system has no room for is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn send(&self, payload: &[u8]) -> io::Result<()> {
        let sent = match self {
            Self::Connected(socket) => socket.try_send(payload),
            Self::Peer { socket, peer, .. } => socket.try_send_to(payload, *peer),
            Self::Flow(flow) => {
                return match flow.send(payload) {
                    Err(SendError::Gone) => Err(io::ErrorKind::BrokenPipe.into()),
                    // Too large for the other side, or no room: dropped, as by any network.
                    Ok(()) | Err(_) => Ok(()),
                };
            }
        };
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}
