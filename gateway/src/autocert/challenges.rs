//! What the authority is shown while it looks whether a host is ours.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::sign::CertifiedKey;

/// The protocol of a connection that asks for a proof (RFC 8737, 4).
pub(crate) const ALPN: &[u8] = b"acme-tls/1";

/// Where a proof is looked for by plain HTTP (RFC 8555, 8.3).
const HTTP_PATH: &str = "/.well-known/acme-challenge/";

/// Proofs of the orders under way: one or none, for one host is done after another.
#[derive(Debug, Default)]
pub(crate) struct Challenges {
    proofs: Mutex<Proofs>,
}

#[derive(Debug, Default)]
struct Proofs {
    /// By token.
    http: HashMap<String, String>,
    /// By host.
    tls: HashMap<String, Arc<CertifiedKey>>,
}

/// Takes a proof back when it is dropped.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    challenges: &'a Challenges,
    name: String,
}

impl Challenges {
    /// Shows a key authorization (RFC 8555, 8.1) by plain HTTP.
    pub(crate) fn show_http(&self, token: &str, authorization: &str) -> Shown<'_> {
        self.proofs().http.insert(token.to_owned(), authorization.to_owned());
        Shown { challenges: self, name: token.to_owned() }
    }

    /// Shows a certificate that proves it (RFC 8737, 3) by TLS.
    pub(super) fn show_tls(&self, host: &str, certificate: CertifiedKey) -> Shown<'_> {
        self.proofs().tls.insert(host.to_owned(), Arc::new(certificate));
        Shown { challenges: self, name: host.to_owned() }
    }

    /// What stands at a path of plain HTTP.
    pub(crate) fn http(&self, path: &str) -> Option<String> {
        self.proofs().http.get(path.strip_prefix(HTTP_PATH)?).cloned()
    }

    /// What a connection to a host gets that asks for [`ALPN`].
    pub(crate) fn tls(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.proofs().tls.get(&host.to_ascii_lowercase()).cloned()
    }

    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut proofs = self.challenges.proofs();
        proofs.http.remove(&self.name);
        proofs.tls.remove(&self.name);
    }
}
