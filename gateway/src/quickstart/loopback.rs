//! Listeners that only this machine can reach, by type: the quickstart's parts accept from no other.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpStream};

/// A TCP listener on a loopback address.
#[derive(Debug)]
pub(super) struct LoopbackListener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why a listener is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoopbackError {
    /// Others could reach it.
    #[error("{0} can be reached from other machines; the quickstart's parts listen on loopback only")]
    Reachable(SocketAddr),
    /// The system said no.
    #[error("cannot listen on loopback")]
    Listen(#[from] io::Error),
}

impl LoopbackListener {
    /// Listens on 127.0.0.1, on a port of the system's choice.
    pub(super) async fn bind() -> Result<Self, LoopbackError> {
        Self::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// Takes a listener if its address is a loopback address.
    pub(super) fn new(listener: TcpListener) -> Result<Self, LoopbackError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(LoopbackError::Reachable(address));
        }
        Ok(Self { listener, address })
    }

    /// The port that was chosen.
    pub(super) const fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next connection; what fails in between (a peer that left, no descriptors) is not the listener's end.
    /// Cancel-safe.
    pub(super) async fn accept(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::debug!(%error, "a part of the quickstart cannot accept");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}

/// Between tries to accept: no descriptors now does not mean none soon.
const RETRY_DELAY: std::time::Duration = std::time::Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_others_reach_is_refused() {
        let open = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        assert!(matches!(LoopbackListener::new(open), Err(LoopbackError::Reachable(_))));
    }

    #[tokio::test]
    async fn a_part_gets_a_port_of_its_own_on_loopback() {
        let (one, two) = (LoopbackListener::bind().await.unwrap(), LoopbackListener::bind().await.unwrap());
        assert_ne!(one.port(), two.port());
    }
}
