//! Which certificates of a gateway are believed.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pomerium_shared::tls;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Bytes of a CA file at most.
const CA_FILE_LEN_MAX: u64 = 4 * 1024 * 1024;

/// What the person said about trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustSettings {
    /// Believe anything (`--disable-tls-verification`).
    pub(crate) anything: bool,
    /// A PEM file with CAs to believe beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The same as base64 of PEM.
    pub(crate) ca_base64: Option<String>,
}

/// The CAs could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The file could not be read.
    #[error("cannot read the CA file {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `--ca-cert` is not base64.
    #[error("--ca-cert is not base64 of a PEM certificate")]
    NotBase64,
    /// There is no usable certificate in it.
    #[error("{option} holds no usable PEM certificate")]
    NoCertificate {
        /// Which option.
        option: &'static str,
    },
}

/// CAs that were read, ready for any number of connections.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    roots: RootCertStore,
    anything: bool,
}

impl Trust {
    /// Reads the system's CAs and those that the person named.
    pub(crate) fn load(settings: &TrustSettings) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::debug!(%error, "a CA of the system was not read");
        }
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = &settings.ca_file {
            let file_error = |source| TrustError::File { path: path.clone(), source };
            if std::fs::metadata(path).map_err(file_error)?.len() > CA_FILE_LEN_MAX {
                return Err(file_error(std::io::Error::other("the file is larger than any set of CAs")));
            }
            let pem = std::fs::read(path).map_err(file_error)?;
            add_pem(&mut roots, &pem, "--alternate-ca-path")?;
        }
        if let Some(text) = &settings.ca_base64 {
            let pem = STANDARD.decode(text.trim()).map_err(|_| TrustError::NotBase64)?;
            add_pem(&mut roots, &pem, "--ca-cert")?;
        }
        if settings.anything {
            tracing::warn!(
                "TLS VERIFICATION IS OFF: anyone on the way can read your traffic and take your session"
            );
        }
        Ok(Self { roots, anything: settings.anything })
    }

    /// The CAs themselves.
    pub(crate) fn roots(&self) -> RootCertStore {
        self.roots.clone()
    }

    /// Takes the verification out of a connection's settings when the person asked for that.
    pub(crate) fn apply(&self, config: ClientConfig) -> ClientConfig {
        if self.anything { tls::unverified(config) } else { config }
    }
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8], option: &'static str) -> Result<(), TrustError> {
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TrustError::NoCertificate { option })?;
        roots.add(certificate).map_err(|_| TrustError::NoCertificate { option })?;
        added += 1;
    }
    if added == 0 { Err(TrustError::NoCertificate { option }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["gate.example".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_named_ca_is_believed_beside_the_systems() {
        let before = Trust::load(&TrustSettings::default()).unwrap().roots.len();
        let settings = TrustSettings { ca_base64: Some(STANDARD.encode(pem())), ..Default::default() };
        assert_eq!(Trust::load(&settings).unwrap().roots.len(), before + 1);
    }

    #[test]
    fn a_ca_option_without_a_ca_is_an_error_and_not_silence() {
        for text in ["%%%", "", &STANDARD.encode("no certificate")] {
            let settings = TrustSettings { ca_base64: Some(text.to_owned()), ..Default::default() };
            assert!(Trust::load(&settings).is_err(), "{text}");
        }
        let settings = TrustSettings { ca_file: Some("/nonexistent/ca.pem".into()), ..Default::default() };
        assert!(matches!(Trust::load(&settings), Err(TrustError::File { .. })));
    }
}
