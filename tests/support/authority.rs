//! A certificate authority of the test's own, and one server certificate from it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, client::WantsClientCert};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// Names and addresses that the server certificate is for. One by one: clients refuse `*.localhost`, since a wildcard
/// may not stand directly before the last label.
const NAMES: [&str; 7] = [
    "localhost",
    "app.localhost",
    "app.far.localhost",
    "authenticate.localhost",
    "other.localhost",
    "*.corp.test",
    "127.0.0.1",
];

const DAY: Duration = Duration::from_secs(24 * 3600);

#[expect(clippy::disallowed_methods, reason = "the programs under test read the same clock")]
fn today() -> SystemTime {
    SystemTime::now()
}

/// The files of an authority.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The authority's certificate, PEM.
    pub root: PathBuf,
    /// The server's certificate, PEM.
    pub certificate: PathBuf,
    /// The server's private key, PEM.
    pub key: PathBuf,
    /// SHA-256 of the server's public key (RFC 7469, 2.4), base64.
    pub pin: String,
    root_der: CertificateDer<'static>,
    /// Another certificate for the same names and key, in PEM.
    renewed: String,
}

impl Authority {
    /// Makes an authority and a server certificate, and writes them to `folder`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(folder: &Path) -> anyhow::Result<Self> {
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        root.distinguished_name.push(DnType::CommonName, "Pomerium tests");
        let root_certificate = root.self_signed(&root_key)?;
        let issuer = Issuer::new(root, root_key);

        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(NAMES.map(String::from).to_vec())?;
        leaf.distinguished_name.push(DnType::CommonName, "gateway");
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        // Browsers refuse certificates that live longer than a good year.
        let now = today();
        leaf.not_before = (now - DAY).into();
        leaf.not_after = (now + 90 * DAY).into();
        let renewed = leaf.signed_by(&key, &issuer)?.pem();
        let leaf = leaf.signed_by(&key, &issuer)?;

        let authority = Self {
            root: folder.join("ca.pem"),
            certificate: folder.join("gateway.pem"),
            key: folder.join("gateway.key"),
            pin: STANDARD.encode(digest::digest(&digest::SHA256, &key.subject_public_key_info())),
            root_der: root_certificate.der().clone(),
            renewed,
        };
        std::fs::write(&authority.root, root_certificate.pem())?;
        std::fs::write(&authority.certificate, leaf.pem())?;
        std::fs::write(&authority.key, key.serialize_pem())?;
        Ok(authority)
    }

    /// Replaces the server certificate by another one, in one step, as a renewal does; gives the new one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn renew(&self) -> anyhow::Result<CertificateDer<'static>> {
        let new = self.certificate.with_extension("new");
        std::fs::write(&new, &self.renewed)?;
        std::fs::rename(new, &self.certificate)?;
        Ok(CertificateDer::from_pem_slice(self.renewed.as_bytes())?)
    }

    /// A TLS client that trusts this authority alone and offers `protocols` (ALPN).
    ///
    /// # Errors
    /// The certificate does not parse.
    pub fn client_config(&self, protocols: &[&[u8]]) -> anyhow::Result<Arc<ClientConfig>> {
        let mut config = self.client_builder()?.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// The same with a certificate of the client's own.
    ///
    /// # Errors
    /// A certificate does not parse, or the key does not fit.
    pub fn client_config_with(
        &self,
        protocols: &[&[u8]],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> anyhow::Result<Arc<ClientConfig>> {
        let mut config = self.client_builder()?.with_client_auth_cert(chain, key)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn client_builder(&self) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root_der.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots))
    }
}
