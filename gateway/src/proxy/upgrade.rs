//! WebSockets (RFC 6455): after the app's 101 the two upgraded connections are spliced, under a live decision.

use std::{any::Any, sync::Arc};

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pomerium_shared::relay::{self, Leg, RelayOptions};
use tracing::Instrument as _;

use super::{Proxy, attempt::UnderWay, authority::Authority, gate::Admitted};
use crate::body::Body;

/// What a listener wants to have kept for as long as a connection that left HTTP is open; travels with the request.
#[derive(Clone)]
pub(crate) struct KeptOpen(
    #[expect(dead_code, reason = "dropped at the end, and no more")] Arc<dyn Any + Send + Sync>,
);

impl KeptOpen {
    pub(crate) fn new(kept: impl Any + Send + Sync) -> Self {
        Self(Arc::new(kept))
    }
}

/// The client's side of a request that may leave HTTP.
pub(super) struct ClientSide {
    upgrade: OnUpgrade,
    kept: Option<KeptOpen>,
}

impl ClientSide {
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let kept = request.extensions_mut().remove();
        Self { upgrade: hyper::upgrade::on(request), kept }
    }
}

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

/// Whether a page of this site, or none at all (a program), asks: browsers let any page open a WebSocket with the person's
/// cookies, and the page may read it (RFC 6455, 10.2). Pages of all hosts behind this gateway may.
pub(super) fn is_from_here(headers: &HeaderMap, is_host_here: impl Fn(&Authority) -> bool) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("https://"))
            .and_then(|authority| Authority::parse(authority).ok())
            .is_some_and(|authority| is_host_here(&authority)),
        (Some(_), Some(_)) => false,
    }
}

/// Says in a request or its answer that a WebSocket begins; hop-by-hop headers have been stripped before.
pub(super) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

impl Proxy {
    /// Joins the two sides once both have switched; ends when either does, or when the decision changes.
    pub(super) fn splice_upgrade(
        &self,
        client: ClientSide,
        app: OnUpgrade,
        admitted: &Admitted,
        request_id: &str,
        under_way: UnderWay,
    ) {
        let options = RelayOptions { idle: admitted.route.idle_timeout };
        let watch = self.watch(
            admitted.question.clone(),
            admitted.session.as_ref().map(|s| s.id.clone()),
            request_id,
        );
        let span = tracing::info_span!("websocket", "request-id" = request_id);
        let task = async move {
            let ClientSide { upgrade, kept } = client;
            let _counted = (under_way, kept);
            let (Ok(client), Ok(app)) = tokio::join!(upgrade, app) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(origins: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        is_from_here(&headers, |authority| authority.host() == "app.corp.example")
    }

    #[test]
    fn a_page_of_another_site_opens_no_websocket() {
        assert!(is_let_in(&[]));
        assert!(is_let_in(&["https://app.corp.example"]));
        assert!(is_let_in(&["https://App.Corp.Example:8443"]));
        for origins in [
            &["https://evil.example"][..],
            &["null"],
            &["http://app.corp.example"],
            &["https://app.corp.example.evil.example"],
            &["https://app.corp.example", "https://evil.example"],
        ] {
            assert!(!is_let_in(origins), "{origins:?}");
        }
    }
}
