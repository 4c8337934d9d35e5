//! Encryption at rest.

use crate::authenticate::aead;

/// Seals values with the master key; each is bound to the name of its place.
pub(super) struct SealKey([u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(*key)
    }

    pub(super) fn seal(&self, plain: &[u8], place: &str) -> Vec<u8> {
        aead::seal(&self.0, plain, place.as_bytes())
    }

    pub(super) fn open(&self, sealed: &[u8], place: &str) -> Option<Vec<u8>> {
        aead::open(&self.0, sealed, place.as_bytes())
    }
}
