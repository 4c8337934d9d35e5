//! Asks the gateway over gRPC as Envoy does, with messages that were generated from Envoy's published proto files.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{Address, HeaderValueOption, SocketAddress, address, socket_address::PortSpecifier},
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tonic::{body::Body, codegen::Service};
use url::Url;

use crate::{http::secure, wait};

/// The answer to one question.
#[derive(Debug)]
pub enum Answer {
    /// The request passes, with these headers replaced and those removed.
    Ok {
        /// Replaced.
        set: HashMap<String, String>,
        /// Removed.
        removed: Vec<String>,
    },
    /// This goes back instead.
    Denied {
        /// The status.
        status: i32,
        /// The headers.
        headers: HeaderMap,
        /// The page.
        body: String,
    },
}

/// A question under way. Boxed: Envoy's messages are large.
pub type Asking<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Answer>> + Send + 'a>>;

/// One connection to the gateway's door for gRPC.
#[derive(Debug)]
pub struct Envoy {
    sender: http2::SendRequest<Body>,
    _driver: JoinSet<()>,
}

impl Envoy {
    /// Connects in plain HTTP/2, or over TLS.
    ///
    /// # Errors
    /// Nobody listens, or a handshake fails.
    pub async fn connect(port: u16, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        match tls {
            None => Self::over(tcp).await,
            Some(tls) => Self::over(secure(tls, tcp, "localhost").await?).await,
        }
    }

    async fn over<S>(stream: S) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Whatever goes wrong here is seen by the request itself.
            let _end = connection.await;
        });
        // With TLS 1.3 a refused client certificate shows only now.
        wait::within("the gRPC connection", sender.ready()).await??;
        Ok(Self { sender, _driver: driver })
    }

    /// Asks about a request for `url`, with `token` as metadata.
    ///
    /// # Errors
    /// The status of gRPC, or no answer.
    pub fn ask<'a>(&'a self, token: Option<&'a str>, question: CheckRequest) -> Asking<'a> {
        Box::pin(async move {
            let mut request = tonic::Request::new(question);
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
            }
            let mut client =
                AuthorizationClient::with_origin(Http2(self.sender.clone()), "http://localhost".parse()?);
            let response = wait::within("an answer over gRPC", client.check(request)).await??;
            answer(response.into_inner())
        })
    }

    /// Calls some method of some service with an empty message, and gives the code of gRPC.
    ///
    /// # Errors
    /// No answer.
    pub async fn call(&mut self, path: &str, token: &str) -> anyhow::Result<String> {
        // Not compressed, and of no length.
        let empty_message = Full::new(Bytes::from_static(&[0; 5]));
        let request = ::http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("jwt", token)
            .body(Body::new(empty_message))?;
        let response = wait::within(path, self.sender.send_request(request)).await??;
        // A refusal has it in the headers, an answer in the trailers.
        let early = response.headers().get("grpc-status").cloned();
        let end = response.into_body().collect().await?;
        let late = end.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        Ok(early.or(late).context("no status of gRPC")?.to_str()?.to_owned())
    }
}

/// A question about a GET of `url`, as Envoy puts it.
#[must_use]
pub fn question(url: &Url, headers: &[(&str, &str)]) -> CheckRequest {
    let mut all: HashMap<String, String> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    let path = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
    all.extend(
        [(":method", "GET"), (":path", &path), (":authority", &host)].map(|(n, v)| (n.into(), v.into())),
    );
    let http = HttpRequest {
        method: "GET".to_owned(),
        headers: all,
        path,
        host,
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        size: -1,
        ..HttpRequest::default()
    };
    let address = SocketAddress {
        address: "192.0.2.7".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(40_000)),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(address)) };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(address), ..Peer::default() }),
            request: Some(Request { http: Some(http), ..Request::default() }),
            ..AttributeContext::default()
        }),
    }
}

/// Reads an answer as Envoy does: without the status `OK` nothing passes, and `append` says whether a header stands beside
/// others of its name.
fn answer(response: CheckResponse) -> anyhow::Result<Answer> {
    let code = response.status.context("an answer has a status")?.code;
    match response.http_response {
        Some(HttpResponse::OkResponse(ok)) if code == 0 => {
            let set = ok.headers.iter().map(pair).collect::<anyhow::Result<_>>()?;
            Ok(Answer::Ok { set, removed: ok.headers_to_remove })
        }
        Some(HttpResponse::DeniedResponse(denied)) if code != 0 => {
            let mut headers = HeaderMap::new();
            for option in &denied.headers {
                let (name, value) = pair(option)?;
                let name: ::http::HeaderName = name.parse()?;
                #[expect(deprecated, reason = "Envoy reads it, and nothing else before its version 1.24")]
                let appends = option.append.as_ref().is_some_and(|append| append.value);
                if appends {
                    headers.append(name, value.parse()?);
                } else {
                    headers.insert(name, value.parse()?);
                }
            }
            let status = denied.status.context("a denied request has a status")?.code;
            Ok(Answer::Denied { status, headers, body: denied.body })
        }
        other => bail!("the status {code} contradicts {other:?}"),
    }
}

fn pair(option: &HeaderValueOption) -> anyhow::Result<(String, String)> {
    let header = option.header.as_ref().context("a header option has a header")?;
    Ok((header.key.clone(), header.value.clone()))
}

/// hyper's connection as the transport of tonic's client.
#[derive(Debug, Clone)]
struct Http2(http2::SendRequest<Body>);

impl Service<::http::Request<Body>> for Http2 {
    type Response = ::http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: ::http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
