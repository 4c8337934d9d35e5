//! The other end of a tunnel, for tests: boringtun's.

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};

use super::DATAGRAM_MAX;

/// A client's tunnel.
pub(crate) struct Client {
    pub(crate) tunn: Tunn,
}

impl Client {
    /// One with this private key, towards a gateway with this public one.
    pub(crate) fn new(private: [u8; 32], gateway: [u8; 32], preshared: [u8; 32]) -> Self {
        let tunn =
            Tunn::new(StaticSecret::from(private), PublicKey::from(gateway), Some(preshared), None, 1, None);
        Self { tunn }
    }

    pub(crate) fn initiation(&mut self) -> Vec<u8> {
        let mut buffer = [0; DATAGRAM_MAX];
        written(self.tunn.format_handshake_initiation(&mut buffer, true))
    }

    pub(crate) fn wrap(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = [0; DATAGRAM_MAX];
        written(self.tunn.encapsulate(packet, &mut buffer))
    }

    /// What comes out of a datagram: a packet, or an answer.
    pub(crate) fn take(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut buffer = [0; DATAGRAM_MAX];
        match self.tunn.decapsulate(None, datagram, &mut buffer) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                packet.to_vec()
            }
            TunnResult::WriteToNetwork(answer) => answer.to_vec(),
            TunnResult::Done => Vec::new(),
            TunnResult::Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) fn public(private: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private)).to_bytes()
}

fn written(result: TunnResult<'_>) -> Vec<u8> {
    let TunnResult::WriteToNetwork(datagram) = result else { panic!("{result:?}") };
    datagram.to_vec()
}
