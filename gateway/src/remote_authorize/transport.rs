//! The way to one address: HTTP/2 over TLS, or plain where its URL says `http`.

use std::{io, time::Duration};

use http::{Uri, uri::PathAndQuery};
use hyper_rustls::{ConfigBuilderExt as _, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tonic::{Status, body::Body};
use tonic_prost::ProstCodec;
use url::Url;

use super::messages::{DECIDE_PATH, DecideRequest, DecideResponse};
use crate::config::AuthorizeService;

/// For a TCP connection. A host that needs longer is down, and another may be asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between pings on a connection with questions under way, and for the answer to one: how a machine that has vanished is
/// found out while there is time to ask another.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Octets of an answer at most: reasons, traces and remedies of one decision.
const ANSWER_LEN_MAX: usize = 1024 * 1024;

/// Why an address cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// The system has no usable root certificates and none are named.
    #[error("cannot read the system's root certificates; set certificate_authority_file")]
    NoRoots(#[source] io::Error),
    /// A root certificate is not usable.
    #[error("certificate_authority is not usable")]
    Root(#[source] rustls::Error),
    /// The name that is expected is no name.
    #[error("override_certificate_name is no host name")]
    Name,
    /// The URL cannot be dialled.
    #[error("the URL of the authorize service cannot be dialled")]
    Url(#[source] http::uri::InvalidUri),
}

/// Keeps one connection open, and makes another when it has ended.
#[derive(Debug)]
pub(super) struct Transport {
    origin: Uri,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Transport {
    pub(super) fn new(url: &Url, service: &AuthorizeService) -> Result<Self, TransportError> {
        let origin = url.origin().ascii_serialization().parse().map_err(TransportError::Url)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let is_plain = url.scheme() == "http";
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(service, is_plain)?);
        let builder = if is_plain { builder.https_or_http() } else { builder.https_only() };
        let builder = match &service.certificate_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone()).map_err(|_| TransportError::Name)?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_INTERVAL)
            .build(builder.enable_http2().wrap_connector(tcp));
        Ok(Self { origin, client })
    }

    /// Asks once.
    pub(super) async fn decide(
        &self,
        question: DecideRequest,
        token: &str,
    ) -> Result<DecideResponse, Status> {
        let mut grpc = tonic::client::Grpc::with_origin(self.client.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_LEN_MAX);
        let mut request = tonic::Request::new(question);
        let token = format!("Bearer {token}").parse().map_err(|_| Status::internal("no token"))?;
        request.metadata_mut().insert("authorization", token);
        let codec = ProstCodec::<DecideRequest, DecideResponse>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(DECIDE_PATH), codec).await?;
        Ok(answer.into_inner())
    }
}

/// Without TLS there is nobody to trust, and the system's roots need not be there.
fn tls(service: &AuthorizeService, is_plain: bool) -> Result<ClientConfig, TransportError> {
    let builder = ClientConfig::builder_with_provider(pomerium_shared::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(TransportError::Root)?;
    let builder = match &service.roots {
        Some(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(root.clone()).map_err(TransportError::Root)?;
            }
            builder.with_root_certificates(store)
        }
        None if is_plain => builder.with_root_certificates(RootCertStore::empty()),
        None => builder.with_native_roots().map_err(TransportError::NoRoots)?,
    };
    Ok(builder.with_no_client_auth())
}
