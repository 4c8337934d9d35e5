//! Which certificate a client is shown, and the TLS settings of both doors.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    DistinguishedName, RootCertStore, ServerConfig,
    client::verify_server_name,
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName};

use super::client_certificate::{Asked, ClientCertificates};
use crate::config::{Certificate, Settings};

/// Whether a client is asked to prove a key of its own.
#[derive(Debug, Clone)]
pub(super) enum ClientKey {
    /// Nothing is asked.
    NotAsked,
    /// Any is welcome; only the configuration of the moment may insist on one from an authority.
    Welcome,
    /// The same, and these authorities are named.
    From(Vec<DistinguishedName>),
}

/// Why the configured certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A key that does not fit its certificate, or is of an unknown kind.
    #[error("certificate {index} (counted from 1): the key does not fit the certificate, or cannot be used")]
    Key {
        /// Which certificate, from 1.
        index: usize,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No certificate at all.
    #[error("no certificate is configured: set `certificates`")]
    Missing,
    /// The TLS library refuses the settings.
    #[error("the TLS settings cannot be used")]
    Settings(#[source] rustls::Error),
    /// The authorities for client certificates.
    #[error("the authorities for client certificates cannot be used")]
    ClientRoots(#[source] VerifierBuilderError),
}

/// The certificates in use, and what is asked of those of clients; a reload swaps both while connections go on.
#[derive(Debug, Clone)]
pub(crate) struct TlsKeys {
    shown: Arc<ArcSwap<Vec<Arc<CertifiedKey>>>>,
    asked: Arc<ArcSwap<Asked>>,
}

impl TlsKeys {
    /// Checks and takes the certificates of a configuration.
    ///
    /// # Errors
    /// [`TlsError::Missing`] and [`TlsError::Key`].
    pub(crate) fn new(settings: &Settings) -> Result<Self, TlsError> {
        Ok(Self {
            shown: Arc::new(ArcSwap::from_pointee(load(&settings.certificates)?)),
            asked: Arc::new(ArcSwap::from_pointee(Asked::of(settings))),
        })
    }

    /// Shows other certificates, and asks for others, from now on.
    ///
    /// # Errors
    /// As [`TlsKeys::new`]; the old ones stay.
    pub(crate) fn replace(&self, settings: &Settings) -> Result<(), TlsError> {
        self.shown.store(Arc::new(load(&settings.certificates)?));
        self.asked.store(Arc::new(Asked::of(settings)));
        Ok(())
    }

    /// What is asked of clients now.
    pub(super) fn asked(&self) -> Arc<Asked> {
        self.asked.load_full()
    }

    /// A server configuration with these keys for HTTP/2 between services. With `roots`, callers must show a
    /// certificate from one of these authorities.
    ///
    /// # Errors
    /// [`TlsError::Settings`].
    pub(crate) fn service_config(
        &self,
        roots: Option<&[CertificateDer<'static>]>,
    ) -> Result<ServerConfig, TlsError> {
        let provider = pomerium_shared::tls::provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Settings)?;
        let builder = match roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let mut store = RootCertStore::empty();
                for root in roots {
                    store.add(root.clone()).map_err(TlsError::Settings)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(TlsError::ClientRoots)?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// A server configuration with these keys and protocols. Each has its own memory of sessions: what began without
    /// a client's key does not go on as if it had one.
    pub(super) fn server_config(
        &self,
        alpn: &[&[u8]],
        client_key: ClientKey,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(pomerium_shared::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Settings)?;
        let builder = match client_key {
            ClientKey::NotAsked => builder.with_no_client_auth(),
            ClientKey::Welcome => {
                builder.with_client_cert_verifier(ClientCertificates::new(self.asked.clone(), Vec::new()))
            }
            ClientKey::From(hints) => {
                builder.with_client_cert_verifier(ClientCertificates::new(self.asked.clone(), hints))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(config)
    }
}

impl ResolvesServerCert for TlsKeys {
    /// The first certificate that is valid for the client's server name, or the first of all.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.shown.load();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let leaf = key.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
            matches!((&name, leaf), (Some(name), Some(leaf)) if verify_server_name(&leaf, name).is_ok())
        };
        keys.iter().find(fits).or_else(|| keys.first()).cloned()
    }
}

fn load(certificates: &[Certificate]) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    if certificates.is_empty() {
        return Err(TlsError::Missing);
    }
    let provider = pomerium_shared::tls::provider();
    certificates
        .iter()
        .enumerate()
        .map(|(index, pair)| {
            CertifiedKey::from_der(pair.chain.clone(), pair.key.clone_key(), &provider)
                .map(Arc::new)
                .map_err(|source| TlsError::Key { index: index + 1, source })
        })
        .collect()
}
