//! What is asked of a client's certificate in the handshake: that its holder has the key, and where the configuration says
//! so that an authority stands for it. What it is worth for a route is asked with each request.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use pomerium_shared::tls::provider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::WebPkiSupportedAlgorithms,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    client_authority::ClientAuthority,
    config::{Enforcement, Settings},
};

/// Bytes of a client's certificates together at most: that of a device key has some four hundred.
const CHAIN_LEN_MAX: usize = 32 * 1024;

/// Certificates of a client at most; more would be work without end for whoever looks for a chain.
const CHAIN_COUNT_MAX: usize = 6;

/// What a configuration asks of clients.
#[derive(Debug)]
pub(super) struct Asked {
    authorities: Vec<Arc<ClientAuthority>>,
    /// Whether there is no connection without a certificate from one of them.
    is_required: bool,
}

impl Asked {
    pub(super) fn of(settings: &Settings) -> Self {
        let authorities = settings.client_authorities();
        let is_required =
            settings.downstream_mtls.enforcement == Enforcement::RejectConnection && !authorities.is_empty();
        Self { authorities, is_required }
    }

    /// Whether every client is asked for a certificate, browsers too.
    pub(super) fn is_for_everybody(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// Whether a connection may go on with this chain.
    pub(super) fn admits(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        let is_valid = |authority: &Arc<ClientAuthority>| {
            let verified = chain.split_first().map(|(leaf, others)| authority.verify(leaf, others, now));
            verified.is_some_and(|verified| verified.is_ok())
        };
        !self.is_required || self.authorities.iter().any(is_valid)
    }

    /// The names of the authorities: people are shown the certificates that fit.
    pub(super) fn hints(&self) -> Vec<DistinguishedName> {
        self.authorities.iter().flat_map(|authority| authority.subjects()).collect()
    }
}

/// Takes the certificates that the configuration of the moment admits. Unless it asks for more, that is any: who the
/// certificate names, who issued it and how long it lasts is not looked at, and no identity is read from it.
#[derive(Debug)]
pub(super) struct ClientCertificates {
    algorithms: WebPkiSupportedAlgorithms,
    asked: Arc<ArcSwap<Asked>>,
    hints: Vec<DistinguishedName>,
}

impl ClientCertificates {
    /// Asks for a certificate of these authorities, or for any.
    pub(super) fn new(asked: Arc<ArcSwap<Asked>>, hints: Vec<DistinguishedName>) -> Arc<Self> {
        Arc::new(Self { algorithms: provider().signature_verification_algorithms, asked, hints })
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.asked.load().is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let len: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if len > CHAIN_LEN_MAX || chain.len() > CHAIN_COUNT_MAX {
            return Err(CertificateError::BadEncoding.into());
        }
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
        if !self.asked.load().admits(&chain, now) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
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
