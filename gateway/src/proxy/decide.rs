//! Decides for the proxy of another process: the other end of `decider.rs`.
//!
//! The asking process has checked host, path and credential, and is believed in that: it holds `shared_secret`, with which it
//! could make any session. Route, session and device are found here anew, from this process's configuration and storage.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pomerium_shared::clock::Now;
use rustls_pki_types::CertificateDer;

use super::{
    Connection, Live, ProvenKey, Proxy,
    caller::Caller,
    decider::Asked,
    peer,
    question::{Question, Unrouted},
};
use crate::{
    authorize::{self, Verdict},
    remote_authorize::messages::{DecideRequest, DecideResponse},
    session::{Session, SessionId},
    store::StoreError,
};

/// Why a question is not decided. Every one is a deny at the asking side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecided {
    /// Something that a proxy of ours does not send.
    #[error("the field {0} cannot be read")]
    Malformed(&'static str),
    /// The two configurations differ.
    #[error("this process finds another route for it, or none: do both have the same routes?")]
    OtherRoute,
    /// The asking process has another policy, by which they do not matter.
    #[error("the path has parameters (;...), without which this process would judge it otherwise")]
    Parameters,
    /// It has ended a moment ago, or the two processes have different storages.
    #[error("this process finds no such session: do both have the same storage?")]
    NoSession,
    /// The storage does not answer.
    #[error("the session store does not answer")]
    Store(#[from] StoreError),
}

impl Proxy {
    /// Decides with the policy of this process, whoever decides for its own requests.
    pub(crate) async fn decide(&self, asked: DecideRequest) -> Result<DecideResponse, Undecided> {
        let now = Now::read();
        let live = self.live.load_full();
        let question = question(&asked)?;
        let route = match question.route(&live.router) {
            Ok(route) if route.id == asked.route_id => route,
            Err(Unrouted::Parameters) => return Err(Undecided::Parameters),
            Ok(_) | Err(Unrouted::Nowhere) => return Err(Undecided::OtherRoute),
        };
        let session = self.session_named(&live, &asked, now).await?;
        let caller = Caller::of_session(session, &self.store, now).await?;
        let is_again = asked.is_again;
        let asked = Asked { route, caller: &caller, question: &question, request_id: &asked.request_id };
        Ok(asked.here(&live, now, |check| {
            let (decision, traces, remedies) = if is_again {
                let decision = authorize::check_again(&route.policy, check, asked.log());
                (decision, Vec::new(), Vec::new())
            } else {
                match authorize::check(&route.policy, check, asked.log()) {
                    Ok(permit) => (*permit.decision(), Vec::new(), Vec::new()),
                    Err(denial) => (denial.decision, denial.traces, denial.remedies.into()),
                }
            };
            let edge = asked.next_edge(check, now).filter(|_| decision.verdict() == Verdict::Allow);
            // An edge that is behind us is one that has come.
            let turns_in = edge.map(|edge| edge.duration_since(now.wall).unwrap_or_default());
            DecideResponse {
                request_id: asked.request_id.to_owned(),
                route_id: route.id.clone(),
                allow: Some(decision.allow.into()),
                deny: Some(decision.deny.into()),
                traces,
                remedies,
                turns_in_ms: turns_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            }
        }))
    }

    /// The session as it is now. The asking process has just seen it: one that is not here is no stranger's request.
    async fn session_named(
        &self,
        live: &Live,
        asked: &DecideRequest,
        now: Now,
    ) -> Result<Option<Arc<Session>>, Undecided> {
        let Some(id) = &asked.session_id else { return Ok(None) };
        let found = self.store.session(&SessionId::new(id)).await?;
        found
            .map(|session| if asked.is_of_peer { live.behind_peer(session) } else { session })
            .filter(|session| live.authenticate.stands_by(session, now.wall))
            .ok_or(Undecided::NoSession)
            .map(Some)
    }
}

/// Reads the question; nothing is guessed.
fn question(asked: &DecideRequest) -> Result<Question, Undecided> {
    let client: IpAddr = asked.client_ip.parse().map_err(|_| Undecided::Malformed("client_ip"))?;
    let chain: Vec<CertificateDer<'_>> =
        asked.certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let connection = Connection {
        peer: SocketAddr::new(client, 0),
        server_name: None,
        protocol: if asked.is_of_peer { peer::PROTOCOL } else { "decide" },
        proven: ProvenKey::of(&chain).map(Arc::new),
        roaming: None,
    };
    let subject = asked.subject.as_ref().ok_or(Undecided::Malformed("subject"))?;
    Question::of_wire(subject, connection).ok_or(Undecided::Malformed("subject"))
}
