//! The gateway's side towards the apps: pooled HTTP clients, one per way of trusting an app.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt as _, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;

use crate::{body::Body, config::UpstreamTls};

/// For the TCP connection to an app, name look-up included: an app that needs longer is down.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections kept per app.
const POOL_IDLE_MAX: usize = 64;

/// A client for one way of trusting apps.
pub(crate) type UpstreamClient = Client<HttpsConnector<HttpConnector>, Body>;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The system has no usable root certificates and the route names none.
    #[error("cannot read the system's root certificates; set tls_custom_ca_file on the route")]
    NoRoots(#[source] std::io::Error),
    /// A configured certificate or key is not usable.
    #[error("the route's TLS certificate or key is not usable")]
    Certificate(#[source] rustls::Error),
    /// The expected server name is no name.
    #[error("tls_server_name is no host name")]
    ServerName,
}

/// Builds the client for `tls`.
pub(crate) fn client(tls: &UpstreamTls) -> Result<UpstreamClient, UpstreamError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_nodelay(true);
    http.set_keepalive(Some(Duration::from_secs(30)));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls_config(tls)?).https_or_http();
    let builder = match &tls.server_name {
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|_| UpstreamError::ServerName)?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    let connector = builder.enable_http1().wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(POOL_IDLE_MAX)
        .build(connector))
}

/// A request on its way to an app.
type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, legacy::Error>> + Send>>;

/// Sends a request. Boxed: the types inside are too long for the compiler to follow.
pub(crate) fn send(client: &UpstreamClient, request: Request<Body>) -> Sending {
    Box::pin(client.request(request))
}

fn tls_config(tls: &UpstreamTls) -> Result<ClientConfig, UpstreamError> {
    let builder = ClientConfig::builder_with_provider(pomerium_shared::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(UpstreamError::Certificate)?;
    let builder = match &tls.custom_roots {
        _ if tls.skip_verify => {
            let verifier = Arc::new(trust::AnyCertificate::new(pomerium_shared::tls::provider()));
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

/// `tls_skip_verify`: trusting an app's certificate unseen, where the operator asked for it.
mod trust {
    use std::sync::Arc;

    use rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    };
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    /// Accepts any certificate, but still checks that the app holds its key.
    #[derive(Debug)]
    pub(super) struct AnyCertificate(Arc<CryptoProvider>);

    impl AnyCertificate {
        pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
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
}
