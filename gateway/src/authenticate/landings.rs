//! Counts how often a browser has been signed in at a host within a minute, so that one whose session does not count there is
//! told so, and is not sent round for ever.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::Authenticate;
use crate::session::credentials;

/// Holds the count. No other host can plant it (`__Host-`); whoever changes their own makes themselves wait.
const COOKIE: &str = "__Host-_pomerium_landings";
/// After the last landing the count begins anew.
const LIFE: Duration = Duration::from_secs(60);
/// More than tabs that a browser opens again at once, each of which signs in; a circle takes a second or so a round.
const LANDINGS_MAX: u32 = 8;

impl Authenticate {
    /// Whether the browser that sends these was signed in at this host so often, so lately, that once more does not help.
    /// To be asked only where it has no session that counts.
    #[must_use]
    pub fn goes_in_circles(&self, headers: &HeaderMap) -> bool {
        count(headers) >= LANDINGS_MAX
    }
}

/// The line that counts one more.
pub(super) fn one_more(headers: &HeaderMap) -> Option<HeaderValue> {
    let count = count(headers).saturating_add(1).min(LANDINGS_MAX);
    HeaderValue::from_str(&line(&count.to_string(), LIFE.as_secs())).ok()
}

/// The line that begins anew.
#[must_use]
pub fn forget() -> HeaderValue {
    HeaderValue::from_str(&line("", 0)).unwrap_or(HeaderValue::from_static(""))
}

fn count(headers: &HeaderMap) -> u32 {
    credentials::cookies(headers, COOKIE).filter_map(|count| count.parse().ok()).max().unwrap_or(0)
}

fn line(value: &str, max_age_seconds: u64) -> String {
    format!("{COOKIE}={value}; Path=/; Max-Age={max_age_seconds}; Secure; HttpOnly; SameSite=Lax")
}
