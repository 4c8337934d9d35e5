//! URLs that the gateway's services hand to each other through the browser: signed, and good for a short time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use hmac::{Hmac, Mac as _};
use sha2::Sha512_256;
use url::Url;

/// How far the clocks of two services may differ.
const LEEWAY_SECONDS: i64 = 60;

const ISSUED: &str = "pomerium_issued";
const EXPIRY: &str = "pomerium_expiry";
const SIGNATURE: &str = "pomerium_signature";

/// Why a URL is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignedUrlError {
    /// No signature, a wrong one, or garbled times.
    #[error("the link was not made by this gateway")]
    Forged,
    /// Too old.
    #[error("the link has expired; start again from the app")]
    Expired,
    /// Issued ahead of our clock.
    #[error("the link was made in the future; check the clocks")]
    FromTheFuture,
}

/// Signs `url` (HMAC-SHA-512/256), good from `now` for `lifetime`. The query is brought into a canonical order.
pub(crate) fn sign(mut url: Url, key: &[u8; 32], now: SystemTime, lifetime: Duration) -> Url {
    let issued = unix(now);
    let expiry = issued + i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 2);
    let mut pairs: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| ![ISSUED, EXPIRY, SIGNATURE].contains(&name.as_ref()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    pairs.push((ISSUED.to_owned(), issued.to_string()));
    pairs.push((EXPIRY.to_owned(), expiry.to_string()));
    pairs.sort();
    url.query_pairs_mut().clear().extend_pairs(&pairs);
    let signature = URL_SAFE.encode(mac(&url, key, issued, expiry).finalize().into_bytes());
    url.query_pairs_mut().append_pair(SIGNATURE, &signature);
    url
}

/// Checks a URL as it came in; returns its signature, by which a single use can be told from a second.
pub(crate) fn verify(url: &Url, key: &[u8; 32], now: SystemTime) -> Result<String, SignedUrlError> {
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let number = |name: &str| value(name).and_then(|v| v.parse::<i64>().ok()).ok_or(SignedUrlError::Forged);
    let (issued, expiry) = (number(ISSUED)?, number(EXPIRY)?);
    let signature = value(SIGNATURE).ok_or(SignedUrlError::Forged)?;
    let bytes = URL_SAFE.decode(&signature).map_err(|_| SignedUrlError::Forged)?;
    let mut pairs: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    pairs.sort();
    let mut unsigned = url.clone();
    unsigned.set_fragment(None);
    unsigned.query_pairs_mut().clear().extend_pairs(&pairs);
    mac(&unsigned, key, issued, expiry).verify_slice(&bytes).map_err(|_| SignedUrlError::Forged)?;
    if unix(now) - LEEWAY_SECONDS > expiry {
        return Err(SignedUrlError::Expired);
    }
    if unix(now) + LEEWAY_SECONDS < issued {
        return Err(SignedUrlError::FromTheFuture);
    }
    Ok(signature)
}

fn mac(url: &Url, key: &[u8; 32], issued: i64, expiry: i64) -> Hmac<Sha512_256> {
    let mut mac = Hmac::<Sha512_256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{url}{issued} {expiry}").as_bytes());
    mac
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [0; 32];

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signed() -> Url {
        let url = "https://authenticate.example.com/.pomerium/sign_in?pomerium_idp_id=abc&pomerium_redirect_uri=https%3A%2F%2Fapp.example.com%2Fx%3Fa%3D1%2B2";
        sign(url.parse().unwrap(), &KEY, at(1_700_000_000), Duration::from_secs(300))
    }

    #[test]
    fn the_signature_is_the_compatible_one() {
        let signature = verify(&signed(), &KEY, at(1_700_000_000)).unwrap();
        assert_eq!(signature, "rXFl6DjCdc5NJd0GozyG2TZgaFru2gkYO0TmruY8v-0=");
    }

    #[test]
    fn a_changed_link_is_forged() {
        let url = signed();
        for changed in [
            url.as_str().replace("abc", "abd"),
            url.as_str().replace("1700000300", "1800000300"),
            url.as_str().replace("app.example.com", "evil.example.com"),
            url.as_str().replace("authenticate.example.com", "evil.example.com"),
            format!("{url}&x=1"),
        ] {
            assert_eq!(verify(&changed.parse().unwrap(), &KEY, at(1_700_000_000)), Err(SignedUrlError::Forged), "{changed}");
        }
        assert_eq!(verify(&url, &[1; 32], at(1_700_000_000)), Err(SignedUrlError::Forged));
    }

    #[test]
    fn a_link_is_good_for_its_time_only() {
        assert!(verify(&signed(), &KEY, at(1_700_000_300)).is_ok());
        assert_eq!(verify(&signed(), &KEY, at(1_700_000_361)), Err(SignedUrlError::Expired));
        assert_eq!(verify(&signed(), &KEY, at(1_699_999_900)), Err(SignedUrlError::FromTheFuture));
    }
}
