//! Keeps what sessions say of their people fresh, and ends those that the provider does not stand by any more.

mod pace;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use pomerium_shared::clock::Now;
use tokio_util::sync::CancellationToken;

use self::pace::{Answer, Fate, Pace};
use super::{
    Authenticate,
    provider::{Identity, Provider, ProviderError, Refreshed},
};
use crate::{
    session::{Session, SessionId},
    store::{DUE_MAX, ProviderTokens, RefreshDue, Store, StoreError},
};

/// How long before the access token's end it is refreshed.
const AHEAD: Duration = Duration::from_secs(60);
/// Between two looks at what is due; also the least time between two refreshes of one session.
const INTERVAL: Duration = Duration::from_secs(10);
/// Claims of the sign-in itself.
const SIGN_IN_CLAIMS: [&str; 4] = ["auth_time", "acr", "amr", "sid"];

/// Refreshes sessions until `cancel`; also removes those whose time is over.
///
/// A refusal ends the session. A provider that cannot be reached keeps it for the configured grace; then it ends too.
/// `current` is asked each time, so that a reload counts at once.
pub async fn run(current: impl Fn() -> Arc<Authenticate>, cancel: CancellationToken) {
    let mut authenticate = current();
    let mut refresher = Refresher::new(&authenticate);
    let mut turn = tokio::time::interval(INTERVAL);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = turn.tick() => {}
        }
        let now = current();
        if !Arc::ptr_eq(&now, &authenticate) {
            refresher = Refresher::new(&now);
            authenticate = now;
        }
        // A round is never dropped half-way: a refresh token that was used but not replaced is lost.
        match refresher.round(Now::read, &cancel).await {
            Ok(true) => turn.reset_immediately(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "sessions could not be refreshed");
            }
        }
    }
}

/// Refreshes the sessions of one provider.
pub(super) struct Refresher {
    store: Store,
    provider: Arc<Provider>,
    idp_id: String,
    peer_grace: Duration,
    pace: Pace,
}

impl Refresher {
    pub(super) fn new(authenticate: &Authenticate) -> Self {
        let grace = authenticate.config.unreachable_grace;
        Self {
            store: authenticate.store.clone(),
            provider: authenticate.provider(),
            idp_id: authenticate.idp_id.clone(),
            peer_grace: authenticate.peer_grace(),
            pace: Pace::new(grace),
        }
    }

    /// One look at what is due; whether there is more to do at once. After `cancel`, and after a failure of the store,
    /// what is under way is finished and nothing more is begun.
    pub(super) async fn round(
        &mut self,
        clock: impl Fn() -> Now,
        cancel: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let now = clock();
        self.store.purge_expired(self.peer_grace, now.wall).await?;
        let due = self.store.sessions_due_for_refresh(&self.idp_id, now.wall + AHEAD).await?;
        let listed: Vec<_> = due.iter().map(|due| (&due.session.id, vouched_until(due))).collect();
        let plan = self.pace.plan(&listed, now);
        for place in plan.end {
            self.settle(&due[place].session.id, Fate::GraceOver).await?;
        }
        let mut has_asked = false;
        let mut waiting = plan.ask.into_iter();
        let mut failure = None;
        let (store, provider) = (self.store.clone(), Arc::clone(&self.provider));
        let mut asked = FuturesUnordered::new();
        loop {
            while asked.len() < self.pace.at_once()
                && !cancel.is_cancelled()
                && let Some(place) = waiting.next()
            {
                let (store, provider, due) = (&store, &provider, &due[place]);
                asked.push(async move { (due, ask(store, provider, due, now.wall).await) });
            }
            let Some((due, answer)) = asked.next().await else { break };
            let id = &due.session.id;
            let settled = match answer {
                // Another gateway is about it.
                Ok(None) => continue,
                Ok(Some(answer)) => {
                    has_asked = true;
                    let fate = self.pace.note(id, vouched_until(due), answer, clock(), jitter());
                    self.settle(id, fate).await.map(|()| answer)
                }
                Err(error) => Err(error),
            };
            if !matches!(settled, Ok(Answer::Yes | Answer::No | Answer::Unclear)) {
                waiting = Vec::new().into_iter();
            }
            if let Err(error) = settled {
                failure = Some(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(has_asked && due.len() >= DUE_MAX && self.pace.at_once() > 1),
        }
    }

    async fn settle(&self, id: &SessionId, fate: Fate) -> Result<(), StoreError> {
        match fate {
            Fate::Keep => return Ok(()),
            Fate::Refused => {
                tracing::info!(session = %id, "the identity provider does not stand by it: session ended");
            }
            Fate::GraceOver => {
                tracing::warn!(session = %id, "the identity provider was not reached within idp_unreachable_grace: session ended");
            }
        }
        self.store.end_session(id).await?;
        Ok(())
    }
}

/// Up to here the provider's own token says that the session is good.
fn vouched_until(due: &RefreshDue) -> SystemTime {
    due.tokens.access_expires_at.unwrap_or(due.session.issued_at)
}

/// Asks the provider about a session; `None` when another gateway does.
async fn ask(
    store: &Store,
    provider: &Provider,
    due: &RefreshDue,
    now: SystemTime,
) -> Result<Option<Answer>, StoreError> {
    if !store.take_refresh(due, now).await? {
        return Ok(None);
    }
    let answer = ask_alone(store, provider, due, now).await?;
    if matches!(answer, Answer::Unclear | Answer::Silent) {
        store.leave_refresh(due).await?;
    }
    Ok(Some(answer))
}

async fn ask_alone(
    store: &Store,
    provider: &Provider,
    due: &RefreshDue,
    now: SystemTime,
) -> Result<Answer, StoreError> {
    let session = &due.session;
    match provider.refresh(&due.tokens, now).await {
        Ok(Refreshed { tokens, identity: Ok(identity) }) => match renewed(session, identity) {
            Some(session) => {
                store.replace_session(&session, &tokens).await?;
                Ok(Answer::Yes)
            }
            None => {
                tracing::warn!(session = %session.id, "the identity provider named another person on refresh");
                Ok(Answer::No)
            }
        },
        Ok(Refreshed { tokens, identity: Err(error) }) => {
            // The new refresh token is kept, for the old one may be used up; the session stays due.
            let tokens = ProviderTokens { access_expires_at: due.tokens.access_expires_at, ..tokens };
            store.replace_session(session, &tokens).await?;
            Ok(unanswered(&session.id, &error))
        }
        Err(ProviderError::Refused(why)) => {
            tracing::info!(session = %session.id, why, "the identity provider refused to refresh");
            Ok(Answer::No)
        }
        Err(error) => Ok(unanswered(&session.id, &error)),
    }
}

fn unanswered(id: &SessionId, error: &ProviderError) -> Answer {
    tracing::warn!(session = %id, error = error as &dyn std::error::Error, "a session could not be refreshed");
    match error {
        ProviderError::Unreachable(_) => Answer::Silent,
        ProviderError::Refused(_) | ProviderError::BadIdToken(_) | ProviderError::Nonconforming(_) => {
            Answer::Unclear
        }
    }
}

/// The session with what the provider says now: claims that it no longer sends are gone. `None` when it now speaks of
/// somebody else.
fn renewed(session: &Session, identity: Option<Identity>) -> Option<Session> {
    let Some(identity) = identity else { return Some(session.clone()) };
    if identity.user_id != session.user_id {
        return None;
    }
    let mut claims = identity.claims;
    // How somebody once signed in does not change, and need not be said again (OpenID Connect Core, 12.2).
    for name in SIGN_IN_CLAIMS {
        if let (false, Some(said)) = (claims.contains_key(name), session.claims.get(name)) {
            claims.insert(name.to_owned(), said.clone());
        }
    }
    Some(Session {
        email: identity.email,
        name: identity.name,
        groups: identity.groups,
        claims,
        ..session.clone()
    })
}

fn jitter() -> u8 {
    let mut octet = [0_u8];
    // Without randomness all wait equally long, which is no harm.
    _ = aws_lc_rs::rand::fill(&mut octet);
    octet[0]
}
