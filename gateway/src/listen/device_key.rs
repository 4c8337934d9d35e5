//! The client certificate of a handshake as proof of a key, and of nothing else: what authorities say of it is for `proxy`.

use std::sync::Arc;

use pomerium_shared::tls::DEVICE_KEY_MARK;
use rustls_pki_types::CertificateDer;

use crate::proxy::ProvenKey;

/// Whether a client on TCP says that it has a device key.
pub(super) fn is_offered<'a>(alpn: Option<impl Iterator<Item = &'a [u8]>>) -> bool {
    alpn.is_some_and(|mut protocols| protocols.any(|name| name == DEVICE_KEY_MARK))
}

/// The key that a finished handshake proved: that of the leaf, the first certificate, alone.
pub(super) fn proven(chain: Option<&[CertificateDer<'_>]>) -> Option<Arc<ProvenKey>> {
    ProvenKey::of(chain?).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Thumbprint;

    #[test]
    fn only_the_leaf_counts() {
        let chain = [CertificateDer::from(vec![1]), CertificateDer::from(vec![2])];
        let key = proven(Some(&chain)).unwrap();
        assert_eq!(key.thumbprint, Thumbprint::of(&[1]));
        assert!(proven(Some(&[])).is_none() && proven(None).is_none());
    }

    #[test]
    fn a_client_is_asked_only_if_it_offers_the_mark() {
        let offered = |names: &[&'static [u8]]| is_offered(Some(names.iter().copied()));
        assert!(offered(&[b"h2", b"http/1.1", DEVICE_KEY_MARK]));
        assert!(!offered(&[b"h2", b"http/1.1", b"pomerium-cli/12"]));
        assert!(!is_offered(None::<std::iter::Empty<&[u8]>>));
    }
}
