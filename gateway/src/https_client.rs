//! The HTTP client that speaks to identity providers and certificate authorities: bounded in size and time, redirects not
//! followed.

use std::{error::Error, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::CertificateDer;
use url::Url;

/// Octets of an answer at most: discovery documents and key sets are a few KiB.
const BODY_LEN_MAX: usize = 1024 * 1024;
/// For one request with its whole answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One exchange. Boxed: with a borrowed client the compiler cannot see that it may move between
/// threads.
pub(crate) type Exchange = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, SendError>> + Send>>;

/// See the module; clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct HttpsClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("plain http is allowed to this very machine only")]
    NotHttps,
    #[error("no answer within 10 seconds")]
    TimedOut,
    #[error("no connection, or it broke")]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer is broken or longer than 1 MiB")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the request cannot be written")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
}

impl HttpsClient {
    pub(crate) fn new(extra_roots: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for root in extra_roots {
            roots.add(root.clone())?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), timeout: TIMEOUT })
    }

    /// The client in the form that the OpenID Connect library takes.
    pub(crate) fn caller(&self) -> impl Fn(Request<Vec<u8>>) -> Exchange + Send + Sync + use<> {
        let http = self.clone();
        move |request| {
            let http = http.clone();
            Box::pin(async move { http.send(request).await })
        }
    }

    /// Sends one request and reads its whole answer. A server in trouble (5xx, 429) has not answered, whatever it wrote.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, SendError> {
        if !is_https_or_loopback(request.uri()) {
            return Err(SendError::NotHttps);
        }
        self.send_in_the_open(request).await
    }

    /// The same over plain http as well: for answers that prove themselves by a signature, and questions that everybody may read.
    pub(crate) async fn send_in_the_open(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, SendError> {
        let exchange = async {
            let request = request.map(|body| Full::new(Bytes::from(body)));
            let (parts, body) =
                self.client.request(request).await.map_err(SendError::Connection)?.into_parts();
            if is_in_trouble(parts.status) {
                return Err(SendError::Status(parts.status));
            }
            let body = Limited::new(body, BODY_LEN_MAX).collect().await.map_err(SendError::Body)?.to_bytes();
            Ok(Response::from_parts(parts, body.to_vec()))
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| SendError::TimedOut)?
    }

    /// The body of a 200; `None` when the server refuses the token.
    pub(crate) async fn get_with_bearer(&self, url: &Url, token: &str) -> Result<Option<Vec<u8>>, SendError> {
        let request = Request::get(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())?;
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.into_body())),
            status if status.is_client_error() => Ok(None),
            status => Err(SendError::Status(status)),
        }
    }

    pub(crate) async fn post_form(&self, url: &Url, form: String) -> Result<StatusCode, SendError> {
        let request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into_bytes())?;
        Ok(self.send(request).await?.status())
    }
}

fn is_in_trouble(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn is_https_or_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && is_loopback(host))
}

/// Whether a host is this very machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let is_name = host == "localhost" || host.ends_with(".localhost");
    is_name || address(host).is_some_and(|address| address.is_loopback() || address.is_unspecified())
}

/// The address that a host is; an IPv4 address inside an IPv6 one counts as itself.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_only() {
        for (uri, allowed) in [
            ("https://idp.example.com/", true),
            ("http://localhost:9000/", true),
            ("http://127.0.0.1:9000/", true),
            ("http://[::1]:9000/", true),
            ("http://idp.example.com/", false),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("ftp://localhost/", false),
        ] {
            assert_eq!(is_https_or_loopback(&uri.parse().unwrap()), allowed, "{uri}");
        }
    }

    /// A server that sends this and then nothing more, without hanging up.
    async fn server(answer: Vec<u8>) -> (String, tokio::task::JoinSet<()>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            // The other end may have had enough.
            _ = socket.write_all(&answer).await;
            std::future::pending().await
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn a_silent_server_costs_its_time_and_no_more() {
        let http = HttpsClient { timeout: Duration::from_millis(20), ..HttpsClient::new(&[]).unwrap() };
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"] {
            let (address, _tasks) = server(answer.to_vec()).await;
            let answer = http.send(Request::get(address).body(vec![]).unwrap()).await;
            assert!(matches!(answer, Err(SendError::TimedOut)), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_and_a_redirect_is_not_followed() {
        let http = HttpsClient::new(&[]).unwrap();
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(2 * BODY_LEN_MAX, b'a');
        let (address, _tasks) = server(endless).await;
        let answer = http.send(Request::get(address).body(vec![]).unwrap()).await;
        assert!(matches!(answer, Err(SendError::Body(_))), "{answer:?}");
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let (address, _tasks) = server(moved.into()).await;
        let answer = http.send(Request::get(address).body(vec![]).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND);
    }
}
