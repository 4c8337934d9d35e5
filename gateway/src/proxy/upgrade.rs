//! WebSockets (RFC 6455): after the app's 101 the two upgraded connections are spliced, under a live decision.

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pomerium_shared::{
    clock::Now,
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
};
use tracing::Instrument as _;

use super::{
    Connection, Proxy,
    gate::{Admitted, Whereto},
};
use crate::{
    authorize::{CheckRequest, Place, RequestFacts, Verdict},
    body::Body,
};

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
        whereto: &Whereto,
        connection: &Connection,
        request_id: &str,
    ) {
        let options = RelayOptions { idle: admitted.route.idle_timeout };
        let watch = UpgradeWatch {
            session: admitted.session.as_ref().map(|s| s.id.clone()),
            authority: whereto.authority.clone(),
            path: whereto.path.clone(),
            connection: connection.clone(),
        };
        let cut = self.cut.clone();
        let (mut revision, mut changes, live) =
            (self.revision.subscribe(), self.store.changes(), self.live_handle());
        let store = self.store.clone();
        let span = tracing::info_span!("websocket", "request-id" = request_id);
        let task = async move {
            let (Ok(client), Ok(app)) = tokio::join!(client, app) else {
                return tracing::debug!("an upgrade was not completed");
            };
            let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
            let (app_read, app_write) = tokio::io::split(TokioIo::new(app));
            let revoked = async {
                loop {
                    revision.mark_unchanged();
                    changes.mark_unchanged();
                    if let Some(reason) = watch.revoked(&live.load_full(), &store).await {
                        return reason;
                    }
                    tokio::select! {
                        _ = revision.changed() => {}
                        _ = changes.changed() => {}
                        () = tokio::time::sleep(super::connect::RECHECK_INTERVAL) => {}
                        () = cut.cancelled() => return EndReason::Shutdown,
                    }
                }
            };
            let (client, app) = (Leg::io(client_read, client_write), Leg::io(app_read, app_write));
            let end = relay::run(client, app, options, revoked).await;
            tracing::info!(reason = end.reason.as_str(), "websocket ended");
        };
        self.tracker.spawn(task.instrument(span));
    }
}

/// What the decision on an open WebSocket depends on.
struct UpgradeWatch {
    session: Option<crate::session::SessionId>,
    authority: super::authority::Authority,
    path: super::path::CanonicalPath,
    connection: Connection,
}

impl UpgradeWatch {
    /// Why the WebSocket may no longer live; `None` while it may.
    async fn revoked(&self, live: &super::Live, store: &crate::store::Store) -> Option<EndReason> {
        let now = Now::read();
        let session = match &self.session {
            None => None,
            Some(id) => match store.session(id).await {
                Ok(Some(session)) if session.is_valid_at(now.wall) => Some(session),
                Ok(_) | Err(_) => return Some(EndReason::Session),
            },
        };
        let Some(route) = live.router.http(&self.authority, &self.path) else {
            return Some(EndReason::Policy);
        };
        let request = RequestFacts {
            method: "GET",
            host: self.authority.host(),
            path: self.path.as_str(),
            source_ip: self.connection.peer.ip(),
            is_cors_preflight: false,
            certificate: None,
            place: Place::default(),
        };
        match route
            .policy
            .evaluate(&CheckRequest { session: session.as_ref(), request, device: None, now })
            .verdict()
        {
            Verdict::Allow => None,
            Verdict::SignIn => Some(EndReason::Session),
            Verdict::Deny { .. } => Some(EndReason::Policy),
        }
    }
}
