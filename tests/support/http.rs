//! One HTTP/1.1 request on one connection, to loopback, whatever name of `*.localhost` the URL has.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

use crate::wait;

/// Where `*.far.localhost` is: as good as another machine, with ports of its own.
pub const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it came from.
    pub url: Url,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Page {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Where it redirects to.
    ///
    /// # Errors
    /// It has a `Location` that is no URL.
    pub fn location(&self) -> anyhow::Result<Option<Url>> {
        if !self.status.is_redirection() {
            return Ok(None);
        }
        let Some(value) = self.headers.get(header::LOCATION) else { return Ok(None) };
        Ok(Some(self.url.join(value.to_str()?)?))
    }
}

/// Sends a request whose URI is absolute. `Host` is made from it unless given.
///
/// # Errors
/// No connection, a certificate that is not trusted, or a broken answer.
pub async fn send(tls: &Arc<ClientConfig>, mut request: Request<Full<Bytes>>) -> anyhow::Result<Page> {
    let url = Url::parse(&request.uri().to_string())?;
    let origin_form = url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
    if !request.headers().contains_key(header::HOST) {
        let host = url[url::Position::BeforeHost..url::Position::AfterPort].parse()?;
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = origin_form.parse()?;
    let tcp = connect(&url).await?;
    let exchange = async {
        if url.scheme() == "https" {
            let name = url.host_str().context("the URL has no host")?.to_owned();
            exchange(secure(tls, tcp, &name).await?, request, url.clone()).await
        } else {
            exchange(tcp, request, url.clone()).await
        }
    };
    wait::within(url.as_str(), exchange).await?.with_context(|| format!("{url} does not answer"))
}

/// A TLS connection to loopback whose certificate is for `name`.
///
/// # Errors
/// The certificate is not trusted.
pub async fn secure(
    tls: &Arc<ClientConfig>,
    tcp: TcpStream,
    name: &str,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(tls.clone()).connect(name, tcp).await?)
}

/// Sends raw bytes over TLS, and gives the head of the answer and the stream after it.
///
/// # Errors
/// No connection, or no HTTP answer.
pub async fn raw(
    tls: &Arc<ClientConfig>,
    port: u16,
    server_name: &str,
    request: &str,
) -> anyhow::Result<(String, TlsStream<TcpStream>)> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut stream = secure(tls, tcp, server_name).await?;
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
            if head.len() > 64 * 1024 {
                bail!("the head of the answer is too long");
            }
        }
        anyhow::Ok(())
    };
    wait::within("an answer", reading).await??;
    Ok((String::from_utf8(head)?, stream))
}

async fn connect(url: &Url) -> anyhow::Result<TcpStream> {
    let host = url.host_str().context("the URL has no host")?;
    if host != "127.0.0.1" && host != "localhost" && !host.ends_with(".localhost") {
        bail!("{url} is not on this machine");
    }
    let port = url.port_or_known_default().context("the URL has no port")?;
    let address = if host.ends_with(".far.localhost") { FAR } else { Ipv4Addr::LOCALHOST };
    Ok(TcpStream::connect((address, port)).await?)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, url: Url) -> anyhow::Result<Page>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Whatever goes wrong here is seen by the request itself.
        let _end = connection.await;
    });
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Page { url, status: parts.status, headers: parts.headers, body })
}
