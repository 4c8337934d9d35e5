//! URLs that carry their own proof: signed, dated, for the hop from one of our hosts to another.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use hmac::{Hmac, Mac};
use pomerium_shared::clock::unix_seconds;
use sha2::Sha512_256;
use url::Url;

const ISSUED: &str = "pomerium_issued";
const EXPIRY: &str = "pomerium_expiry";
const SIGNATURE: &str = "pomerium_signature";

/// Why a URL is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedUrlError {
    /// A parameter is missing, doubled or garbled.
    #[error("the link is incomplete")]
    Malformed,
    /// Changed after signing, or signed by somebody else.
    #[error("the link was changed or does not come from this gateway")]
    BadSignature,
    /// Past its time.
    #[error("the link has expired")]
    Expired,
    /// Dated ahead of our clock.
    #[error("the link comes from the future: check the clocks")]
    FromTheFuture,
}

/// A URL whose signature and dates held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedUrl {
    /// From this moment on it does not verify any more, not with the leeway that it was given here.
    pub expires_at: SystemTime,
    /// The signature as text: names this very URL.
    pub signature: String,
    parameters: Vec<(String, String)>,
}

impl VerifiedUrl {
    /// The value of a parameter; each is there at most once.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Signs `url` with these parameters in its query (any query it has is replaced); good for `life` from `now`.
///
/// HMAC-SHA-512/256 over `URL without signature · issued · space · expiry`, parameters sorted by name; the value is
/// padded base64url.
#[must_use]
pub fn sign(key: &[u8; 32], url: &Url, parameters: &[(&str, &str)], life: Duration, now: SystemTime) -> Url {
    let issued = unix_seconds(now);
    let expiry = issued.saturating_add(life.as_secs());
    let mut pairs: Vec<(String, String)> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    pairs.push((ISSUED.to_owned(), issued.to_string()));
    pairs.push((EXPIRY.to_owned(), expiry.to_string()));
    let unsigned = with_query(url, &mut pairs);
    let signature = URL_SAFE.encode(mac(key, unsigned.as_str(), issued, expiry).finalize().into_bytes());
    pairs.push((SIGNATURE.to_owned(), signature));
    with_query(url, &mut pairs)
}

/// Checks what [`sign`] made. `leeway` is how far the signer's clock may be off; zero when signer and verifier are one.
///
/// # Errors
/// [`SignedUrlError`]; the signature is looked at before the dates.
pub fn verify(
    key: &[u8; 32],
    url: &Url,
    leeway: Duration,
    now: SystemTime,
) -> Result<VerifiedUrl, SignedUrlError> {
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let names: BTreeSet<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() != pairs.len() {
        return Err(SignedUrlError::Malformed);
    }
    let place = pairs.iter().position(|(name, _)| name == SIGNATURE).ok_or(SignedUrlError::Malformed)?;
    let (_, signature) = pairs.remove(place);
    let date = |name: &str| {
        let (_, value) = pairs.iter().find(|(key, _)| key == name)?;
        value.parse::<u64>().ok().filter(|seconds| seconds.to_string() == *value)
    };
    let (Some(issued), Some(expiry)) = (date(ISSUED), date(EXPIRY)) else {
        return Err(SignedUrlError::Malformed);
    };
    let claimed = URL_SAFE.decode(&signature).map_err(|_| SignedUrlError::Malformed)?;
    let unsigned = with_query(url, &mut pairs);
    mac(key, unsigned.as_str(), issued, expiry)
        .verify_slice(&claimed)
        .map_err(|_| SignedUrlError::BadSignature)?;
    let (now, leeway) = (unix_seconds(now), leeway.as_secs());
    if now > expiry.saturating_add(leeway) {
        return Err(SignedUrlError::Expired);
    }
    if now.saturating_add(leeway) < issued {
        return Err(SignedUrlError::FromTheFuture);
    }
    // The second that it names is its last.
    let end = expiry.saturating_add(leeway).saturating_add(1);
    let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(end)).ok_or(SignedUrlError::Malformed)?;
    Ok(VerifiedUrl { expires_at, signature, parameters: pairs })
}

fn mac(key: &[u8], unsigned: &str, issued: u64, expiry: u64) -> Hmac<Sha512_256> {
    let mut mac = Hmac::<Sha512_256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{unsigned}{issued} {expiry}").as_bytes());
    mac
}

/// `url` with exactly this query, sorted by name; without a fragment, which never reaches a server.
fn with_query(url: &Url, pairs: &mut [(String, String)]) -> Url {
    pairs.sort();
    let query: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", form_encode(name), form_encode(value))).collect();
    let mut url = url.clone();
    url.set_fragment(None);
    url.set_query(Some(&query.join("&")));
    url
}

/// Form encoding as compatible signers write it: all but unreserved characters escaped, `+` for a space.
fn form_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            // Writing to a string does not fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const LIFE: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn base() -> Url {
        "https://authenticate.example.com/.pomerium/sign_in".parse().unwrap()
    }

    #[test]
    fn the_signature_is_the_one_that_compatible_software_makes() {
        let text = "https://pomerium.io?pomerium_expiry=1574118151&pomerium_issued=1574117851";
        let signature =
            URL_SAFE.encode(mac(b"test-key", text, 1_574_117_851, 1_574_118_151).finalize().into_bytes());
        assert_eq!(signature, "XtvM-Y-oPvoGGV2Q5G0vrQ_CgNeYhVyTG5dHIqLsBOU=");
        let parameters =
            [("pomerium_redirect_uri", "https://app.example.com/x?a=1+2"), ("pomerium_idp_id", "abc")];
        let signed = sign(&[0; 32], &base(), &parameters, LIFE, at(1_700_000_000));
        assert_eq!(
            signed.as_str(),
            "https://authenticate.example.com/.pomerium/sign_in?pomerium_expiry=1700000300&pomerium_idp_id=abc\
             &pomerium_issued=1700000000\
             &pomerium_redirect_uri=https%3A%2F%2Fapp.example.com%2Fx%3Fa%3D1%2B2\
             &pomerium_signature=rXFl6DjCdc5NJd0GozyG2TZgaFru2gkYO0TmruY8v-0%3D"
        );
    }

    #[test]
    fn a_url_is_good_from_its_issue_to_its_expiry_and_a_minute_of_leeway() {
        let signed = sign(&[0; 32], &base(), &[("a", "b")], LIFE, at(1_000));
        let check = |leeway, seconds| verify(&[0; 32], &signed, leeway, at(seconds)).map(|_| ());
        assert_eq!(check(MINUTE, 940), Ok(()));
        assert_eq!(check(MINUTE, 939), Err(SignedUrlError::FromTheFuture));
        assert_eq!(check(MINUTE, 1_360), Ok(()));
        assert_eq!(check(MINUTE, 1_361), Err(SignedUrlError::Expired));
        assert_eq!(check(Duration::ZERO, 1_301), Err(SignedUrlError::Expired));
    }

    #[test]
    fn a_url_is_worth_nothing_from_the_end_on_that_is_told_of_it() {
        let signed = sign(&[0; 32], &base(), &[("a", "b")], LIFE, at(1_000));
        for leeway in [Duration::ZERO, MINUTE] {
            let last = at(1_300) + leeway + Duration::from_millis(999);
            let verified = verify(&[0; 32], &signed, leeway, last).unwrap();
            assert!(
                last < verified.expires_at,
                "what is used up until then is used up as long as it is good"
            );
            let after = verify(&[0; 32], &signed, leeway, verified.expires_at);
            assert_eq!(after, Err(SignedUrlError::Expired));
        }
    }

    #[test]
    fn another_key_host_path_or_parameter_is_refused() {
        let signed = sign(&[0; 32], &base(), &[("a", "b")], LIFE, at(1_000));
        let check = |url: &str| verify(&[0; 32], &url.parse().unwrap(), MINUTE, at(1_000)).map(|_| ());
        assert_eq!(verify(&[1; 32], &signed, MINUTE, at(1_000)), Err(SignedUrlError::BadSignature));
        let text = signed.as_str();
        assert_eq!(check(text), Ok(()));
        for (from, to) in [
            ("authenticate.", "evil."),
            ("sign_in", "sign_out"),
            ("https:", "http:"),
            ("?a=b", "?a=c"),
            ("expiry=1300", "expiry=9300"),
            ("issued=1000", "issued=1001"),
            (".com/", ".com:444/"),
        ] {
            assert_eq!(check(&text.replace(from, to)), Err(SignedUrlError::BadSignature), "{to}");
        }
        for (from, to) in [
            ("?a=b", "?a=b&a=b"),
            ("_signature", "_x"),
            ("expiry=1300", "expiry=+1300"),
            ("issued=1000", "issued="),
        ] {
            assert_eq!(check(&text.replace(from, to)), Err(SignedUrlError::Malformed), "{to}");
        }
        assert_eq!(check(&format!("{text}&extra=1")), Err(SignedUrlError::BadSignature));
    }

    proptest! {
        #[test]
        fn what_was_signed_comes_back(value in ".{0,40}", other in ".{0,40}") {
            let signed = sign(&[3; 32], &base(), &[("value", &value), ("other", &other)], LIFE, at(1_000));
            let verified = verify(&[3; 32], &signed, Duration::ZERO, at(1_000)).unwrap();
            prop_assert_eq!(verified.parameter("value"), Some(value.as_str()));
            prop_assert_eq!(verified.parameter("other"), Some(other.as_str()));
        }

        #[test]
        fn any_query_is_refused(query in ".{0,80}") {
            let mut url = base();
            url.set_query(Some(&query));
            prop_assert!(verify(&[3; 32], &url, MINUTE, at(1_000)).is_err());
        }
    }
}
