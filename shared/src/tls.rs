//! TLS settings of both ends: one crypto provider, and what a client asks of a server.

mod unverified;

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};

pub use self::unverified::unverified;

/// The ALPN protocol that a client with a device key offers last, on TCP: it is never spoken, and tells the gateway that
/// it may ask for a certificate. Browsers do not offer it, and so never ask a person to choose one.
pub const DEVICE_KEY_MARK: &[u8] = b"pomerium-cli/1";

/// The workspace's only TLS provider, aws-lc-rs.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client's settings: TLS 1.3 and 1.2, no client certificate, sessions resumed from memory.
///
/// `alpn` lists the protocols that the client offers, the most wanted first. QUIC needs TLS 1.3 and takes it from
/// the same settings.
#[must_use]
pub fn client_config(roots: RootCertStore, alpn: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}
