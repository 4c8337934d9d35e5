//! TCP streams: `CONNECT` in, a dialled app behind, bytes both ways until one typed reason ends it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response, request::Parts};
use pomerium_shared::{
    clock::Now,
    destination::Destination,
    reason::EndReason,
    relay::{self, Leg, Outcome, RelayEnd, RelayOptions},
    resume::{self, Attach as _, End, Wish},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::task::TaskTracker;

use super::{
    Connection, Proxy, Refusal,
    account::Account,
    authority::Authority,
    gate::{Admitted, refuse_authority},
    proxy_protocol,
    question::Question,
    respond::{Audience, Form},
    resume::{Again, Named, Owner, TakenOver},
    upstream::CONNECT_TIMEOUT,
    watch::Watch,
};
use crate::{
    authorize::Permit,
    body::Body,
    config::{Route, Target},
    fd_store::{Parcel, Wrapped},
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
    /// Whether it may outlive its connection.
    pub(crate) const fn can_be_resumed(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

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
        let account = Account::new(&route, user, to, connection, began);
        Ok(Open { app, watch, account, request_id: request_id.to_owned() })
    }

    /// Carries a stream until it ends, and logs why it did. One that can be resumed may outlive the caller, whose `client`
    /// holds what must wait for it.
    pub(crate) async fn carry(self: &Arc<Self>, stream: Stream, client: Leg) {
        match stream {
            Stream::Plain(open) => {
                let Open { app, watch, account, request_id } = *open;
                let options = RelayOptions { idle: account.idle };
                let end = relay::run(client, app, options, self.cut_of(watch)).await;
                account.close(&request_id, end);
            }
            Stream::Resumable(begun) => {
                let proxy = Arc::clone(self);
                self.resumables.tracker().spawn(async move {
                    let (Open { app, watch, account, .. }, named, end) = *begun;
                    proxy.carry_named(named, watch, account, app, |named| end.to_client(client, named)).await;
                });
            }
            Stream::Again(again) => again.bring(client),
        }
    }

    /// Goes on with the streams that the process before this one has left, as soon as their clients are back.
    pub(crate) fn take_over(self: &Arc<Self>, parcels: Vec<Parcel>) {
        for parcel in parcels {
            match self.resumables.take_over(parcel, Now::read()) {
                Ok(stream) => {
                    let proxy = Arc::clone(self);
                    self.resumables.tracker().spawn(async move { proxy.go_on(stream).await });
                }
                Err(error) => tracing::warn!(%error, "a stream of the process before is not gone on with"),
            }
        }
    }

    /// Nothing flows before policy has allowed it anew.
    async fn go_on(&self, stream: TakenOver) {
        let TakenOver { mut named, end, app, account } = stream;
        let label = named.label();
        let back = tokio::select! {
            biased;
            () = self.resumables.leave_is_due() => {
                return self.resumables.leave(&label, &account, &end.suspend(), app);
            }
            () = self.cut.cancelled() => Err(EndReason::Shutdown),
            back = tokio::time::timeout(named.window(), named.next(0)) => {
                back.unwrap_or(Err(EndReason::ResumeFailed))
            }
        };
        match back.and_then(|attached| Ok((attached, named.newest_watch().ok_or(EndReason::Policy)?))) {
            Ok((attached, watch)) => {
                let to_client = |named| end.back_to_client(attached, named);
                self.carry_named(named, watch, account, Leg::tcp(app), to_client).await;
            }
            Err(reason) => {
                Leg::tcp(app).abort(reason);
                account
                    .close(&label.request_id, RelayEnd { reason, bytes_from_client: 0, bytes_from_app: 0 });
            }
        }
    }

    async fn carry_named(
        &self,
        named: Named,
        watch: Watch,
        account: Account,
        app: Leg,
        to_client: impl FnOnce(Named) -> Leg,
    ) {
        let (label, account) = (named.label(), account.counting(named.resumed()));
        let options = RelayOptions { idle: account.idle };
        let cut = self.cut_by(named.judged(watch));
        let leave = self.resumables.leave_is_due();
        match relay::run_or_leave(to_client(named), app, options, cut, leave).await {
            Outcome::Ended(end) => account.close(&label.request_id, end),
            Outcome::Left(left) => self.resumables.leave(&label, &account, &left.stream, left.app),
        }
    }

    /// Streams that can be resumed: they go on for as long as this holds any.
    pub(crate) fn resumable_streams(&self) -> &TaskTracker {
        self.resumables.tracker()
    }

    /// Has the streams that can be resumed left to the next process, and gives what they left within the limit.
    pub(crate) async fn leave_streams(&self, limit: Duration) -> Vec<Wrapped> {
        self.resumables.leave_all(limit).await
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
