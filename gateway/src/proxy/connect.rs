//! TCP streams: `CONNECT` in, a dialled app behind, bytes both ways until one typed reason ends it.

use std::{sync::Arc, time::Duration};

use http::{Response, request::Parts};
use pomerium_shared::{
    clock::Now,
    destination::Destination,
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
};
use tokio::net::TcpStream;

use super::{
    Connection, Live, Proxy, Refusal,
    authority::Authority,
    gate::{Admitted, refuse_authority},
    respond::Audience,
    upstream::CONNECT_TIMEOUT,
    watch::Watch,
};
use crate::{
    authorize::Permit,
    body::Body,
    config::{Route, Target},
};

/// A stream that policy allowed and whose app accepted: answer 200, then [`Proxy::carry`] it.
#[derive(Debug)]
pub(crate) struct OpenStream {
    app: Leg,
    route: Arc<Route>,
    watch: Watch,
    user: String,
    to: Destination,
    connection: Connection,
    pub(crate) request_id: String,
    began: Now,
}

impl Proxy {
    /// Decides on a `CONNECT` and dials the app. The answer to a refusal is ready to send.
    pub(crate) async fn open_stream(
        &self,
        parts: &Parts,
        connection: &Connection,
    ) -> Result<OpenStream, Response<Body>> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let host = parts.uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let live = self.live.load_full();
        match Box::pin(self.try_open(&live, parts, connection, &request_id)).await {
            Ok(stream) => Ok(stream),
            Err(refusal) => {
                tracing::info!(
                    "request-id" = request_id,
                    authority = host,
                    ip = %connection.peer.ip(),
                    protocol = connection.protocol,
                    "response-code" = refusal.status().as_u16(),
                    "stream refused"
                );
                let audience = Audience { request_id: &request_id, host: &host, wants_html: false };
                let mut response = refusal.into_response(audience);
                if let Ok(value) = http::HeaderValue::from_str(&request_id) {
                    response.headers_mut().insert("x-request-id", value);
                }
                Err(response)
            }
        }
    }

    async fn try_open(
        &self,
        live: &Live,
        parts: &Parts,
        connection: &Connection,
        request_id: &str,
    ) -> Result<OpenStream, Refusal> {
        let began = Now::read();
        // The authority of a tunnel is the app, not the gateway: it is not held against the TLS name.
        Authority::of(&parts.uri, &parts.headers, None).map_err(refuse_authority)?;
        let to: Destination = parts
            .uri
            .authority()
            .map_or("", |authority| authority.as_str())
            .parse()
            .map_err(|error| Refusal::BadRequest(format!("CONNECT names no destination: {error}")))?;
        let Admitted { permit, route, session, question } =
            self.admit_stream(live, &to, parts, connection, request_id).await?;
        let app = dial(permit, &route).await?;
        tracing::info!("request-id" = request_id, route = route.name, destination = %to, "stream opened");
        Ok(OpenStream {
            app,
            route,
            user: session.as_ref().map(|s| s.user_id.to_string()).unwrap_or_default(),
            watch: self.watch(question, session.map(|s| s.id), request_id),
            to,
            connection: connection.clone(),
            request_id: request_id.to_owned(),
            began,
        })
    }

    /// Carries an open stream until it ends, and logs why it did.
    pub(crate) async fn carry(&self, stream: OpenStream, client: Leg) {
        let OpenStream { app, route, watch, user, to, connection, request_id, began } = stream;
        let timeouts = self.live.load().settings.timeouts;
        let options = RelayOptions { idle: route.idle_timeout };
        let cut = async {
            tokio::select! {
                biased;
                reason = watch.revoked() => reason,
                () = lapse(timeouts.write) => EndReason::Idle,
            }
        };
        let end = relay::run(client, app, options, cut).await;
        let duration = Now::read().monotonic.duration_since(began.monotonic);
        tracing::info!(
            "request-id" = request_id,
            route = route.name,
            destination = %to,
            user,
            ip = %connection.peer.ip(),
            protocol = connection.protocol,
            reason = end.reason.as_str(),
            "bytes-from-client" = end.bytes_from_client,
            "bytes-from-app" = end.bytes_from_app,
            "duration" = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "stream ended"
        );
    }
}

/// Resolves after `limit`; never, where there is none.
async fn lapse(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Connects to the app of a route. Takes the permit: nothing is dialled that policy did not allow.
async fn dial(_permit: Permit, route: &Route) -> Result<Leg, Refusal> {
    let Target::Tcp(app) = &route.target else {
        return Err(Refusal::Gateway(format!("The route {} has no TCP target.", route.name)));
    };
    let unreachable = |status, what: &str| Refusal::App {
        status,
        detail: format!("The app behind the route {} {what}. Ask who runs it whether it is up.", route.name),
    };
    let connecting = TcpStream::connect((app.host(), app.port()));
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
