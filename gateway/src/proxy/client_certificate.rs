//! The certificate that the other end of a connection showed: a key that it holds, and what authorities say of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use pomerium_shared::clock::Now;
use rustls_pki_types::CertificateDer;

use crate::{authorize::PresentedCertificate, client_authority::ClientAuthority, device::Thumbprint};

/// A key that the other end of a connection holds. Only `listen` makes one, of a finished handshake.
#[derive(Debug)]
pub(crate) struct ProvenKey {
    /// Names the key by its certificate.
    pub(crate) thumbprint: Thumbprint,
    leaf: CertificateDer<'static>,
    /// What came along with it, of which nothing is proved.
    others: Vec<CertificateDer<'static>>,
    verdicts: Mutex<Vec<Verdict>>,
}

/// What an authority says of the leaf in one second: certificates hold for whole seconds.
#[derive(Debug, Clone)]
struct Verdict {
    authority: Arc<ClientAuthority>,
    second: u64,
    end: Option<SystemTime>,
}

/// A certificate as a route sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) certificate: PresentedCertificate,
    /// When it will no longer be valid, if that is a matter of time.
    pub(super) end: Option<SystemTime>,
}

impl ProvenKey {
    /// The key of the first of these certificates.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (leaf, others) = chain.split_first()?;
        Some(Self {
            thumbprint: Thumbprint::of(leaf),
            leaf: leaf.clone().into_owned(),
            others: others.iter().map(|other| other.clone().into_owned()).collect(),
            verdicts: Mutex::default(),
        })
    }

    /// The certificate, and what came along with it, each in DER.
    pub(super) fn chain(&self) -> Vec<Vec<u8>> {
        std::iter::once(&self.leaf).chain(&self.others).map(|der| der.to_vec()).collect()
    }

    /// The certificate as it is now for a route with this authority; without any, each is as good as another.
    pub(super) fn shown(&self, authority: Option<&Arc<ClientAuthority>>, now: Now) -> Shown {
        let (is_valid, end) = authority.map_or((true, None), |authority| {
            let end = self.judged(authority, now.wall);
            (end.is_some(), end)
        });
        Shown { certificate: PresentedCertificate { leaf: self.leaf.to_vec(), is_valid }, end }
    }

    /// When the certificate will no longer be valid; `None` if it is not. Each authority looks at it once a second: a chain
    /// may be made to be laborious, and sent once.
    fn judged(&self, authority: &Arc<ClientAuthority>, now: SystemTime) -> Option<SystemTime> {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.retain(|verdict| verdict.second == second);
        if let Some(known) = verdicts.iter().find(|verdict| Arc::ptr_eq(&verdict.authority, authority)) {
            return known.end;
        }
        let end = match authority.verify(&self.leaf, &self.others, now) {
            Ok(end) => Some(end),
            Err(error) => {
                tracing::debug!(%error, "a client certificate is not valid");
                None
            }
        };
        verdicts.push(Verdict { authority: authority.clone(), second, end });
        end
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client_authority::{Constraints, tests::Authority};

    #[test]
    fn each_route_sees_what_its_own_authority_says_at_the_moment() {
        let (corp, other) = (Authority::new("corp"), Authority::new("other"));
        let trust = |authority: &Authority| {
            let roots = [authority.certificate.der().clone()];
            Arc::new(ClientAuthority::new(&roots, Constraints::default()).unwrap())
        };
        let now = Now::read();
        let expires_at = now.wall + Duration::from_secs(60);
        let leaf = corp.issue(|params| params.not_after = expires_at.into());
        let key = ProvenKey::of(&[leaf.certificate.der().clone(), other.certificate.der().clone()]).unwrap();
        let (corp, other) = (trust(&corp), trust(&other));
        let is_valid = |authority, now| key.shown(authority, now).certificate.is_valid;
        for _ in 0..2 {
            assert!(is_valid(Some(&corp), now) && !is_valid(Some(&other), now) && is_valid(None, now));
        }
        let end = key.shown(Some(&corp), now).end.unwrap();
        assert!(end > expires_at - Duration::from_secs(1) && end <= expires_at + Duration::from_secs(1));
        assert!(
            !is_valid(Some(&corp), Now { wall: end, ..now }),
            "what was true a minute ago is asked again"
        );
        assert_eq!(key.shown(None, now).certificate.leaf, leaf.certificate.der().to_vec());
        let chain = key.chain();
        assert_eq!(chain[0], leaf.certificate.der().to_vec());
        assert_eq!(chain.len(), 2, "another process judges by all that was shown");
    }
}
