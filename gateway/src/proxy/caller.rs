//! Who asks, and on what: everything that a decision needs beside the question itself.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Uri};
use pomerium_shared::clock::Now;

use super::{Connection, Live, Proxy, Refusal, respond::WayIn};
use crate::{
    authenticate::{InvalidCredential, Resolved},
    authorize::{CheckRequest, RequestFacts},
    device::Device,
    session::{Session, credentials::CredentialSource, demand::SignInDemand},
    store::{Store, StoreError},
};

/// The one who asks, as far as it is known now.
#[derive(Debug)]
pub(super) struct Caller {
    /// The valid session; `None` when there is none.
    pub(super) session: Option<Arc<Session>>,
    /// The device that the session is bound to, or that its browser has proved to be.
    pub(super) device: Option<Device>,
    /// Why the credential that the request carried is worth nothing.
    pub(super) rejected: Option<InvalidCredential>,
}

impl Caller {
    /// Somebody with this session, on its device as the store has it now.
    pub(super) async fn of_session(
        session: Option<Arc<Session>>,
        store: &Store,
        now: Now,
    ) -> Result<Self, StoreError> {
        let device = match &session {
            Some(session) => store.device_of(session, now.wall).await?,
            None => None,
        };
        Ok(Self { session, device, rejected: None })
    }

    /// A session for which its provider has not vouched for longer than `grace` counts as none.
    pub(super) fn must_be_vouched_for(&mut self, grace: Duration, now: Now) {
        let end = self.session.as_ref().and_then(|session| session.unvouched_at(grace));
        if end.is_some_and(|end| end <= now.wall) {
            self.session = None;
            self.device = None;
            self.rejected = Some(InvalidCredential::Unvouched);
        }
    }

    /// A session that falls short of what the route asks of the sign-in counts as none there; returns what is asked.
    pub(super) fn must_meet<'a>(&mut self, demand: &'a SignInDemand, now: Now) -> Option<&'a SignInDemand> {
        let session = self.session.as_ref()?;
        demand.check(session, now.wall).err()?;
        self.session = None;
        self.device = None;
        Some(demand)
    }

    /// When it is no longer known what device this is: the proof has run out.
    pub(super) fn proof_ends(&self, now: Now) -> Option<SystemTime> {
        let proof = self.session.as_ref()?.proof_at(now.wall)?;
        Some(proof.expires_at)
    }

    /// The question as policy takes it.
    pub(super) fn asks<'a>(
        &'a self,
        live: &'a Live,
        request: RequestFacts<'a>,
        now: Now,
    ) -> CheckRequest<'a> {
        let place = live.settings.geography.place(request.source_ip);
        CheckRequest {
            session: self.session.as_deref(),
            request: RequestFacts { place, ..request },
            device: self.device.as_ref(),
            records: live.settings.records.as_ref(),
            now,
        }
    }
}

impl Proxy {
    /// Who makes a request to `host`. A store that cannot answer means no access: 500, never "no session".
    pub(super) async fn caller(
        &self,
        live: &Live,
        (headers, uri): (&HeaderMap, &Uri),
        host: Option<&str>,
        connection: &Connection,
        now: Now,
    ) -> Result<Caller, Refusal> {
        let resolved =
            live.authenticate.resolve(headers, uri.query(), host, connection.key(), now.wall).await;
        let (session, rejected) = match resolved.map_err(|error| store_failed(&error))? {
            Resolved::Valid(_, session) => (Some(session), None),
            Resolved::Invalid(_, why) => (None, Some(why)),
            Resolved::Absent => (None, None),
        };
        let caller =
            Caller::of_session(session, &self.store, now).await.map_err(|error| store_failed(&error))?;
        Ok(Caller { rejected, ..caller })
    }
}

/// The session whose token came in a header, as programs send it. A cookie is no such thing: each page of a host may use it, and
/// an app would speak for its visitors.
pub(super) async fn session_in_header(
    live: &Live,
    headers: &HeaderMap,
    host: Option<&str>,
    connection: &Connection,
    now: Now,
) -> Result<Arc<Session>, Refusal> {
    let resolved = live.authenticate.resolve(headers, None, host, connection.key(), now.wall).await;
    let rejected = match resolved.map_err(|error| store_failed(&error))? {
        Resolved::Valid(source, session) if source != CredentialSource::Cookie => return Ok(session),
        Resolved::Invalid(_, why) => Some(why),
        Resolved::Valid(..) | Resolved::Absent => None,
    };
    Err(Refusal::SignIn { way: WayIn::Itself(None), rejected })
}

pub(super) fn store_failed(error: &StoreError) -> Refusal {
    tracing::error!(error = error as &dyn std::error::Error, "session store failed");
    Refusal::Gateway(
        "The session store does not answer. Try again; tell your administrator if it stays.".to_owned(),
    )
}
