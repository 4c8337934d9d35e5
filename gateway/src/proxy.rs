//! Brings what is allowed to the app behind: HTTP requests and TCP streams, each put before policy.
//!
//! Here: which route, whose session, the permit, the headers that cross, the way to the app, and the answer when
//! there is none. Not here: sockets that listen (`listen`), how people sign in (`authenticate`), what policy means
//! (`authorize`).

mod account;
mod arrival;
mod assertion;
mod attempt;
pub(crate) mod authority;
mod caller;
mod client_certificate;
mod connect;
mod decide;
mod decider;
mod flow;
mod forward;
mod gate;
mod headers;
mod own;
mod patience;
pub(crate) mod peer;
mod proxy_protocol;
mod question;
mod respond;
mod resume;
pub(crate) mod router;
mod substitutes;
mod upgrade;
mod upstream;
mod verify;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use pomerium_shared::clock::Now;
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    assertion::Signer,
    decider::Decider,
    respond::{Audience, Form},
    resume::Resumables,
    upstream::Pool,
};
pub(crate) use self::{
    assertion::SignerError,
    client_certificate::ProvenKey,
    upgrade::{KeptOpen, LegToCome},
    upstream::UpstreamError,
    verify::{HeaderChanges, Verified},
};
pub use self::{
    authority::{Authority, AuthorityError},
    router::Router,
};
pub(crate) use self::{decide::Undecided, respond::Refusal};
pub use crate::path::{CanonicalPath, PathError};
use crate::{
    authenticate::Authenticate,
    body::{self, Body},
    config::{Services, Settings, Target},
    device::Thumbprint,
    per_address::{Connections, Place, Rate},
    portal::{self, Language},
    remote_authorize::TransportError,
    store::Store,
};

/// What the listener knows of the connection that a request came on.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// The other end.
    pub(crate) peer: SocketAddr,
    /// The server name of the TLS handshake, lower case.
    pub(crate) server_name: Option<String>,
    /// `h1`, `h2` or `h3`, for the log.
    pub(crate) protocol: &'static str,
    /// The key that the client proved to hold in the handshake, if it was asked and had one.
    pub(crate) proven: Option<Arc<ProvenKey>>,
    /// Where the other end is by now, if the connection may outlive a change of address (RFC 9000, 9).
    pub(crate) roaming: Option<Roaming>,
}

/// Tells where the other end of a connection is now.
#[derive(Clone)]
pub(crate) struct Roaming(pub(crate) Arc<dyn Fn() -> SocketAddr + Send + Sync>);

impl fmt::Debug for Roaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roaming").field(&(self.0)()).finish()
    }
}

impl Connection {
    /// The other end as it is now.
    pub(crate) fn address_now(&self) -> SocketAddr {
        self.roaming.as_ref().map_or(self.peer, |roaming| (roaming.0)())
    }

    /// The address of the other end as it is now.
    pub(crate) fn ip_now(&self) -> IpAddr {
        self.address_now().ip()
    }

    /// The name of the proven key.
    pub(crate) fn key(&self) -> Option<&Thumbprint> {
        self.proven.as_deref().map(|proven| &proven.thumbprint)
    }
}

/// One configuration at work: replaced whole by a reload, while what is under way keeps the one it began with.
#[derive(Debug)]
pub(crate) struct Live {
    settings: Arc<Settings>,
    router: Router,
    pools: HashMap<String, Arc<Pool>>,
    signer: Signer,
    decider: Decider,
    /// Of requests to the gateway itself.
    rate: Rate,
    authenticate: Arc<Authenticate>,
    /// Whether an authority stands for the certificates of any route's clients.
    has_client_authority: bool,
}

impl Live {
    /// Builds what `settings` describe.
    pub(crate) fn new(
        settings: Arc<Settings>,
        shared_secret: &[u8; 32],
        authenticate: Arc<Authenticate>,
    ) -> Result<Self, LiveError> {
        let mut pools = HashMap::new();
        let routes = if settings.services != Services::Authenticate { &settings.routes[..] } else { &[] };
        for route in routes {
            if let Target::Http(target) = &route.target {
                let pool = Pool::new(&route.name, target)
                    .map_err(|source| LiveError::Upstream { route: route.name.clone(), source })?;
                pools.insert(route.id.clone(), Arc::new(pool));
            }
        }
        let keys: Vec<&str> = settings.signing_keys.iter().map(|key| key.expose().as_str()).collect();
        let signer = Signer::new(
            &keys,
            shared_secret,
            settings.jwt_issuer_format,
            settings.jwt_claims_headers.clone(),
        )?;
        let decider = Decider::new(&settings, shared_secret)?;
        let router = Router::new(routes.to_vec());
        let rate = Rate::new(settings.per_address.sign_in_requests);
        let has_client_authority = !settings.client_authorities().is_empty();
        Ok(Self { settings, router, pools, signer, decider, rate, authenticate, has_client_authority })
    }

    /// Keeps what is known of the apps' health, route by route.
    fn take_over(&self, old: &Self) {
        for (id, pool) in &self.pools {
            if let Some(old) = old.pools.get(id) {
                pool.take_over(old);
            }
        }
    }

    /// A task a route that checks its apps, and one that ends idle connections; all end with the set.
    fn upkeep(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for pool in self.pools.values().filter(|pool| pool.is_checked()) {
            tasks.spawn(upstream::watch_over(pool.clone()));
        }
        let pools: Vec<_> = self.pools.values().cloned().collect();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TIDY_INTERVAL).await;
                pools.iter().for_each(|pool| pool.tidy(Now::read().monotonic));
            }
        });
        tasks
    }
}

/// Why a configuration cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    /// A route's TLS settings.
    #[error("route {route}")]
    Upstream {
        /// The route's name.
        route: String,
        /// What is wrong with it.
        #[source]
        source: UpstreamError,
    },
    /// The signing key.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The way to who decides.
    #[error(transparent)]
    Decider(#[from] TransportError),
}

/// Between two looks at the idle connections to apps.
const TIDY_INTERVAL: Duration = Duration::from_secs(15);

/// Counts reloads.
type Revision = tokio::sync::watch::Sender<u64>;

/// The proxy service.
#[derive(Debug)]
pub(crate) struct Proxy {
    live: Arc<ArcSwap<Live>>,
    /// Open streams are decided again on each.
    revision: Revision,
    store: Store,
    connections: Connections,
    /// Of the configuration at work alone: requests that began under an older one do without.
    upkeep: Mutex<JoinSet<()>>,
    /// Owns upgraded connections and streams.
    tracker: TaskTracker,
    resumables: Resumables,
    /// Ends what is still open when the time for draining is over.
    cut: CancellationToken,
    /// Whoever only listens is told when the gateway drains, and let go.
    listeners: own::Listeners,
}

impl Proxy {
    /// What is open waits in `tracker`; who may come back to it is not waited for once `closed` is cancelled.
    pub(crate) fn new(
        live: Live,
        store: Store,
        tracker: TaskTracker,
        drain: CancellationToken,
        cut: CancellationToken,
        closed: CancellationToken,
    ) -> Self {
        let upkeep = Mutex::new(live.upkeep());
        let live = Arc::new(ArcSwap::from_pointee(live));
        let (revision, connections) = (Revision::new(0), Connections::default());
        let (resumables, listeners) = (Resumables::new(closed), own::Listeners::new(drain));
        Self { live, revision, store, connections, upkeep, tracker, resumables, cut, listeners }
    }

    /// Puts a new configuration to work; open streams that it no longer allows are cut.
    pub(crate) fn replace(&self, live: Live) {
        live.take_over(&self.live.load());
        let upkeep = live.upkeep();
        // The old tasks end as their set is dropped.
        *self.upkeep.lock().unwrap_or_else(PoisonError::into_inner) = upkeep;
        self.live.store(Arc::new(live));
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// A place for one more connection from there, which counts until it is dropped; `None` if there are too many.
    pub(crate) fn place(&self, address: IpAddr) -> Option<Place> {
        self.connections.place(address, self.live.load().settings.per_address.connections.get())
    }

    /// Who signs people in, as configured now.
    pub(crate) fn authenticate(&self) -> Arc<Authenticate> {
        self.live.load().authenticate.clone()
    }

    /// The tasks of upgraded connections and streams.
    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Answers one request that is no `CONNECT`.
    pub(crate) fn handle<'a>(
        &'a self,
        request: Request<Body>,
        connection: &'a Connection,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>> {
        let language = Language::of(request.headers());
        Box::pin(portal::speaking(language, self.handle_unboxed(request, connection)))
    }

    async fn handle_unboxed(&self, request: Request<Body>, connection: &Connection) -> Response<Body> {
        let began = Now::read();
        let request_id = new_request_id();
        let live = self.live.load_full();
        let entry = AccessEntry::of(&request, connection, &request_id);
        let host = entry.authority.clone();
        let form = Form::wanted(request.headers(), &live.settings.look);
        let audience = Audience { request_id: &request_id, host: &host, form };
        let request = body::patience::over(request, live.settings.timeouts.read);
        let result = Box::pin(self.answer(&live, request, connection, &request_id)).await;
        let mut response = result.unwrap_or_else(|refusal| refusal.into_response(audience));
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-request-id", value);
        }
        demand_tls(&live.settings, &host, response.headers_mut());
        if live.has_client_authority && connection.protocol == "h3" {
            send_to_tcp(response.headers_mut());
        }
        entry.write(&response, began);
        response
    }
}

/// A name for one request or stream: random, so that nobody guesses another's. Without a call of the system for each, which
/// `Uuid::new_v4` makes.
fn new_request_id() -> String {
    let mut octets = [0; 16];
    // The system's randomness seeds the library once; a process that had none could not have shaken a hand.
    aws_lc_rs::rand::fill(&mut octets)
        .map_or_else(|_| uuid::Uuid::new_v4(), |()| uuid::Builder::from_random_bytes(octets).into_uuid())
        .to_string()
}

/// Tells browsers to come by TLS only (RFC 6797), as `set_response_headers` says for apps: also from the gateway's own
/// pages and its refusals, which may be the first that a browser ever sees of a host. Not from `localhost`, which is
/// every other program's name as well.
fn demand_tls(settings: &Settings, authority: &str, headers: &mut HeaderMap) {
    let name = header::STRICT_TRANSPORT_SECURITY;
    let is_shared = authority.split(':').next() == Some("localhost");
    let policy = settings.set_response_headers.iter().find(|(set, _)| *set == name).filter(|_| !is_shared);
    if let Some((_, policy)) = policy {
        headers.entry(name).or_insert_with(|| policy.clone());
    }
}

/// Over QUIC browsers show no certificate, and ask nobody for one: where one may be needed, they are to come over TCP, even
/// if they were told otherwise before (RFC 7838, 3).
fn send_to_tcp(headers: &mut HeaderMap) {
    headers.insert(header::ALT_SVC, HeaderValue::from_static("clear"));
}

/// The access log's view of a request: never the query.
struct AccessEntry {
    request_id: String,
    method: String,
    authority: String,
    path: String,
    user_agent: String,
    ip: String,
    protocol: &'static str,
}

impl AccessEntry {
    fn of(request: &Request<Body>, connection: &Connection, request_id: &str) -> Self {
        let header =
            |name| request.headers().get(name).and_then(|v| HeaderValue::to_str(v).ok()).unwrap_or("");
        let authority = request.uri().authority().map_or_else(|| header(header::HOST), |a| a.as_str());
        // As policy and app see it; what is refused for its path stands there as it came.
        let raw = request.uri().path();
        let path = CanonicalPath::parse(raw).map_or_else(|_| raw.to_owned(), |path| path.as_str().to_owned());
        Self {
            request_id: request_id.to_owned(),
            method: request.method().to_string(),
            authority: authority.to_owned(),
            path,
            user_agent: header(header::USER_AGENT).to_owned(),
            ip: connection.peer.ip().to_string(),
            protocol: connection.protocol,
        }
    }

    fn write(&self, response: &Response<Body>, began: Now) {
        let duration = Now::read().monotonic.duration_since(began.monotonic);
        tracing::info!(
            "request-id" = self.request_id,
            "method" = self.method,
            "authority" = self.authority,
            "path" = self.path,
            "user-agent" = self.user_agent,
            "ip" = self.ip,
            "protocol" = self.protocol,
            "response-code" = response.status().as_u16(),
            "duration" = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "http-request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_log_names_the_path_that_policy_and_app_see() {
        let connection = Connection {
            peer: ([127, 0, 0, 1], 1).into(),
            server_name: None,
            protocol: "h1",
            proven: None,
            roaming: None,
        };
        let path = |uri: &str| {
            let request = Request::get(uri).body(body::empty()).unwrap();
            AccessEntry::of(&request, &connection, "id").path
        };
        assert_eq!(path("/public/../%61dmin//x?secret"), "/admin/x");
        assert_eq!(path("/a%2fb"), "/a%2fb", "what is refused stands there as it came");
    }
}
