//! The OAuth `state`: what must come back from the identity provider unchanged, in the same browser, once.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use pomerium_shared::clock::unix_seconds;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{cookies, provider::PendingSignIn, sign_in::Wish};
use crate::{
    secret::Secret,
    store::aead::{self, AeadError},
};

/// How long a person may take at the provider, and how far ahead a state may be dated.
pub(super) const STATE_LIFE: Duration = Duration::from_secs(300);

/// Characters of a state at most: it travels in a URL.
const STATE_LEN_MAX: usize = 8192;

/// What the state brings back.
#[derive(Debug)]
pub(super) struct SignInState {
    /// What to go on with; verified when the state was made.
    pub(super) wish: Wish,
    /// For the code and the ID token.
    pub(super) pending: PendingSignIn,
}

/// Why a state is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StateError {
    #[error("the state is malformed or not ours")]
    NotOurs,
    #[error("the state belongs to another browser")]
    OtherBrowser,
    #[error("the state is too old")]
    TooOld(Box<Wish>),
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    wish: Wish,
    nonce: String,
    pkce: String,
}

/// Seals a state for the browser that holds `csrf`.
///
/// Shape: padded base64url of `csrf fingerprint | unix seconds | | AEAD`, the clear part being associated data.
pub(super) fn seal(
    key: &[u8; 32],
    state: &SignInState,
    csrf: &Secret<String>,
    now: SystemTime,
) -> Result<String, AeadError> {
    let prefix = format!("{}|{}||", cookies::fingerprint(csrf.expose()), unix_seconds(now));
    let sealed = Sealed {
        wish: state.wish.clone(),
        nonce: state.pending.nonce.expose().clone(),
        pkce: state.pending.pkce_verifier.expose().clone(),
    };
    let plain = serde_json::to_vec(&sealed).map_err(|_| AeadError::NotAuthentic)?;
    let mut octets = prefix.clone().into_bytes();
    octets.extend(aead::seal(key, &plain, prefix.as_bytes())?);
    Ok(URL_SAFE.encode(octets))
}

/// Opens a state in the browser that sent `csrf`, among others perhaps.
pub(super) fn open<'a>(
    key: &[u8; 32],
    text: &str,
    csrf: impl IntoIterator<Item = &'a str>,
    now: SystemTime,
) -> Result<SignInState, StateError> {
    if text.len() > STATE_LEN_MAX {
        return Err(StateError::NotOurs);
    }
    let octets = URL_SAFE.decode(text).map_err(|_| StateError::NotOurs)?;
    let end = octets
        .iter()
        .enumerate()
        .filter(|(_, octet)| **octet == b'|')
        .map(|(place, _)| place + 1)
        .nth(2)
        .ok_or(StateError::NotOurs)?;
    let (prefix, sealed) = octets.split_at(end);
    let plain = aead::open(key, sealed, prefix).map_err(|_| StateError::NotOurs)?;
    let clear = std::str::from_utf8(prefix).map_err(|_| StateError::NotOurs)?;
    let mut parts = clear.split('|');
    let (Some(fingerprint), Some(issued)) = (parts.next(), parts.next()) else {
        return Err(StateError::NotOurs);
    };
    let issued: u64 = issued.parse().map_err(|_| StateError::NotOurs)?;
    let is_bound_to =
        |secret| bool::from(cookies::fingerprint(secret).as_bytes().ct_eq(fingerprint.as_bytes()));
    if !csrf.into_iter().any(is_bound_to) {
        return Err(StateError::OtherBrowser);
    }
    let sealed: Sealed = serde_json::from_slice(&plain).map_err(|_| StateError::NotOurs)?;
    if unix_seconds(now).abs_diff(issued) > STATE_LIFE.as_secs() {
        return Err(StateError::TooOld(Box::new(sealed.wish)));
    }
    Ok(SignInState {
        wish: sealed.wish,
        pending: PendingSignIn { nonce: Secret::new(sealed.nonce), pkce_verifier: Secret::new(sealed.pkce) },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::session::demand::SignInDemand;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wish() -> Wish {
        Wish {
            redirect: "https://a.example/x".parse().unwrap(),
            callback: "https://a.example/.pomerium/callback/".parse().unwrap(),
            is_programmatic: false,
            binding: Some("b".into()),
            device_key: None,
            code_challenge: None,
            demand: SignInDemand { max_age_seconds: Some(60), ..SignInDemand::default() },
        }
    }

    fn sealed() -> String {
        let pending =
            PendingSignIn { nonce: Secret::new("n".into()), pkce_verifier: Secret::new("p".into()) };
        let state = SignInState { wish: wish(), pending };
        seal(&[1; 32], &state, &Secret::new("browser".into()), at(1_000)).unwrap()
    }

    #[test]
    fn a_state_opens_in_its_browser_and_in_time_only() {
        let error = |key, browser: Option<&str>, seconds| open(key, &sealed(), browser, at(seconds)).err();
        assert_eq!(open(&[1; 32], &sealed(), Some("browser"), at(1_300)).unwrap().wish, wish());
        assert_eq!(open(&[1; 32], &sealed(), ["planted", "browser"], at(1_000)).unwrap().wish, wish());
        assert_eq!(error(&[1; 32], Some("other"), 1_000), Some(StateError::OtherBrowser));
        assert_eq!(error(&[1; 32], None, 1_000), Some(StateError::OtherBrowser));
        assert_eq!(error(&[1; 32], Some("browser"), 1_301), Some(StateError::TooOld(Box::new(wish()))));
        assert_eq!(error(&[1; 32], Some("browser"), 699), Some(StateError::TooOld(Box::new(wish()))));
        assert_eq!(error(&[2; 32], Some("browser"), 1_000), Some(StateError::NotOurs));
    }

    proptest! {
        #[test]
        fn a_changed_state_and_any_text_are_refused(index in any::<prop::sample::Index>(), text in ".{0,80}") {
            let mut octets = URL_SAFE.decode(sealed()).unwrap();
            let place = index.index(octets.len());
            octets[place] ^= 1;
            prop_assert!(open(&[1; 32], &URL_SAFE.encode(octets), Some("browser"), at(1_000)).is_err());
            prop_assert!(open(&[1; 32], &text, Some("browser"), at(1_000)).is_err());
        }
    }
}
