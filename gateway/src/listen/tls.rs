//! Which certificate a client is shown, and the TLS settings of both doors.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pomerium_shared::clock::Now;
use rustls::{
    DistinguishedName, RootCertStore, ServerConfig,
    server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{
    client_certificate::{Asked, ClientCertificates},
    shown::Shown,
};
use crate::{
    autocert::{self, Challenges},
    config::{Certificate, Settings},
};

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
    /// None could be made for the time until the authority gives one.
    #[error("no certificate could be made for the time being")]
    Stopgap(#[source] rcgen::Error),
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
    /// Of the configuration.
    shown: Arc<ArcSwap<Vec<Arc<Shown>>>>,
    /// Got by the gateway itself: they go before the others.
    obtained: Arc<ArcSwap<Vec<Arc<Shown>>>>,
    asked: Arc<ArcSwap<Asked>>,
    /// What a certificate authority may be shown.
    challenges: Arc<Challenges>,
}

impl TlsKeys {
    /// Checks and takes the certificates of a configuration.
    ///
    /// # Errors
    /// [`TlsError::Missing`] and [`TlsError::Key`].
    pub(crate) fn new(settings: &Settings) -> Result<Self, TlsError> {
        Ok(Self {
            shown: Arc::new(ArcSwap::from_pointee(load(settings)?)),
            obtained: Arc::default(),
            asked: Arc::new(ArcSwap::from_pointee(Asked::of(settings))),
            challenges: Arc::default(),
        })
    }

    /// Shows other certificates, and asks for others, from now on.
    ///
    /// # Errors
    /// As [`TlsKeys::new`]; the old ones stay.
    pub(crate) fn replace(&self, settings: &Settings) -> Result<(), TlsError> {
        let shown = load(settings)?;
        self.take_over(&shown);
        self.shown.store(Arc::new(shown));
        self.asked.store(Arc::new(Asked::of(settings)));
        Ok(())
    }

    /// What a certificate authority may be shown.
    pub(crate) fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Shows these certificates, which the gateway got itself, instead of those before. One whose key does not fit is left out.
    pub(crate) fn show_obtained(&self, certificates: &[Arc<Certificate>]) {
        let keys = certificates.iter().filter_map(|certificate| match Shown::new(certificate) {
            Ok(shown) => Some(Arc::new(shown)),
            Err(error) => {
                tracing::error!(%error, "a certificate that was obtained cannot be used");
                None
            }
        });
        let keys: Vec<_> = keys.collect();
        self.take_over(&keys);
        self.obtained.store(Arc::new(keys));
    }

    /// All certificates that may be shown.
    pub(super) fn all(&self) -> Vec<Arc<Shown>> {
        self.obtained.load().iter().chain(self.shown.load().iter()).cloned().collect()
    }

    /// What issuers said outlives a reload.
    fn take_over(&self, new: &[Arc<Shown>]) {
        for (new, old) in new.iter().flat_map(|new| self.all().into_iter().map(move |old| (new, old))) {
            new.take_over(&old);
        }
    }

    /// What is asked of clients now.
    pub(super) fn asked(&self) -> Arc<Asked> {
        self.asked.load_full()
    }

    /// How to answer a certificate authority that looks whether a host is ours: it asks for nothing but that protocol. `None`
    /// for everybody else, and where nothing is under way for the host.
    pub(super) fn proof(&self, hello: &ClientHello<'_>) -> Option<Result<Arc<ServerConfig>, TlsError>> {
        let mut protocols = hello.alpn()?;
        let (Some(autocert::ALPN), None) = (protocols.next(), protocols.next()) else { return None };
        let proof = self.challenges.tls(hello.server_name()?)?;
        let builder = ServerConfig::builder_with_provider(pomerium_shared::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Settings);
        Some(builder.map(|builder| {
            let resolver = rustls::sign::SingleCertAndKey::from(proof);
            let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
            config.alpn_protocols = vec![autocert::ALPN.to_vec()];
            Arc::new(config)
        }))
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
        let (obtained, shown) = (self.obtained.load(), self.shown.load());
        let name = hello.server_name().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let mut all = obtained.iter().chain(shown.iter());
        let fits = all.find(|shown| name.as_ref().is_some_and(|name| shown.is_for(name)));
        fits.or_else(|| shown.first()).map(|shown| shown.key(Now::read().wall))
    }
}

fn load(settings: &Settings) -> Result<Vec<Arc<Shown>>, TlsError> {
    if settings.certificates.is_empty() {
        return match &settings.autocert {
            Some(_) => Ok(vec![Arc::new(stopgap(settings)?)]),
            None => Err(TlsError::Missing),
        };
    }
    let certificates = settings.certificates.iter().enumerate();
    certificates
        .map(|(index, pair)| {
            Shown::new(pair).map(Arc::new).map_err(|source| TlsError::Key { index: index + 1, source })
        })
        .collect()
}

/// What hosts show for which there is no certificate yet: one that nobody believes.
fn stopgap(settings: &Settings) -> Result<Shown, TlsError> {
    let host = settings.authenticate_url.host_str().unwrap_or_default().to_owned();
    let made = rcgen::generate_simple_self_signed([host]).map_err(TlsError::Stopgap)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let chain = vec![made.cert.der().clone()];
    Shown::new(&Certificate { chain, key, staple: None }).map_err(TlsError::Settings)
}
