//! People enrol WireGuard peers: who may, and on what terms. The page for it is [`super::peer_pages`], the call of programs is the
//! proxy's own.

use std::time::{Duration, SystemTime};

use pomerium_shared::wireguard::{Enrolment, ListedPeer, NewPeer, PublicKey};

use super::Authenticate;
use crate::{
    session::Session,
    store::{AddPeerError, StoreError},
    wireguard_peer::PeerTerms,
};

/// A peer is enrolled within this time after a sign-in. It outlives the session, so that a session which somebody has taken must
/// not be enough for it.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// Why a peer is not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// WireGuard is not configured.
    #[error("This gateway takes no WireGuard devices. Ask your administrator.")]
    Off,
    /// A program has no device of its own.
    #[error("WireGuard devices are for people: programs use pomerium-cli with their own token.")]
    NotAPerson,
    /// The person signed in too long ago.
    #[error("Sign in again first: a WireGuard device is added soon after a sign-in.")]
    TooLongAgo,
    /// The key is the gateway's own.
    #[error("This is the gateway's own key: make a pair for the device.")]
    OwnKey,
    /// The key is or was somebody's.
    #[error("This key is known already. Make a new pair, and try again.")]
    KeyKnown,
    /// The person has as many as they may.
    #[error("You have as many WireGuard devices as you may. Remove one first.")]
    Limit,
    /// All addresses are taken.
    #[error("All addresses of WireGuard devices are taken. Tell your administrator.")]
    Exhausted,
    /// Nothing is known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AddPeerError> for EnrolError {
    fn from(error: AddPeerError) -> Self {
        match error {
            AddPeerError::KeyKnown => Self::KeyKnown,
            AddPeerError::Limit => Self::Limit,
            AddPeerError::Exhausted => Self::Exhausted,
            AddPeerError::Store(error) => Self::Store(error),
        }
    }
}

impl Authenticate {
    /// On what terms peers are enrolled; `None` where WireGuard is not configured.
    pub(crate) const fn peer_terms(&self) -> Option<&PeerTerms> {
        self.config.peer_terms.as_ref()
    }

    /// How long a peer outlives its session.
    pub(super) fn peer_grace(&self) -> Duration {
        self.peer_terms().map_or(Duration::ZERO, |terms| terms.session_grace)
    }

    /// Whether a session is that of somebody who signed in at the identity provider.
    pub(crate) fn is_person(&self, session: &Session) -> bool {
        session.idp_id == self.idp_id
    }

    /// Whether a session was begun recently enough to enrol a peer.
    pub(super) fn is_fresh(session: &Session, now: SystemTime) -> bool {
        // Before its beginning by our clock, which was set back: it cannot be old.
        now.duration_since(session.issued_at).is_ok_and(|age| age <= FRESH) || now < session.issued_at
    }

    /// Enrols a peer of this session's person.
    pub(crate) async fn enrol_peer(
        &self,
        session: &Session,
        new: &NewPeer,
        now: SystemTime,
    ) -> Result<Enrolment, EnrolError> {
        let terms = self.peer_terms().ok_or(EnrolError::Off)?;
        if !self.is_person(session) {
            return Err(EnrolError::NotAPerson);
        }
        if !Self::is_fresh(session, now) {
            return Err(EnrolError::TooLongAgo);
        }
        if new.public_key == terms.gateway_public_key {
            return Err(EnrolError::OwnKey);
        }
        let added = self.store.add_peer(session, new, &terms.networks, terms.peers_per_user, now).await;
        let peer = added.inspect_err(|error| {
            if matches!(error, AddPeerError::Exhausted) {
                tracing::warn!(
                    "no address is left for WireGuard peers: configure larger wireguard_addresses"
                );
            }
        })?;
        tracing::info!(peer = %peer.id, user = %session.user_id, key = %peer.public_key, "a WireGuard peer was enrolled");
        Ok(terms.enrolment(&peer))
    }

    /// The peers of this session's person.
    pub(crate) async fn own_peers(
        &self,
        session: &Session,
        now: SystemTime,
    ) -> Result<Vec<ListedPeer>, StoreError> {
        let Some(terms) = self.peer_terms() else { return Ok(Vec::new()) };
        let peers = self.store.peers_of(session).await?;
        Ok(peers.iter().map(|(peer, ends)| terms.listed(peer, *ends, now)).collect())
    }
}

/// The start of a key, which tells a person's own few apart.
pub(super) fn short(key: &PublicKey) -> String {
    key.to_string().chars().take(12).collect()
}
