//! How an `https` app is trusted, and what the gateway shows it (`tls_*` of a route).

use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};

use super::UpstreamError;
use crate::config::UpstreamTls;

/// The client's side of TLS, without ALPN.
pub(super) fn config(tls: &UpstreamTls) -> Result<ClientConfig, UpstreamError> {
    let builder = ClientConfig::builder_with_provider(pomerium_shared::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Certificate)?;
    let builder = match &tls.custom_roots {
        _ if tls.skip_verify => builder.with_root_certificates(RootCertStore::empty()),
        Some(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(root.clone()).map_err(UpstreamError::Certificate)?;
            }
            builder.with_root_certificates(store)
        }
        None => builder.with_native_roots().map_err(UpstreamError::NoRoots)?,
    };
    let config = match &tls.client_certificate {
        Some(pair) => builder
            .with_client_auth_cert(pair.chain.clone(), pair.key.clone_key())
            .map_err(UpstreamError::Certificate)?,
        None => builder.with_no_client_auth(),
    };
    Ok(if tls.skip_verify { pomerium_shared::tls::unverified(config) } else { config })
}
