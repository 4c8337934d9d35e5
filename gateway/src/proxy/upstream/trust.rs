//! How an `https` app is trusted, and what the gateway shows it (`tls_*` of a route).

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::UpstreamError;
use crate::config::UpstreamTls;

/// The client's side of TLS, without ALPN.
pub(super) fn config(tls: &UpstreamTls) -> Result<ClientConfig, UpstreamError> {
    let builder = ClientConfig::builder_with_provider(pomerium_shared::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Certificate)?;
    let builder = match &tls.custom_roots {
        _ if tls.skip_verify => {
            let verifier = Arc::new(AnyCertificate::new(pomerium_shared::tls::provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        Some(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(root.clone()).map_err(UpstreamError::Certificate)?;
            }
            builder.with_root_certificates(store)
        }
        None => builder.with_native_roots().map_err(UpstreamError::NoRoots)?,
    };
    match &tls.client_certificate {
        Some(pair) => builder
            .with_client_auth_cert(pair.chain.clone(), pair.key.clone_key())
            .map_err(UpstreamError::Certificate),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// `tls_skip_verify`: accepts any certificate, but still checks that the app holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl AnyCertificate {
    fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
