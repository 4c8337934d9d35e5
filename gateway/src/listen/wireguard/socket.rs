//! A UDP socket that reads and sends many datagrams a system call, where the system can.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};

use crate::wireguard::train::Ready;

/// The socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: UdpSocket::from_std(socket)?, state })
    }

    /// Waits for datagrams; returns how many of the buffers were filled. Cancel-safe.
    pub(super) async fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        loop {
            self.io.readable().await?;
            let read =
                self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, metas));
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Sends a train, from the address `from` where it is known. Waits for room; cancel-safe in that all or nothing is sent.
    pub(super) async fn send(
        &self,
        train: Ready<'_>,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<()> {
        loop {
            match self.try_send(train, to, from) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.io.writable().await?,
                done => return done,
            }
        }
    }

    /// Sends a train, or says that there is no room.
    pub(super) fn try_send(&self, train: Ready<'_>, to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let segment_size = (train.segments > 1).then_some(train.segment);
        let transmit =
            Transmit { destination: to, ecn: None, contents: train.contents, segment_size, src_ip: from };
        self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), &transmit))
    }

    /// Datagrams that one train may have.
    pub(super) fn segments_max(&self) -> usize {
        self.state.max_gso_segments()
    }
}
