//! Seals what lies on disk with a key that does not: the token files and the device key of a person with a keyring.
//!
//! `pomerium-cli sealed 1 BASE64URL`, which is nonce, ciphertext and tag of AES-256-GCM; the file's name is authenticated too, so
//! that no file stands in for another.

use std::{fmt, io};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

const MARK: &str = "pomerium-cli sealed 1 ";
/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;

/// A key to seal with.
pub(crate) struct Seal(LessSafeKey);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

/// Whether a text is sealed.
pub(crate) fn is_sealed(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Bytes that a text of so many has when it is sealed, at most.
pub(crate) const fn sealed_len(len: u64) -> u64 {
    MARK.len() as u64 + (len + NONCE_LEN as u64 + 16) * 4 / 3 + 4
}

impl Seal {
    /// With a key of [`KEY_LEN`] bytes; `None` for anything else.
    pub(crate) fn of(key: &[u8]) -> Option<Self> {
        Some(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?)))
    }

    /// Seals the text of a file of this name.
    pub(crate) fn seal(&self, name: &str, text: &str) -> io::Result<String> {
        let failed = |_| io::Error::other("no random numbers, or no cipher");
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(failed)?;
        let mut sealed = text.as_bytes().to_vec();
        let aad = Aad::from(name.as_bytes());
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(failed)?;
        Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())))
    }

    /// What was sealed under this name and with this key; `None` for anything else.
    pub(crate) fn open(&self, name: &str, text: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(MARK)?.trim_end()).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(name.as_bytes()), sealed).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_key_another_name_and_a_changed_byte_open_nothing() {
        let (seal, other) = (Seal::of(&[1; KEY_LEN]).unwrap(), Seal::of(&[2; KEY_LEN]).unwrap());
        let sealed = seal.seal("a.jwt", "secret").unwrap();
        assert!(is_sealed(&sealed) && !sealed.contains("secret"));
        assert_eq!(seal.open("a.jwt", &format!("{sealed}\n")).as_deref(), Some("secret"));
        assert_eq!((other.open("a.jwt", &sealed), seal.open("b.jwt", &sealed)), (None, None));
        let mut changed = sealed.into_bytes();
        let at = MARK.len() + 20;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(seal.open("a.jwt", std::str::from_utf8(&changed).unwrap()), None);
        assert!(Seal::of(&[1; 31]).is_none());
        assert_eq!(format!("{seal:?}"), "Seal(..)");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_has_room(text in ".{0,200}") {
            let seal = Seal::of(&[7; KEY_LEN]).unwrap();
            let sealed = seal.seal("x", &text).unwrap();
            prop_assert!(u64::try_from(sealed.len()).unwrap() <= sealed_len(text.len().try_into().unwrap()));
            prop_assert_eq!(seal.open("x", &sealed), Some(text));
        }

        #[test]
        fn no_text_panics(text in ".{0,100}") {
            let _any = Seal::of(&[7; KEY_LEN]).unwrap().open("x", &format!("{MARK}{text}"));
        }
    }
}
