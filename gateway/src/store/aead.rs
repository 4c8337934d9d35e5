//! The one authenticated encryption of the gateway: XChaCha20-Poly1305 with a random nonce behind the ciphertext.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

/// Octets of the nonce that closes a sealed text.
const NONCE_LEN: usize = 24;

/// Why a text could not be sealed or opened. Says no more: the difference would help only a forger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AeadError {
    /// The system has no randomness to give.
    #[error("the system's random number generator failed")]
    NoRandomness,
    /// Too short, changed, made under another key or for another purpose.
    #[error("the sealed text is not authentic")]
    NotAuthentic,
}

/// Seals `plain` and binds it to `associated`, which travels elsewhere.
///
/// Shape: `ciphertext · tag (16) · nonce (24)`. The nonce is random: 192 bits do not collide.
///
/// # Errors
/// [`AeadError::NoRandomness`].
pub fn seal(key: &[u8; 32], plain: &[u8], associated: &[u8]) -> Result<Vec<u8>, AeadError> {
    let mut nonce = [0_u8; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| AeadError::NoRandomness)?;
    let mut sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: associated })
        .map_err(|_| AeadError::NotAuthentic)?;
    sealed.extend_from_slice(&nonce);
    Ok(sealed)
}

/// Opens what [`seal`] made with the same key and `associated`.
///
/// # Errors
/// [`AeadError::NotAuthentic`].
pub fn open(key: &[u8; 32], sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, AeadError> {
    let Some(split) = sealed.len().checked_sub(NONCE_LEN).filter(|at| *at > 0) else {
        return Err(AeadError::NotAuthentic);
    };
    let (body, nonce) = sealed.split_at(split);
    XChaCha20Poly1305::new(key.into())
        .decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad: associated })
        .map_err(|_| AeadError::NotAuthentic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens_only_with_its_key_and_its_purpose(
            plain in proptest::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>(),
        ) {
            let sealed = seal(&[1; 32], &plain, b"a").unwrap();
            prop_assert_eq!(open(&[1; 32], &sealed, b"a"), Ok(plain));
            prop_assert_eq!(open(&[2; 32], &sealed, b"a"), Err(AeadError::NotAuthentic));
            prop_assert_eq!(open(&[1; 32], &sealed, b"b"), Err(AeadError::NotAuthentic));
            let mut changed = sealed.clone();
            changed[flip.index(sealed.len())] ^= 1;
            prop_assert_eq!(open(&[1; 32], &changed, b"a"), Err(AeadError::NotAuthentic));
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(open(&[1; 32], &bytes, b""), Err(AeadError::NotAuthentic));
        }
    }
}
