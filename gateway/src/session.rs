//! Who somebody is, and for how long: plain data and the rules of its life, without I/O.

pub mod credentials;
pub mod demand;
pub mod expiry;
pub mod handle;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::device::Thumbprint;

/// Names one session; random, minted by the gateway, never taken from an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

/// Names one person at their identity provider: the `sub` claim (`oid` where the provider sends one).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(String);

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
text_id!(SessionId);
text_id!(UserId);

/// What the `idp_id` of a workload's session begins with. Those of people's providers have no slash in them.
pub(crate) const WORKLOAD_IDP_PREFIX: &str = "workload/";

/// Claims of the ID token and UserInfo: nested objects are flattened to `a.b.c`, every value is a list.
pub type Claims = BTreeMap<String, Vec<serde_json::Value>>;

/// A signed-in person's session, as authorization and the identity headers see it. The provider's tokens are not
/// part of it: they stay in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Names the session.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Which identity provider vouched for it (an opaque text, compared for equality only).
    pub idp_id: String,
    /// The email address; empty when the provider sent none.
    pub email: String,
    /// The display name; empty when the provider sent none.
    pub name: String,
    /// Group names or ids of the `groups` claim; of somebody in the directory, the names that it says.
    pub groups: Vec<String>,
    /// All claims.
    pub claims: Claims,
    /// When the person signed in.
    pub issued_at: SystemTime,
    /// From this moment on the session is worth nothing.
    pub expires_at: SystemTime,
    /// The device key that the session was begun with (`cnf`, RFC 8705, 3): its handle counts only on a connection whose
    /// client proved to hold that key. `None`: whoever has the handle has the session.
    pub bound_to: Option<Thumbprint>,
    /// Up to here the identity provider has vouched for it; a refresh moves this on. `None`: for all of its time.
    pub vouched_until: Option<SystemTime>,
    /// The device that the person's browser last proved to be. Not what the session is bound to: whoever has the handle
    /// has the proof with it, until it runs out.
    pub proof: Option<DeviceProof>,
}

/// A browser's proof that it holds the credential of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProof {
    /// Names the device.
    pub device_id: String,
    /// From this moment on it proves nothing.
    pub expires_at: SystemTime,
}

impl Session {
    /// Whether the session still counts at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        now < self.expires_at
    }

    /// When it counts no more where the provider's silence is borne for `grace`; `None`: its end alone counts.
    #[must_use]
    pub fn unvouched_at(&self, grace: Duration) -> Option<SystemTime> {
        self.vouched_until?.checked_add(grace)
    }

    /// The proof, while it counts.
    #[must_use]
    pub fn proof_at(&self, now: SystemTime) -> Option<&DeviceProof> {
        self.proof.as_ref().filter(|proof| now < proof.expires_at)
    }
}
