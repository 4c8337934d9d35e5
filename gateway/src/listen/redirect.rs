//! The plain HTTP door that says "use HTTPS", and shows a certificate authority that the host is ours.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{Lifetime, proxy_protocol};
use crate::{
    autocert::Challenges,
    body::{self, Body},
};

/// For the one request that a client may send.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at most: none stays longer than [`REQUEST_TIMEOUT`].
const CONNECTIONS_MAX: usize = 1_000;

/// Answers every request with a redirect to HTTPS on the same host, until the lifetime drains; that of a certificate authority
/// with the proof that it looks for.
pub(crate) async fn run(
    listener: TcpListener,
    is_behind_balancer: bool,
    challenges: Arc<Challenges>,
    lifetime: Lifetime,
) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = lifetime.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let challenges = challenges.clone();
        lifetime.tracker.spawn(async move {
            let service = service_fn(|request| {
                let proof = challenges.http(Request::uri(&request).path());
                async move { Ok::<_, Infallible>(proof.map_or_else(|| redirect(&request), shown)) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).keep_alive(false);
            let serving = async {
                // Whose connection it is makes no difference here.
                if is_behind_balancer && proxy_protocol::client_of(&mut stream).await.is_err() {
                    return false;
                }
                builder.serve_connection(TokioIo::new(stream), service).await.is_ok()
            };
            if !matches!(tokio::time::timeout(REQUEST_TIMEOUT, serving).await, Ok(true)) {
                tracing::debug!("a plain HTTP client went away");
            }
            drop(permit);
        });
    }
}

/// RFC 8555, 8.3.
fn shown(proof: String) -> Response<Body> {
    let mut response = Response::new(body::full(proof));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

fn redirect(request: &Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(body::empty());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = authority
        .filter(|authority| !authority.as_str().contains('@'))
        .and_then(|authority| HeaderValue::from_str(&format!("https://{}{path}", authority.host())).ok());
    match location {
        Some(location) => {
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            response.headers_mut().insert(header::LOCATION, location);
        }
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
