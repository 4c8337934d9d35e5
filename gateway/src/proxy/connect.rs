//! TCP streams: `CONNECT` in, a dialled app behind, bytes both ways until one typed reason ends it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Response, request::Parts};
use pomerium_shared::{
    clock::Now,
    destination::Destination,
    reason::EndReason,
    relay::{self, Leg, RelayEnd, RelayOptions},
    resume::{self, End, Wish},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    Connection, Proxy, Refusal,
    authority::Authority,
    gate::{Admitted, refuse_authority},
    proxy_protocol,
    question::Question,
    respond::{Audience, Form},
    resume::{Again, Named, Owner},
    upstream::CONNECT_TIMEOUT,
    watch::Watch,
};
use crate::{
    authorize::Permit,
    body::Body,
    config::{Route, Target},
};

/// A stream or flow that policy allowed and whose app was reached: answer 200, then [`Proxy::carry`] it.
#[derive(Debug)]
pub(crate) struct Open<A> {
    pub(super) app: A,
    pub(super) watch: Watch,
    pub(super) account: Account,
    pub(crate) request_id: String,
}

/// A TCP stream that policy allowed: answer 200 with [`Stream::head`], then [`Proxy::carry`] it.
#[derive(Debug)]
pub(crate) enum Stream {
    /// One that ends with its connection.
    Plain(Box<Open<Leg>>),
    /// One that its client may ask for again.
    Resumable(Box<(Open<Leg>, Named, End)>),
    /// One that its client has asked for again.
    Again(Box<Again>),
}

impl Stream {
    /// What the answer says of it.
    pub(crate) fn head(&self, headers: &mut HeaderMap) {
        let (request_id, offer) = match self {
            Self::Plain(open) => (open.request_id.as_str(), None),
            Self::Resumable(begun) => (begun.0.request_id.as_str(), Some(begun.1.offer())),
            Self::Again(again) => (again.request_id(), None),
        };
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert("x-request-id", value);
        }
        if let Some(Ok(mut value)) = offer.map(|offer| HeaderValue::from_str(&offer.to_string())) {
            value.set_sensitive(true);
            headers.insert(resume::FIELD, value);
        }
    }
}

/// What the last line of the log says of it, beside how it ended.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) route: Arc<Route>,
    user: String,
    to: Destination,
    connection: Connection,
    began: Now,
    /// How often its client came back to it.
    resumed: Arc<AtomicU32>,
}

impl Proxy {
    /// Decides on a `CONNECT` and dials the app. The answer to a refusal is ready to send.
    pub(crate) async fn open_stream(
        &self,
        parts: &Parts,
        connection: &Connection,
    ) -> Result<Stream, Response<Body>> {
        let request_id = super::new_request_id();
        let opened = async {
            let wish = resume_wish(&parts.headers)?;
            // The authority of a tunnel is the app, not the gateway: it is not held against the TLS name.
            Authority::of(&parts.uri, &parts.headers, None).map_err(refuse_authority)?;
            let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
            let to: Destination = authority
                .parse()
                .map_err(|error| Refusal::BadRequest(format!("CONNECT names no destination: {error}")))?;
            let question = Question::stream(to.clone(), connection);
            let live = self.live.load_full();
            let admitted =
                Box::pin(self.admit_stream(&live, question, parts, connection, &request_id)).await?;
            let owner = Owner::of(admitted.session.as_deref(), connection, &to);
            if let Some(Wish::Again { name, received }) = wish {
                let Admitted { permit, session, question, .. } = admitted;
                let place = self.resumables.again(permit, name, owner.as_ref(), received)?;
                let watch = self.watch(question, session.map(|session| session.id.clone()), &request_id);
                return Ok(Stream::Again(Box::new(place.judged_by(watch, &request_id, connection))));
            }
            let dial = |permit, route| dial(permit, route, connection.address_now());
            let open = self.reach(admitted, to, connection, &request_id, dial).await?;
            let window = live.settings.stream_resume_window.filter(|_| wish == Some(Wish::New));
            let named = owner
                .zip(window)
                .and_then(|(owner, window)| self.resumables.name(owner, window, &request_id));
            Ok(match named {
                Some((named, end)) => Stream::Resumable(Box::new((open, named, end))),
                None => Stream::Plain(Box::new(open)),
            })
        };
        opened.await.map_err(|refusal| refused(refusal, parts, connection, &request_id))
    }

    /// The way from a question to an app that `dial` has reached.
    pub(super) async fn open<A, D: Future<Output = Result<A, Refusal>>>(
        &self,
        question: Question,
        to: Destination,
        parts: &Parts,
        connection: &Connection,
        request_id: &str,
        dial: impl FnOnce(Permit, Arc<Route>) -> D,
    ) -> Result<Open<A>, Refusal> {
        let live = self.live.load_full();
        let admitted = Box::pin(self.admit_stream(&live, question, parts, connection, request_id)).await?;
        self.reach(admitted, to, connection, request_id, dial).await
    }

    /// The way from a permit to an app that `dial` has reached.
    pub(super) async fn reach<A, D: Future<Output = Result<A, Refusal>>>(
        &self,
        admitted: Admitted,
        to: Destination,
        connection: &Connection,
        request_id: &str,
        dial: impl FnOnce(Permit, Arc<Route>) -> D,
    ) -> Result<Open<A>, Refusal> {
        let began = Now::read();
        let Admitted { permit, route, session, question } = admitted;
        let app = dial(permit, route.clone()).await?;
        tracing::info!("request-id" = request_id, route = route.name, destination = %to, "stream opened");
        let user = session.as_ref().map(|s| s.user_id.to_string()).unwrap_or_default();
        let watch = self.watch(question, session.map(|s| s.id.clone()), request_id);
        let account =
            Account { route, user, to, connection: connection.clone(), began, resumed: Arc::default() };
        Ok(Open { app, watch, account, request_id: request_id.to_owned() })
    }

    /// Carries a stream until it ends, and logs why it did. One that can be resumed may outlive the caller, whose `client`
    /// holds what must wait for it.
    pub(crate) async fn carry(self: &Arc<Self>, stream: Stream, client: Leg) {
        match stream {
            Stream::Plain(open) => {
                let Open { app, watch, account, request_id } = *open;
                let options = RelayOptions { idle: account.route.idle_timeout };
                let end = relay::run(client, app, options, self.cut_of(watch)).await;
                account.close(&request_id, end);
            }
            Stream::Resumable(begun) => {
                let proxy = Arc::clone(self);
                self.tracker.spawn(async move {
                    let (Open { app, watch, mut account, request_id }, named, end) = *begun;
                    account.resumed = named.resumed();
                    let options = RelayOptions { idle: account.route.idle_timeout };
                    let cut = proxy.cut_by(named.judged(watch));
                    let end = relay::run(end.to_client(client, named), app, options, cut).await;
                    account.close(&request_id, end);
                });
            }
            Stream::Again(again) => again.bring(client),
        }
    }

    /// Resolves when an open stream must end, with the reason.
    pub(super) async fn cut_of(&self, watch: Watch) -> EndReason {
        self.cut_by(Box::pin(watch.revoked())).await
    }

    async fn cut_by(&self, revoked: impl Future<Output = EndReason>) -> EndReason {
        let limit = self.live.load().settings.timeouts.write;
        tokio::select! {
            biased;
            reason = revoked => reason,
            () = lapse(limit) => EndReason::Idle,
        }
    }
}

impl Account {
    /// Writes the last line.
    pub(super) fn close(self, request_id: &str, end: RelayEnd) {
        let duration = Now::read().monotonic.duration_since(self.began.monotonic);
        tracing::info!(
            "request-id" = request_id,
            route = self.route.name,
            destination = %self.to,
            user = self.user,
            ip = %self.connection.peer.ip(),
            protocol = self.connection.protocol,
            reason = end.reason.as_str(),
            "bytes-from-client" = end.bytes_from_client,
            "bytes-from-app" = end.bytes_from_app,
            "resumed" = self.resumed.load(Ordering::Relaxed),
            "duration" = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "stream ended"
        );
    }
}

/// What a client wants of a stream beyond a connection; `None`: nothing.
fn resume_wish(headers: &HeaderMap) -> Result<Option<Wish>, Refusal> {
    let Some(value) = headers.get(resume::FIELD) else { return Ok(None) };
    let wish = value.to_str().ok().and_then(|text| text.parse().ok());
    wish.map(Some).ok_or_else(|| Refusal::BadRequest(resume::BadField.to_string()))
}

/// Logs a refusal and makes its answer.
pub(super) fn refused(
    refusal: Refusal,
    parts: &Parts,
    connection: &Connection,
    request_id: &str,
) -> Response<Body> {
    let host = parts.uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
    tracing::info!(
        "request-id" = request_id,
        authority = host,
        ip = %connection.peer.ip(),
        protocol = connection.protocol,
        "response-code" = refusal.status().as_u16(),
        "stream refused"
    );
    let audience = Audience { request_id, host: &host, form: Form::Document };
    let mut response = refusal.into_response(audience);
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

/// Resolves after `limit`; never, where there is none.
async fn lapse(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Connects to the app of a route. Takes the permit: nothing is dialled that policy did not allow.
pub(super) async fn dial(_permit: Permit, route: Arc<Route>, client: SocketAddr) -> Result<Leg, Refusal> {
    let Target::Tcp(app) = &route.target else {
        return Err(Refusal::Gateway(format!("The route {} has no TCP target.", route.name)));
    };
    let unreachable = |status, what: &str| Refusal::App {
        status,
        detail: format!("The app behind the route {} {what}. Ask who runs it whether it is up.", route.name),
    };
    let connecting = async {
        let mut stream = TcpStream::connect((app.host(), app.port())).await?;
        if let Some(version) = route.proxy_protocol {
            let header = proxy_protocol::header(version, client, stream.peer_addr()?)?;
            stream.write_all(&header).await?;
        }
        Ok::<_, io::Error>(stream)
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => {
            if let Err(error) = relay::keepalive(&stream) {
                tracing::debug!(%error, "no keepalive on the app's connection");
            }
            Ok(Leg::tcp(stream))
        }
        Ok(Err(error)) => {
            tracing::warn!(route = route.name, %error, "app unreachable");
            Err(unreachable(http::StatusCode::BAD_GATEWAY, "refused the connection"))
        }
        Err(_) => {
            tracing::warn!(route = route.name, "app does not answer");
            Err(unreachable(http::StatusCode::GATEWAY_TIMEOUT, "did not answer in time"))
        }
    }
}
