//! The way to the identity provider: bounded in time and size, no redirects.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value};
use url::Url;

use super::ProviderError;

/// For one call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer at most.
const ANSWER_LEN_MAX: usize = 1024 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer in time")]
    TimedOut,
    #[error("plain http is allowed to a loopback address only")]
    Insecure,
    #[error("the connection failed")]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer is broken or too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer has status {0}")]
    Status(http::StatusCode),
    #[error("the answer is no JSON object")]
    NotJson(#[source] serde_json::Error),
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
}

#[derive(Debug, Clone)]
pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub(super) fn new(extra_roots: &[CertificateDer<'static>]) -> Result<Self, ProviderError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(extra_roots.iter().cloned());
        let tls = ClientConfig::builder_with_provider(pomerium_shared::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| ProviderError::Misconfigured(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Sends one request of the OpenID Connect library.
    pub(super) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, CallError> {
        if request.uri().scheme_str() != Some("https") && !is_loopback(request.uri().host()) {
            return Err(CallError::Insecure);
        }
        let call = async {
            let request = request.map(|body| Full::new(Bytes::from(body)));
            let (parts, body) = self.0.request(request).await.map_err(CallError::Connection)?.into_parts();
            let body = Limited::new(body, ANSWER_LEN_MAX).collect().await.map_err(CallError::Body)?;
            Ok(Response::from_parts(parts, body.to_bytes().to_vec()))
        };
        tokio::time::timeout(TIMEOUT, call).await.map_err(|_| CallError::TimedOut)?
    }

    /// Reads a JSON object with an access token.
    pub(super) async fn get_json(&self, url: &Url, access_token: &str) -> Result<Map<String, Value>, CallError> {
        let request = Request::get(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(CallError::Request)?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(CallError::Status(response.status()));
        }
        serde_json::from_slice(response.body()).map_err(CallError::NotJson)
    }
}

fn is_loopback(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
