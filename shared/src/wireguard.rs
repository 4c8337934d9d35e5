//! What the gateway and its clients say of WireGuard peers: keys, and the documents of enrolment.
//!
//! A key pair is made where it is used. The gateway learns the public half, and tells once what else the peer needs
//! ([`Enrolment`]), of which [`wg_quick`] makes the file that every WireGuard program reads. What must not live here: the
//! protocol of WireGuard, and who may enrol what.

mod documents;
mod keys;
#[cfg(test)]
mod tests;

pub use self::{
    documents::{Enrolment, ListedPeer, NAME_LEN_MAX, NewPeer, PeerName, PeerNameError, PeerState, wg_quick},
    keys::{BadKey, PresharedKey, PrivateKey, PublicKey},
};
