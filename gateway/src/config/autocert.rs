//! `autocert*`: which authority gives certificates.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use url::Url;

use super::{Autocert, ExternalAccount, section::Section};
use crate::secret::Secret;

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Every key but the first.
const OTHERS: [&str; 7] = [
    "autocert_ca",
    "autocert_eab_key_id",
    "autocert_eab_mac_key",
    "autocert_email",
    "autocert_trusted_ca",
    "autocert_trusted_ca_file",
    "autocert_use_staging",
];

/// Reads `autocert*`; `None` unless it is switched on.
pub(super) fn autocert(top: &Section<'_>) -> Option<Autocert> {
    if !top.flag("autocert").unwrap_or(false) {
        for name in OTHERS.into_iter().filter(|name| top.has(name)) {
            top.warn(name, "has no effect without autocert: true");
        }
        return None;
    }
    let staging = top.flag("autocert_use_staging").unwrap_or(false);
    let default = if staging { LETS_ENCRYPT_STAGING } else { LETS_ENCRYPT };
    let directory = if top.has("autocert_ca") { top.url("autocert_ca") } else { Url::parse(default).ok() };
    if directory.as_ref().is_some_and(|url| url.scheme() != "https") {
        top.error("autocert_ca", "must begin with https://");
    }
    let email = top.filled("autocert_email");
    if email.is_some_and(|email| !email.contains('@') || email.contains(char::is_whitespace)) {
        top.error("autocert_email", "expected an email address");
    }
    let external_account = external_account(top);
    let roots = top.roots("autocert_trusted_ca").unwrap_or_default();
    Some(Autocert { directory: directory?, email: email.map(str::to_owned), external_account, roots })
}

fn external_account(top: &Section<'_>) -> Option<ExternalAccount> {
    let (id, key) = ("autocert_eab_key_id", "autocert_eab_mac_key");
    match (top.filled(id), top.filled(key)) {
        (None, None) => None,
        (Some(_), None) => {
            top.error(id, format!("needs {key} beside it"));
            None
        }
        (None, Some(_)) => {
            top.error(key, format!("needs {id} beside it"));
            None
        }
        (Some(key_id), Some(mac_key)) => match URL_SAFE_NO_PAD.decode(mac_key.trim_end_matches('=')) {
            Ok(mac_key) => Some(ExternalAccount { key_id: key_id.to_owned(), mac_key: Secret::new(mac_key) }),
            Err(_) => {
                top.error(key, "expected Base64 in the alphabet for URLs, as the authority shows it");
                None
            }
        },
    }
}
