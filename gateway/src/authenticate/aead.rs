//! XChaCha20-Poly1305 with a random nonce behind the ciphertext: the compatible form of everything that is sealed.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::{Aead as _, Payload}};

const NONCE_LEN: usize = 24;

/// Seals `plain`; `associated` must be given again to open it. Layout: ciphertext, tag, nonce.
pub(crate) fn seal(key: &[u8; 32], plain: &[u8], associated: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).expect("the system's random source answers");
    let payload = Payload { msg: plain, aad: associated };
    let mut sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(XNonce::from_slice(&nonce), payload)
        .expect("texts of this size can be encrypted");
    sealed.extend_from_slice(&nonce);
    sealed
}

/// Opens what [`seal`] made; `None` for anything else.
pub(crate) fn open(key: &[u8; 32], sealed: &[u8], associated: &[u8]) -> Option<Vec<u8>> {
    if sealed.len() <= NONCE_LEN {
        return None;
    }
    let (ciphertext, nonce) = sealed.split_at(sealed.len() - NONCE_LEN);
    let payload = Payload { msg: ciphertext, aad: associated };
    XChaCha20Poly1305::new(key.into()).decrypt(XNonce::from_slice(nonce), payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_place_open_it() {
        let sealed = seal(&[1; 32], b"text", b"place");
        assert_eq!(open(&[1; 32], &sealed, b"place").as_deref(), Some(&b"text"[..]));
        assert_eq!(open(&[2; 32], &sealed, b"place"), None);
        assert_eq!(open(&[1; 32], &sealed, b"elsewhere"), None);
        for len in 0..sealed.len() {
            assert_eq!(open(&[1; 32], &sealed[..len], b"place"), None);
        }
    }
}
