//! The client certificate of a handshake as proof of a key, and of nothing else.

use std::sync::Arc;

use pomerium_shared::tls::{DEVICE_KEY_MARK, provider};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::WebPkiSupportedAlgorithms,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::proxy::ProvenKey;

/// Bytes of a certificate at most: that of a device key has some four hundred.
const CERTIFICATE_LEN_MAX: usize = 16 * 1024;

/// Asks for a certificate, goes on without one, and takes any whose holder signs the handshake with its key. Who the
/// certificate names, who issued it and how long it lasts is not looked at: no identity is read from it.
#[derive(Debug)]
pub(super) struct AnyProvenKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyProvenKey {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { algorithms: provider().signature_verification_algorithms })
    }
}

impl ClientCertVerifier for AnyProvenKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if end_entity.len() > CERTIFICATE_LEN_MAX {
            return Err(rustls::CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a client on TCP says that it has a device key.
pub(super) fn is_offered<'a>(alpn: Option<impl Iterator<Item = &'a [u8]>>) -> bool {
    alpn.is_some_and(|mut protocols| protocols.any(|name| name == DEVICE_KEY_MARK))
}

/// The key that a finished handshake proved: that of the leaf, the first certificate, alone.
pub(super) fn proven(chain: Option<&[CertificateDer<'_>]>) -> Option<Arc<ProvenKey>> {
    chain?.first().map(|leaf| Arc::new(ProvenKey::of(leaf)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_leaf_counts() {
        let chain = [CertificateDer::from(vec![1]), CertificateDer::from(vec![2])];
        let key = proven(Some(&chain)).unwrap();
        assert_eq!(*key, ProvenKey::of(&[1]));
        assert_eq!(key.certificate.leaf, [1]);
        assert_eq!(proven(Some(&[])), None);
        assert_eq!(proven(None), None);
    }

    #[test]
    fn a_client_is_asked_only_if_it_offers_the_mark() {
        let offered = |names: &[&'static [u8]]| is_offered(Some(names.iter().copied()));
        assert!(offered(&[b"h2", b"http/1.1", DEVICE_KEY_MARK]));
        assert!(!offered(&[b"h2", b"http/1.1", b"pomerium-cli/12"]));
        assert!(!is_offered(None::<std::iter::Empty<&[u8]>>));
    }
}
