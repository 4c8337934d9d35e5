//! WebSockets (RFC 6455): after the app's 101 the two upgraded connections are spliced, under a live decision.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pomerium_shared::relay::{self, Leg, RelayOptions};
use tokio::sync::oneshot;
use tracing::Instrument as _;
use url::Origin;

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

/// A stream that a listener hands over itself once the answer is out, as on HTTP/3; travels with the request.
#[derive(Clone)]
pub(crate) struct LegToCome(Arc<Mutex<Option<oneshot::Receiver<Leg>>>>);

/// The listener's end of a [`LegToCome`]. Dropped, there is no such stream.
pub(crate) struct Opened(oneshot::Sender<Leg>);

impl LegToCome {
    pub(crate) fn new() -> (Opened, Self) {
        let (opened, to_come) = oneshot::channel();
        (Opened(opened), Self(Arc::new(Mutex::new(Some(to_come)))))
    }

    /// Waits for the stream; `None`: the client left, or somebody else waits already.
    async fn come(self) -> Option<Leg> {
        let to_come = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        to_come?.await.ok()
    }
}

impl Opened {
    /// Hands the stream over. Nobody may be left to take it: it is cut then.
    pub(crate) fn with(self, leg: Leg) {
        _ = self.0.send(leg);
    }
}

/// The client's side of a request that may leave HTTP.
pub(super) struct ClientSide {
    switch: Switch,
    kept: Option<KeptOpen>,
}

/// Who takes the client's connection or stream out of HTTP.
enum Switch {
    Hyper(OnUpgrade),
    Listener(LegToCome),
}

impl ClientSide {
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let kept = request.extensions_mut().remove();
        let switch = match request.extensions_mut().remove() {
            Some(to_come) => Switch::Listener(to_come),
            None => Switch::Hyper(hyper::upgrade::on(request)),
        };
        Self { switch, kept }
    }
}

impl Switch {
    async fn leg(self) -> Option<Leg> {
        match self {
            Self::Hyper(upgrade) => upgraded(upgrade).await,
            Self::Listener(to_come) => to_come.come().await,
        }
    }
}

async fn upgraded(upgrade: OnUpgrade) -> Option<Leg> {
    let (reader, writer) = tokio::io::split(TokioIo::new(upgrade.await.ok()?));
    Some(Leg::io(reader, writer))
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

/// Whether a page of `own` origin, one that the route names, or none at all (a program) asks: browsers let any page open a
/// WebSocket with the person's cookies, and the page may read it (RFC 6455, 10.2). Another host behind this gateway is
/// another app: cookies with `SameSite` go along from it as well, so that nothing else keeps the two apart.
pub(super) fn may_open(headers: &HeaderMap, own: &Authority, named: &[Origin]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin.to_str().is_ok_and(|origin| {
            let authority = origin.strip_prefix("https://").map(Authority::parse);
            authority.is_some_and(|asks| asks.is_ok_and(|asks| asks.to_host_port() == own.to_host_port()))
                || named.iter().any(|named| named.ascii_serialization() == origin)
        }),
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
            let ClientSide { switch, kept } = client;
            let _counted = (under_way, kept);
            let (Some(client), Some(app)) = tokio::join!(switch.leg(), upgraded(app)) else {
                return tracing::debug!("an upgrade was not completed");
            };
            let end = relay::run(client, app, options, watch.revoked()).await;
            tracing::info!(reason = end.reason.as_str(), "websocket ended");
        };
        self.tracker.spawn(task.instrument(span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(origins: &[&str], named: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        let named: Vec<Origin> =
            named.iter().map(|origin| url::Url::parse(origin).unwrap().origin()).collect();
        may_open(&headers, &Authority::parse("App.corp.example:443").unwrap(), &named)
    }

    #[test]
    fn a_page_of_another_origin_opens_no_websocket_unless_it_is_named() {
        for origins in [&[][..], &["https://app.corp.example"], &["https://App.Corp.Example:443"]] {
            assert!(is_let_in(origins, &[]), "{origins:?}");
        }
        for origins in [
            &["https://evil.example"][..],
            &["https://wiki.corp.example"],
            &["https://app.corp.example:8443"],
            &["null"],
            &["http://app.corp.example"],
            &["https://app.corp.example.evil.example"],
            &["https://app.corp.example", "https://evil.example"],
        ] {
            assert!(!is_let_in(origins, &["https://portal.corp.example:8443/"]), "{origins:?}");
        }
        assert!(is_let_in(&["https://portal.corp.example:8443"], &["https://portal.corp.example:8443/"]));
        assert!(is_let_in(&["http://localhost:3000"], &["http://localhost:3000"]));
        assert!(!is_let_in(&["https://portal.corp.example"], &["https://portal.corp.example:8443/"]));
    }
}
