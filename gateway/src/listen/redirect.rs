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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        task::JoinSet,
    };

    use super::{super::Waits, *};

    /// The door, and what it answers to a request.
    struct Door {
        address: std::net::SocketAddr,
        _task: JoinSet<()>,
    }

    impl Door {
        async fn open(challenges: &Arc<Challenges>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let lifetime = Lifetime::new(Waits::USUAL);
            let mut task = JoinSet::new();
            task.spawn(run(listener, false, challenges.clone(), lifetime));
            Self { address, _task: task }
        }

        /// All that comes until the door closes the connection, as it does after each answer.
        async fn ask(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn everybody_is_sent_to_https_on_the_same_host_and_nobody_elsewhere() {
        let door = Door::open(&Arc::default()).await;
        for (target, host, location) in [
            ("/a?b=c", "Host: app.corp.test\r\n", Some("https://app.corp.test/a?b=c")),
            ("/", "Host: app.corp.test:80\r\n", Some("https://app.corp.test/")),
            ("/", "Host: [::1]:80\r\n", Some("https://[::1]/")),
            ("//evil.test/", "Host: app.corp.test\r\n", Some("https://app.corp.test//evil.test/")),
            ("http://evil.test/x", "Host: app.corp.test\r\n", Some("https://app.corp.test/x")),
            (
                "/.well-known/acme-challenge/none",
                "Host: a.test\r\n",
                Some("https://a.test/.well-known/acme-challenge/none"),
            ),
            ("/", "Host: app.corp.test@evil.test\r\n", None),
            ("/", "Host: app.corp.test/evil\r\n", None),
            ("/", "Host: \r\n", None),
            ("/", "", None),
        ] {
            let answer = door.ask(&format!("GET {target} HTTP/1.1\r\n{host}\r\n")).await;
            let told = answer.lines().find_map(|line| line.strip_prefix("location: "));
            assert_eq!(told, location, "{target} {host}: {answer}");
            let status = if location.is_some() { "HTTP/1.1 301 " } else { "HTTP/1.1 400 " };
            assert!(answer.starts_with(status) && answer.ends_with("\r\n\r\n"), "{target} {host}: {answer}");
        }
    }

    #[tokio::test]
    async fn an_authority_finds_its_proof_for_as_long_as_it_looks() {
        let challenges = Arc::<Challenges>::default();
        let door = Door::open(&challenges).await;
        let looks = "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: app.corp.test\r\n\r\n";
        let shown = challenges.show_http("token", "token.thumbprint");
        let answer = door.ask(looks).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\ntoken.thumbprint"),
            "{answer}"
        );
        drop(shown);
        assert!(door.ask(looks).await.starts_with("HTTP/1.1 301 "));
    }
}
