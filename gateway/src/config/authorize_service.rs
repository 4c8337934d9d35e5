//! Where decisions come from, if another process takes them (`authorize_service_url` and its kin).

use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName};
use url::Url;

use super::{Services, section::Section};

/// The authorize services of other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizeService {
    /// `authorize_internal_service_url`, or `authorize_service_url(s)`: at least one; asked in turn.
    pub urls: Vec<Url>,
    /// `grpc_client_timeout`: for one decision, whoever is asked.
    pub timeout: Duration,
    /// `certificate_authority`: these roots in the place of the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// `override_certificate_name`: the name that a certificate must be for, in the place of the URL's host.
    pub certificate_name: Option<String>,
}

const URLS: [&str; 3] = ["authorize_internal_service_url", "authorize_service_url", "authorize_service_urls"];

/// Addresses at most: each is tried once for a question.
const URLS_MAX: usize = 16;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Reads them; `None` where this process decides by itself. One file may serve both processes, so `services: authorize`
/// has no quarrel with them.
pub(super) fn authorize_service(top: &Section<'_>, services: Services) -> Option<AuthorizeService> {
    const NAME: &str = "override_certificate_name";
    let urls = urls(top);
    let timeout = timeout(top);
    let roots = top.roots("certificate_authority");
    let certificate_name = top.filled(NAME).map(str::to_owned);
    if certificate_name.as_ref().is_some_and(|name| ServerName::try_from(name.as_str()).is_err()) {
        top.error(NAME, "must be a host name or an address");
    }
    if services == Services::All
        && let Some(key) = URLS.into_iter().find(|key| top.has(key))
    {
        top.warn(
            key,
            "has no effect: this process decides by itself unless services says that another one does",
        );
    }
    if !services.asks() {
        return None;
    }
    if !["shared_secret", "shared_secret_file"].iter().any(|name| top.has(name)) {
        top.error("shared_secret", "is missing: it proves this process to the authorize service");
    }
    let urls = urls?;
    if urls.is_empty() {
        let message = "is missing: the URL of the process that runs with services: authorize";
        top.error("authorize_service_url", message);
        return None;
    }
    Some(AuthorizeService { urls, timeout: timeout?, roots, certificate_name })
}

/// The first key that is there, with one URL or several.
fn urls(top: &Section<'_>) -> Option<Vec<Url>> {
    let mut keys = URLS.into_iter().filter(|key| top.has(key));
    let Some(key) = keys.next() else { return Some(Vec::new()) };
    if key != URLS[0]
        && let Some(other) = keys.next()
    {
        top.error(other, format!("says the same as {key}: keep one"));
    }
    let texts = top.list(key)?;
    if texts.len() > URLS_MAX {
        top.error(key, format!("names more than {URLS_MAX} addresses"));
        return None;
    }
    let mut urls = Vec::new();
    for (text, at) in texts {
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
        });
        match url {
            Some(url) => urls.push(url),
            None => {
                let example = "expected a URL without a path, like https://authorize.corp.example:5443";
                top.error_at(at, key, example);
                return None;
            }
        }
    }
    let is_open = |url: &Url| {
        let is_loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        url.scheme() == "http" && !is_loopback
    };
    if urls.iter().any(is_open) {
        top.warn(key, "decisions come without TLS: whoever is on the way can let anybody in; use https");
    }
    Some(urls)
}

fn timeout(top: &Section<'_>) -> Option<Duration> {
    const NAME: &str = "grpc_client_timeout";
    if !top.has(NAME) {
        return Some(TIMEOUT_DEFAULT);
    }
    match top.duration(NAME)? {
        Some(timeout) => Some(timeout),
        None => {
            top.error(NAME, "must not be 0: somebody waits for each decision");
            None
        }
    }
}
