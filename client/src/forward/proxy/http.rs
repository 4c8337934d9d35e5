//! The HTTP proxy: `CONNECT` for anything, requests with a whole URL for apps without TLS, and the PAC file.

use std::{
    io::{self, Cursor},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pomerium_shared::{destination::Destination, relay::Leg};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, duplex, join, split},
    net::{TcpStream, tcp::OwnedWriteHalf},
};
use tokio_util::sync::CancellationToken;

use super::{Denied, HEAD_TIMEOUT, Shared, pac};
use crate::{
    exit::Exit,
    local_api::frames::{FrameReader, FrameWriter},
};

/// Bytes of a request's head at most.
const HEAD_LEN_MAX: usize = 64 * 1024;
/// Bytes between the proxy's HTTP and a stream.
const BETWEEN_LEN: usize = 64 * 1024;
const PAC_PATH: &str = "/proxy.pac";

type Body = Either<Full<Bytes>, Incoming>;

/// Serves a connection to its end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: TcpStream,
    stopping: &CancellationToken,
) -> io::Result<()> {
    let answer = |request| {
        let shared = Arc::clone(shared);
        async move { Ok::<_, std::convert::Infallible>(answer(&shared, request).await) }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            // The request at hand is answered, and the last.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = &mut connection => ended,
                () = shared.cut.cancelled() => Ok(()),
            }
        }
    };
    ended.map_err(io::Error::other)
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return tunnel(shared, request).await;
    }
    match request.uri().scheme_str() {
        Some("http") => forward(shared, request).await,
        Some(_) => {
            said(StatusCode::BAD_REQUEST, "Only http:// is forwarded; anything else goes by CONNECT.\n")
        }
        None => own(shared, &request).await,
    }
}

/// What is asked of the proxy itself: the PAC file. A page that has a name of its own lead here gets nothing.
async fn own(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    if !is_for_this_machine(request.headers()) {
        return said(StatusCode::FORBIDDEN, "This is a proxy of this machine's, and no web server.\n");
    }
    if request.uri().path() != PAC_PATH || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return said(StatusCode::NOT_FOUND, "This is a proxy; its PAC file is at /proxy.pac.\n");
    }
    let text = pac::text(shared.local, shared.names.all().await.as_ref());
    let mut response = said(StatusCode::OK, "");
    *response.body_mut() = Either::Left(Full::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(pac::CONTENT_TYPE));
    response
}

fn is_for_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(uri) = host.to_str().ok().and_then(|host| host.parse::<Uri>().ok()) else { return false };
    let name = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn tunnel(shared: &Arc<Shared>, mut request: Request<Incoming>) -> Response<Body> {
    let asked =
        request.uri().authority().and_then(|authority| authority.as_str().parse::<Destination>().ok());
    let Some(destination) = asked else {
        return said(StatusCode::BAD_REQUEST, "CONNECT wants host:port.\n");
    };
    let app = match shared.open(&destination).await {
        Ok(app) => app,
        Err(denied) => return refused(&denied),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let carrying = Arc::clone(shared);
    shared.streams.spawn(async move {
        let parts = match upgraded.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<TcpStream>>) {
            Ok(Ok(parts)) => parts,
            Ok(Err(_)) => return tracing::error!("a proxied connection is none of ours"),
            Err(error) => return tracing::debug!(%error, "a program left before its stream began"),
        };
        let (reader, writer) = parts.io.into_inner().into_split();
        let local = Leg::io(
            Cursor::new(parts.read_buf).chain(reader),
            Severing { inner: Some(writer), is_ended: false },
        );
        carrying.carry(local, app, &destination).await;
    });
    Response::new(Either::Left(Full::default()))
}

/// Writes to a TCP connection, and resets it when it is dropped before its end: a cut must not look like one.
struct Severing {
    /// There until it is dropped.
    inner: Option<OwnedWriteHalf>,
    is_ended: bool,
}

impl Severing {
    fn half(&mut self) -> io::Result<Pin<&mut OwnedWriteHalf>> {
        self.inner.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncWrite for Severing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.half()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_ended = true;
        self.half()?.poll_shutdown(context)
    }
}

impl Drop for Severing {
    fn drop(&mut self) {
        if let (false, Some(half)) = (self.is_ended, self.inner.take()) {
            // What the system does not grant is an ordinary close: nothing better is left.
            let _unset = socket2::SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
            // Dropped, it would say first that this is the end.
            half.forget();
        }
    }
}

/// Carries one request over a stream of its own, so that what follows on this connection is asked for anew.
async fn forward(shared: &Arc<Shared>, mut request: Request<Incoming>) -> Response<Body> {
    let Some(authority) = request.uri().authority().cloned() else {
        return said(StatusCode::BAD_REQUEST, "The URL has no host.\n");
    };
    let port = authority.port_u16().unwrap_or(80);
    let Ok(destination) = Destination::new(authority.host().trim_matches(['[', ']']), port) else {
        return said(StatusCode::BAD_REQUEST, "The URL has no host that could be one.\n");
    };
    let Ok(host) = HeaderValue::from_str(authority.as_str().rsplit('@').next().unwrap_or_default()) else {
        return said(StatusCode::BAD_REQUEST, "The URL has no host that could be one.\n");
    };
    let app = match shared.open(&destination).await {
        Ok(app) => app,
        Err(denied) => return refused(&denied),
    };
    strip(request.headers_mut());
    // The URL counts, whatever the header says (RFC 9112, 3.2.2).
    request.headers_mut().insert(HOST, host);
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = path.parse().unwrap_or_default();
    let (near, far) = duplex(BETWEEN_LEN);
    let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
    // In frames, so that HTTP hears of a cut as such, and not as the end of an answer.
    let local = Leg::io(FrameReader::new(near_read), FrameWriter::new(near_write));
    let carrying = Arc::clone(shared);
    shared.streams.spawn(async move { carrying.carry(local, app, &destination).await });
    let stream = TokioIo::new(join(FrameReader::new(far_read), FrameWriter::new(far_write)));
    let spoken =
        hyper::client::conn::http1::Builder::new().preserve_header_case(true).handshake(stream).await;
    let answered = match spoken {
        Ok((mut sender, connection)) => {
            shared.streams.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a request through the proxy ended");
                }
            });
            sender.send_request(request).await
        }
        Err(error) => Err(error),
    };
    match answered {
        Ok(mut response) => {
            strip(response.headers_mut());
            response.map(Either::Right)
        }
        Err(error) => {
            tracing::debug!(%error, "an app gave no answer through the proxy");
            said(StatusCode::BAD_GATEWAY, "The app gave no answer in HTTP.\n")
        }
    }
}

/// Takes away what was between two neighbours (RFC 9110, 7.6.1), and what is meant for the proxy.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, UPGRADE, TE, TRAILER, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"] {
        headers.remove(name);
    }
}

fn refused(denied: &Denied) -> Response<Body> {
    let status = match denied.exit() {
        Exit::NotAllowed => StatusCode::FORBIDDEN,
        // Not 401 or 407: those would have the program ask for a password.
        Exit::NotSignedIn => StatusCode::FORBIDDEN,
        Exit::AppDown => StatusCode::BAD_GATEWAY,
        Exit::Ours | Exit::Usage | Exit::Unreachable | Exit::Untrusted => StatusCode::SERVICE_UNAVAILABLE,
    };
    said(status, &format!("{}\n", denied.told()))
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text.to_owned())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_of_this_machine_is_answered() {
        let asked = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            is_for_this_machine(&headers)
        };
        for host in ["127.0.0.1:1080", "127.9.8.7", "localhost:1080", "[::1]:1080"] {
            assert!(asked(&[host]), "{host}");
        }
        for host in ["rebound.example:1080", "10.0.0.1", "localhost.example", "127.0.0.1.example", "", "a b"]
        {
            assert!(!asked(&[host]), "{host}");
        }
        assert!(!asked(&[]) && !asked(&["localhost", "localhost"]));
    }

    #[test]
    fn nothing_between_neighbours_is_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic c2VjcmV0"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("cookie", "a=b"),
        ] {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["cookie"]);
    }
}
