//! WebSockets (RFC 6455): after the app's 101 the two upgraded connections are spliced, under a live decision.

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pomerium_shared::relay::{self, Leg, RelayOptions};
use tracing::Instrument as _;

use super::{Proxy, gate::Admitted};
use crate::body::Body;

/// Whether the client asks for a WebSocket on this HTTP/1.1 connection.
pub(super) fn is_websocket(request: &Request<Body>) -> bool {
    let has = |name, word: &str| {
        request
            .headers()
            .get_all(name)
            .iter()
            .filter_map(|v| HeaderValue::to_str(v).ok())
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// Asks the app for a WebSocket; hop-by-hop headers have been stripped before.
pub(super) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

impl Proxy {
    /// Joins the two sides once both have switched; ends when either does, or when the decision changes.
    pub(super) fn splice_upgrade(
        &self,
        client: OnUpgrade,
        app: OnUpgrade,
        admitted: &Admitted,
        request_id: &str,
    ) {
        let options = RelayOptions { idle: admitted.route.idle_timeout };
        let watch = self.watch(admitted.question.clone(), admitted.session.as_ref().map(|s| s.id.clone()));
        let span = tracing::info_span!("websocket", "request-id" = request_id);
        let task = async move {
            let (Ok(client), Ok(app)) = tokio::join!(client, app) else {
                return tracing::debug!("an upgrade was not completed");
            };
            let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
            let (app_read, app_write) = tokio::io::split(TokioIo::new(app));
            let (client, app) = (Leg::io(client_read, client_write), Leg::io(app_read, app_write));
            let end = relay::run(client, app, options, watch.revoked()).await;
            tracing::info!(reason = end.reason.as_str(), "websocket ended");
        };
        self.tracker.spawn(task.instrument(span));
    }
}
