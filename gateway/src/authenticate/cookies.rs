//! The cookies of signing in, as `Set-Cookie` lines. Always `Secure`.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::Authenticate;
use crate::{
    config::SameSite,
    secret::Secret,
    session::{Session, credentials},
    store::{StoreError, aead::AeadError},
};

/// Binds a sign-in on a route host to the browser that began it. A browser takes `__Host-` from this very host only
/// (RFC 6265bis, 4.1.3.2): a sibling domain cannot plant a secret that it knows.
pub(super) const BINDING_COOKIE: &str = "__Host-_pomerium_login";
/// For a person to find their password; the sign-in URL itself lives shorter.
const BINDING_LIFE: Duration = Duration::from_secs(600);
/// Binds the trip to the identity provider to the browser that began it.
pub(super) const CSRF_COOKIE: &str = "__Host-_pomerium_csrf";
/// Tabs that sign in over a working day share one.
const CSRF_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Characters of a random cookie value: 32 octets in base64url.
const RANDOM_LEN: usize = 43;

/// A random value that only one browser knows, and the line that gives it to the browser, or lengthens its life there.
pub(super) struct BrowserSecret {
    pub(super) value: Secret<String>,
    pub(super) set_cookie: Option<HeaderValue>,
}

/// The secret that the browser sent, so that sign-ins in several tabs do not undo each other, or a new one.
///
/// `crosses_sites`: another site's page will post a form that must bring it back.
pub(super) fn browser_secret(
    headers: &HeaderMap,
    name: &str,
    crosses_sites: bool,
) -> Result<BrowserSecret, StoreError> {
    let value = match credentials::cookies(headers, name).find(|value| is_random_value(value)) {
        Some(value) => value.to_owned(),
        None => random_text()?,
    };
    let life = if name == CSRF_COOKIE { CSRF_LIFE } else { BINDING_LIFE };
    let same_site = if crosses_sites { "None" } else { "Lax" };
    let line =
        format!("{name}={value}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite={same_site}", life.as_secs());
    let mut set_cookie = HeaderValue::from_str(&line).ok();
    if let Some(line) = &mut set_cookie {
        line.set_sensitive(true);
    }
    Ok(BrowserSecret { value: Secret::new(value), set_cookie })
}

/// What may travel in a URL in the place of a browser's secret.
pub(super) fn fingerprint(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
}

/// 32 random octets as unpadded base64url.
pub(super) fn random_text() -> Result<String, StoreError> {
    let mut octets = [0_u8; 32];
    rand::fill(&mut octets).map_err(|_| StoreError::Sealed(AeadError::NoRandomness))?;
    Ok(URL_SAFE_NO_PAD.encode(octets))
}

fn is_random_value(value: &str) -> bool {
    value.len() == RANDOM_LEN
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Authenticate {
    /// The line that sets a session cookie for the rest of the session's life.
    pub(super) fn session_cookie(
        &self,
        name: &str,
        handle: &Secret<String>,
        session: &Session,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        let left = session.expires_at.duration_since(now).unwrap_or_default().as_secs();
        let mut line = HeaderValue::from_str(&self.cookie_line(name, handle.expose(), left)).ok()?;
        line.set_sensitive(true);
        Some(line)
    }

    /// The line that removes it.
    pub(super) fn clear_cookie(&self, name: &str) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.cookie_line(name, "", 0)).ok()
    }

    fn cookie_line(&self, name: &str, value: &str, max_age_seconds: u64) -> String {
        let settings = &self.config.cookie;
        let mut line = format!("{name}={value}; Path=/; Max-Age={max_age_seconds}; Secure");
        if settings.http_only {
            line.push_str("; HttpOnly");
        }
        if let Some(domain) = &settings.domain {
            // Writing to a string does not fail.
            _ = write!(line, "; Domain={domain}");
        }
        line.push_str(match self.same_site_of(name) {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        line
    }

    /// As configured; but people come to the sign-in host from other sites, where a strict cookie would never be seen.
    fn same_site_of(&self, name: &str) -> SameSite {
        match self.config.cookie.same_site {
            SameSite::Strict if name == self.sign_in_cookie_name() => SameSite::Lax,
            configured => configured,
        }
    }
}
