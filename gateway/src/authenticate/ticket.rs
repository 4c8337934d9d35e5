//! What this service says to itself by way of a browser: sealed, for one purpose, and with an end.
//!
//! That a ticket counts once is up to who takes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use pomerium_shared::clock::unix_seconds;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::aead;

#[derive(Serialize, Deserialize)]
struct Ticket<T> {
    content: T,
    ends_at_seconds: u64,
}

/// A ticket that holds until `end`, as text for a URL or a form; `None` without randomness.
pub(super) fn seal<T: Serialize>(
    key: &[u8; 32],
    purpose: &str,
    content: T,
    end: SystemTime,
) -> Option<String> {
    let ticket = Ticket { content, ends_at_seconds: unix_seconds(end) };
    let plain = serde_json::to_vec(&ticket).ok()?;
    let sealed = aead::seal(key, &plain, purpose.as_bytes()).ok()?;
    Some(URL_SAFE_NO_PAD.encode(sealed))
}

/// What is in a ticket of this key and purpose, and its end; `None` for anything else, and from that end on.
///
/// The text is as long as a form of ours may be at most.
pub(super) fn open<T: DeserializeOwned>(
    key: &[u8; 32],
    purpose: &str,
    text: &str,
    now: SystemTime,
) -> Option<(T, SystemTime)> {
    let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
    let plain = aead::open(key, &sealed, purpose.as_bytes()).ok()?;
    let Ticket { content, ends_at_seconds } = serde_json::from_slice(&plain).ok()?;
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(ends_at_seconds))?;
    (now < end).then_some((content, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [1; 32];

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn opened(key: &[u8; 32], purpose: &str, text: &str, seconds: u64) -> Option<(String, SystemTime)> {
        open(key, purpose, text, at(seconds))
    }

    #[test]
    fn a_ticket_opens_for_its_purpose_and_before_its_end_alone() {
        let text = seal(&KEY, "this", "content", at(1_060)).unwrap();
        assert_eq!(opened(&KEY, "this", &text, 1_059), Some(("content".to_owned(), at(1_060))));
        assert_eq!(opened(&KEY, "this", &text, 1_060), None, "its time is over");
        assert_eq!(opened(&KEY, "that", &text, 1_059), None, "made for something else");
        assert_eq!(opened(&[2; 32], "this", &text, 1_059), None, "of another key");
        assert_eq!(open::<u64>(&KEY, "this", &text, at(1_059)), None, "of another kind");
        assert_ne!(seal(&KEY, "this", "content", at(1_060)), Some(text), "no two are alike");
    }

    proptest! {
        #[test]
        fn a_changed_ticket_and_any_text_are_none(index in any::<prop::sample::Index>(), text in ".{0,80}") {
            let mut octets = URL_SAFE_NO_PAD.decode(seal(&KEY, "this", "content", at(1_060)).unwrap()).unwrap();
            let place = index.index(octets.len());
            octets[place] ^= 1;
            prop_assert_eq!(opened(&KEY, "this", &URL_SAFE_NO_PAD.encode(octets), 1_000), None);
            prop_assert_eq!(opened(&KEY, "this", &text, 1_000), None);
        }
    }
}
