//! Connections and flows out of WireGuard tunnels: each put before policy with the session that the peer stands on, then carried
//! as any other stream.

use std::{net::SocketAddr, sync::Arc};

use http::StatusCode;
use pomerium_shared::{
    clock::Now,
    destination::Destination,
    names::{AddressBook, Host},
    netstack::{
        self,
        flows::{Opening, UdpFlow},
    },
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
    udp::{self, Local},
};
use tokio::{net::UdpSocket, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    Connection, Live, Proxy, Refusal, Roaming,
    caller::{Caller, store_failed},
    connect::{self, Open},
    flow,
    question::Question,
    watch::Watch,
};
use crate::{
    session::{Session, SessionId},
    store::{StoreError, VirtualAddressError},
    wireguard_peer::{AdmittedPeer, Networks, session_behind},
};

mod page;

/// The word for it in the log.
pub(crate) const PROTOCOL: &str = "wireguard";

/// Where refusals can be read: browsers try this port when somebody types a name.
const PAGE_PORT: u16 = 80;

/// Who opens a flow: the session that the peer stands on, and where the peer is.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    session: SessionId,
    connection: Connection,
    ended: CancellationToken,
}

impl Origin {
    /// `now_at` tells where the peer is whenever it is asked; once `ended`, it is no peer any more.
    pub(crate) fn new(
        session: SessionId,
        ended: CancellationToken,
        peer: SocketAddr,
        now_at: impl Fn() -> SocketAddr + Send + Sync + 'static,
    ) -> Self {
        let roaming = Some(Roaming(Arc::new(now_at)));
        let connection = Connection { peer, server_name: None, protocol: PROTOCOL, proven: None, roaming };
        Self { session, connection, ended }
    }
}

impl Live {
    /// A session as it counts for what comes out of a peer's tunnel.
    pub(super) fn behind_peer(&self, session: Arc<Session>) -> Arc<Session> {
        let grace = self.settings.wireguard.as_ref().map(|wireguard| wireguard.session_grace);
        Arc::new(session_behind(Arc::unwrap_or_clone(session), grace.unwrap_or_default()))
    }
}

impl Proxy {
    /// The peers that may come in now.
    pub(crate) async fn admitted_peers(&self, networks: &Networks) -> Result<Vec<AdmittedPeer>, StoreError> {
        let grace = self.live.load().settings.wireguard.as_ref().map(|wireguard| wireguard.session_grace);
        self.store.admitted_peers(networks, grace.unwrap_or_default(), Now::read().wall).await
    }

    /// Rises when sessions or peers have changed.
    pub(crate) fn session_changes(&self) -> watch::Receiver<u64> {
        self.store.changes()
    }

    /// Rises when the configuration has changed.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The addresses of all hosts that routes for streams and flows have now.
    pub(crate) async fn address_book(&self, networks: &Networks) -> Result<AddressBook, VirtualAddressError> {
        let live = self.live.load_full();
        let destinations = live.settings.routes.iter().flat_map(|route| route.from.destinations());
        // A route to a bare address has no name to be asked for.
        let mut hosts: Vec<Host> = destinations.filter_map(|to| to.host().parse().ok()).collect();
        hosts.sort();
        hosts.dedup();
        let gateway = networks.gateway();
        let reserved = [gateway.v4.into(), gateway.v6.into()];
        self.store.virtual_addresses(networks.routes(), &reserved, &hosts).await
    }

    /// The life of one connection: its SYN is answered when the app was reached.
    pub(crate) async fn serve_peer_connection(&self, opening: Opening, to: Destination, origin: &Origin) {
        let request_id = super::new_request_id();
        let question = Question::stream(to.clone(), &origin.connection);
        let client = origin.connection.address_now();
        let dial = |permit, route| connect::dial(permit, route, client);
        match Box::pin(self.open_of_peer(question, to.clone(), origin, &request_id, dial)).await {
            Ok(open) => {
                let Ok(stream) = opening.accept() else {
                    return tracing::debug!("the client left before its stream began");
                };
                let (reader, writer) = tokio::io::split(stream);
                let Open { app, watch, account, request_id } = open;
                let options = RelayOptions { idle: account.idle };
                let cut = self.cut_of_peer(watch, origin);
                let end = relay::run(Leg::io(reader, writer), app, options, cut).await;
                account.close(&request_id, end);
            }
            Err(refusal) => {
                note(&refusal, &to, origin, &request_id);
                let why = said_no(&refusal);
                if why == netstack::Refusal::Prohibited && to.port() == PAGE_PORT {
                    let look = self.live.load().settings.look.clone();
                    return page::serve(opening, refusal, to.host(), &request_id, &look).await;
                }
                opening.refuse(why);
            }
        }
    }

    /// The life of one flow of datagrams.
    pub(crate) async fn serve_peer_flow(&self, flow: UdpFlow, to: Destination, origin: &Origin) {
        let request_id = super::new_request_id();
        let question = Question::flow(to.clone(), &origin.connection);
        let opened = self.open_of_peer(question, to.clone(), origin, &request_id, flow::dial);
        match Box::pin(opened).await {
            Ok(Open { app, watch, account, request_id }) => {
                let app: UdpSocket = app;
                let options = RelayOptions { idle: account.idle };
                let (client, app) = (Local::Flow(flow), Local::Connected(app));
                let end = udp::between(client, app, options, self.cut_of_peer(watch, origin)).await;
                account.close(&request_id, end);
            }
            Err(refusal) => {
                note(&refusal, &to, origin, &request_id);
                flow.refuse(said_no(&refusal));
            }
        }
    }

    /// Resolves when an open stream or flow must end, with the reason.
    async fn cut_of_peer(&self, watch: Watch, origin: &Origin) -> EndReason {
        tokio::select! {
            biased;
            reason = self.cut_of(watch) => reason,
            () = origin.ended.cancelled() => EndReason::Session,
        }
    }

    async fn open_of_peer<A, D: Future<Output = Result<A, Refusal>>>(
        &self,
        question: Question,
        to: Destination,
        origin: &Origin,
        request_id: &str,
        dial: impl FnOnce(crate::authorize::Permit, Arc<crate::config::Route>) -> D,
    ) -> Result<Open<A>, Refusal> {
        let now = Now::read();
        let live = self.live.load_full();
        let found = self.store.session(&origin.session).await.map_err(|error| store_failed(&error))?;
        let session = found
            .map(|session| live.behind_peer(session))
            .filter(|session| live.authenticate.stands_by(session, now.wall));
        let caller = Caller::of_session(session, &self.store, now).await;
        let caller = caller.map_err(|error| store_failed(&error))?;
        let admitted = live.admit_caller(question, caller, request_id, now).await?;
        self.reach(admitted, to, &origin.connection, request_id, dial).await
    }
}

/// How the peer hears that there is no connection: policy's no is another one than an app that is down.
fn said_no(refusal: &Refusal) -> netstack::Refusal {
    match refusal.status() {
        StatusCode::NOT_FOUND
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::INTERNAL_SERVER_ERROR => netstack::Refusal::Reset,
        _ => netstack::Refusal::Prohibited,
    }
}

fn note(refusal: &Refusal, to: &Destination, origin: &Origin, request_id: &str) {
    tracing::info!(
        "request-id" = request_id,
        authority = %to,
        ip = %origin.connection.ip_now(),
        protocol = PROTOCOL,
        "response-code" = refusal.status().as_u16(),
        "stream refused"
    );
}
