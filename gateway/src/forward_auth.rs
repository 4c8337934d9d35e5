//! Answers proxies that carry the traffic themselves: nginx (`auth_request`), Traefik and Caddy (forward auth).
//!
//! They ask over a door of its own, and only trusted peers are answered: what they say of host, path and client is
//! believed. Here: which headers say it ([`asserted`]) and the statuses that each proxy understands. What is decided is
//! [`crate::proxy`]'s to say. `docs/forward-auth.md` has a configuration for each proxy.

mod asserted;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;

use self::asserted::{AssertionError, Dialect};
use crate::{
    body::{self, Body},
    config::Services,
    listen::inner::{Answers, Caller},
    proxy::{Connection, HeaderChanges, Proxy, Verified},
};

/// Where Traefik and Caddy ask: what is no 2xx goes to the browser as it is.
const VERIFY_PATH: &str = "/verify";

/// Where nginx asks: it knows 2xx, 401 and 403, and answers 500 to anything else.
const VERIFY_NGINX_PATH: &str = "/verify/nginx";

/// Where nginx gets the page for a refusal: never 2xx, even if access was granted in the meantime.
const REFUSED_PATH: &str = "/verify/refused";

/// For one decision. Proxies wait longer, so they hear why.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// The service behind `forward_auth_address`.
#[derive(Debug)]
pub(crate) struct ForwardAuth {
    proxy: Arc<Proxy>,
    services: Services,
}

impl ForwardAuth {
    pub(crate) fn new(proxy: Arc<Proxy>, services: Services) -> Self {
        Self { proxy, services }
    }

    /// By the configuration as it is now: who is taken off the list is a stranger with the next question.
    fn trusts(&self, peer: IpAddr) -> bool {
        let settings = self.proxy.settings();
        let door = settings.forward_auth.as_ref();
        door.is_some_and(|door| door.trusted_peers.iter().any(|network| network.contains(&peer)))
    }

    async fn verify(&self, dialect: Dialect, request: Request<Incoming>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let (parts, connection) = match carried(dialect, parts) {
            Ok(carried) => carried,
            Err(error) => return not_said(&error),
        };
        match self.proxy.verify(&parts, &connection).await {
            Verified::Allowed(changes) => allowed(changes, &parts),
            Verified::Refused(response) => response,
            Verified::Own => plain(
                StatusCode::FORBIDDEN,
                "This path is the gateway's own: have the proxy in front send it to forward_auth_address.\n",
            ),
        }
    }

    /// The gateway's own pages on the hosts of the asking proxy, such as the end of a sign-in.
    async fn own(&self, request: Request<Incoming>) -> Response<Body> {
        if self.services == Services::Authorize {
            return plain(
                StatusCode::NOT_FOUND,
                "This process decides only: its pages are at the gateway.\n",
            );
        }
        let (mut parts, incoming) = request.into_parts();
        let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(path_and_query) = HeaderValue::from_str(path_and_query) else {
            return plain(StatusCode::BAD_REQUEST, "This path cannot be read.\n");
        };
        parts.headers.insert(asserted::FORWARDED_URI, path_and_query);
        if let Ok(method) = HeaderValue::from_str(parts.method.as_str()) {
            parts.headers.insert(asserted::FORWARDED_METHOD, method);
        }
        match carried(Dialect::Forwarded, parts) {
            Ok((parts, connection)) => {
                self.proxy.handle(Request::from_parts(parts, body::boxed(incoming)), &connection).await
            }
            Err(error) => not_said(&error),
        }
    }
}

impl Answers for ForwardAuth {
    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Response<Body> {
        if !self.trusts(caller.peer.ip()) {
            tracing::debug!(peer = %caller.peer, "a stranger at the door for forward auth");
            return plain(
                StatusCode::FORBIDDEN,
                "This address may not ask here: it is not among forward_auth_trusted_peers.\n",
            );
        }
        let answering = async {
            match request.uri().path() {
                VERIFY_PATH => self.verify(Dialect::Forwarded, request).await,
                VERIFY_NGINX_PATH => for_nginx(self.verify(Dialect::Original, request).await),
                REFUSED_PATH => refused(self.verify(Dialect::Forwarded, request).await),
                path if is_own(path) => self.own(request).await,
                _ => plain(StatusCode::NOT_FOUND, "Ask at /verify, or at /verify/nginx.\n"),
            }
        };
        let answered = tokio::time::timeout(DECISION_TIMEOUT, Box::pin(answering)).await;
        answered.unwrap_or_else(|_| plain(StatusCode::SERVICE_UNAVAILABLE, "The decision took too long.\n"))
    }
}

fn is_own(path: &str) -> bool {
    let inside = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    inside("/.pomerium") || path == "/.well-known/pomerium" || inside("/.well-known/pomerium")
}

/// The request that the asking proxy carries, and the connection that it came to that proxy on.
fn carried(dialect: Dialect, parts: Parts) -> Result<(Parts, Connection), AssertionError> {
    let said = asserted::read(dialect, &parts.headers)?;
    let mut parts = parts;
    asserted::remove(&mut parts.headers);
    parts.headers.insert(header::HOST, said.host);
    parts.method = said.method;
    parts.uri = said.uri;
    // Ports are not asserted, and nobody decides by them.
    let connection = Connection {
        peer: (said.client, 0).into(),
        server_name: None,
        protocol: "forward-auth",
        proven: None,
        roaming: None,
    };
    Ok((parts, connection))
}

/// The changes as the headers of an answer, from where the asking proxy copies them. Those that carry a credential of the
/// gateway are there as the app should see them, so that copying them takes the credential out.
fn allowed(changes: HeaderChanges, parts: &Parts) -> Response<Body> {
    let mut response = Response::new(body::empty());
    let HeaderChanges { set, remove } = changes;
    let headers = response.headers_mut();
    for name in [header::COOKIE, header::AUTHORIZATION] {
        if !remove.contains(&name)
            && let Some(value) = parts.headers.get(&name)
        {
            headers.insert(name, value.clone());
        }
    }
    headers.extend(set);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The same answer in the statuses that `auth_request` knows. A redirect keeps its `Location` and cookie on the 401.
fn for_nginx(mut response: Response<Body>) -> Response<Body> {
    let status = response.status();
    *response.status_mut() = match status {
        _ if status.is_redirection() => StatusCode::UNAUTHORIZED,
        StatusCode::UNAUTHORIZED => status,
        _ if status.is_client_error() => StatusCode::FORBIDDEN,
        _ => status,
    };
    response
}

fn refused(response: Response<Body>) -> Response<Body> {
    if response.status().is_success() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "Access was granted just now. Try again.\n");
    }
    response
}

fn not_said(error: &AssertionError) -> Response<Body> {
    match error {
        // No client can bring this about: it is the proxy's configuration.
        AssertionError::Missing(_) => {
            tracing::warn!(%error, "a proxy in front does not say what it asks about");
        }
        AssertionError::Doubled(_) | AssertionError::Malformed(_) | AssertionError::NotHttps => {
            tracing::debug!(%error, "a question that cannot be understood");
        }
    }
    plain(StatusCode::BAD_REQUEST, format!("Check the configuration of the proxy in front: {error}.\n"))
}

fn plain(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
