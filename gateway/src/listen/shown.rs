//! A certificate as clients are shown it: with what its issuer says of it (OCSP stapling), for as long as that holds.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwapOption;
use rustls::{client::verify_server_name, server::ParsedCertificate, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::{
    config::Certificate,
    ocsp::{self, Staple},
    x509::Validity,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Shown {
    plain: Arc<CertifiedKey>,
    stapled: ArcSwapOption<Stapled>,
    /// The operator gives the staples, in a file: nobody else is asked.
    is_given: bool,
}

#[derive(Debug)]
struct Stapled {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Shown {
    /// # Errors
    /// The key does not fit the certificate.
    pub(super) fn new(certificate: &Certificate) -> Result<Self, rustls::Error> {
        let provider = pomerium_shared::tls::provider();
        let plain =
            CertifiedKey::from_der(certificate.chain.clone(), certificate.key.clone_key(), &provider)?;
        let is_given = certificate.staple.is_some();
        let shown = Self { plain: Arc::new(plain), stapled: ArcSwapOption::empty(), is_given };
        if let Some(staple) = &certificate.staple {
            shown.staple(staple);
        }
        Ok(shown)
    }

    /// What a client gets now.
    pub(super) fn key(&self, now: SystemTime) -> Arc<CertifiedKey> {
        match &*self.stapled.load() {
            Some(stapled) if stapled.validity.contains(seconds(now)) => stapled.key.clone(),
            _ => self.plain.clone(),
        }
    }

    /// Whether it is valid for a name.
    pub(super) fn is_for(&self, name: &ServerName<'_>) -> bool {
        let leaf = self.plain.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        leaf.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
    }

    /// The certificate and those above it.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.plain.cert
    }

    /// Shows this beside the certificate from now on.
    pub(super) fn staple(&self, staple: &Staple) {
        let key = CertifiedKey { ocsp: Some(staple.der.clone()), ..CertifiedKey::clone(&self.plain) };
        self.stapled.store(Some(Arc::new(Stapled { key: Arc::new(key), validity: staple.validity })));
    }

    /// Keeps what was fetched for the same certificate before.
    pub(super) fn take_over(&self, old: &Self) {
        if !self.is_given && !old.is_given && self.plain.cert == old.plain.cert {
            self.stapled.store(old.stapled.load_full());
        }
    }

    /// Lets go of what holds no longer; whether there was such.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        let until = self.stapled.load().as_ref().map(|stapled| stapled.validity.not_after);
        let is_over = until.is_some_and(|until| i64::try_from(seconds(now)).is_ok_and(|now| until < now));
        if is_over {
            self.stapled.store(None);
        }
        is_over
    }

    /// Where to ask for a new staple, and what, if it is time: there is none, or the better half of its life is over.
    pub(super) fn question(&self, now: SystemTime) -> Option<(String, Vec<u8>)> {
        let is_fresh = self.stapled.load().as_ref().is_some_and(|stapled| {
            let Validity { not_before, not_after } = stapled.validity;
            i64::try_from(seconds(now)).is_ok_and(|now| now < not_before.midpoint(not_after))
        });
        (!self.is_given && !is_fresh).then(|| ocsp::question(&self.plain.cert))?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ocsp::tests::{Authority, STANDS_BY_IT};

    /// The first day of a year, about.
    fn year(number: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((number - 1970) * 31_556_952)
    }

    #[test]
    fn what_the_issuer_says_is_shown_while_it_holds_and_asked_for_anew_in_time() {
        let authority = Authority::new();
        let shown = Shown::new(&authority.server("http://ocsp.test/")).unwrap();
        assert!(shown.key(year(2030)).ocsp.is_none() && shown.question(year(2030)).is_some());
        // From 2026 until 2099.
        let answer = authority.respond(shown.chain(), &STANDS_BY_IT);
        shown.staple(&ocsp::read(&answer, shown.chain()).unwrap());
        assert!(shown.key(year(2025)).ocsp.is_none(), "not yet");
        assert_eq!(shown.key(year(2030)).ocsp.as_ref(), Some(&answer));
        assert!(shown.question(year(2030)).is_none() && !shown.is_over(year(2030)));
        assert_eq!(shown.key(year(2090)).ocsp, Some(answer));
        assert!(shown.question(year(2090)).is_some(), "half of its life is over");
        assert!(shown.key(year(2100)).ocsp.is_none(), "it holds no longer, and nobody had to say so");
        assert!(shown.is_over(year(2100)) && !shown.is_over(year(2100)), "which is said once");
    }

    #[test]
    fn what_the_operator_gives_is_not_asked_for() {
        let authority = Authority::new();
        let certificate = authority.server("http://ocsp.test/");
        let answer = authority.respond(&certificate.chain, &STANDS_BY_IT);
        let staple = Some(ocsp::read(&answer, &certificate.chain).unwrap());
        let shown = Shown::new(&Certificate { staple, ..certificate }).unwrap();
        assert!(shown.question(year(2090)).is_none());
    }
}
