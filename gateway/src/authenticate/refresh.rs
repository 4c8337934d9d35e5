//! Keeps what sessions say of their people fresh, and ends those that the provider does not stand by any more.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pomerium_shared::clock::Now;
use tokio_util::sync::CancellationToken;

use super::provider::{Granted, Provider, ProviderError};
use crate::{
    session::{Session, SessionId},
    store::{RefreshDue, Store, StoreError},
};

/// How long before the access token's end it is refreshed.
const AHEAD: Duration = Duration::from_secs(60);
/// Between two looks at what is due; also the least time between two refreshes of one session.
const INTERVAL: Duration = Duration::from_secs(10);
/// Refreshes under way at once.
const AT_ONCE_MAX: usize = 8;
/// The first wait after a provider could not be reached; doubles with each failure.
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

/// Refreshes sessions until `cancel`; also removes those whose time is over.
///
/// A refusal ends the session. A provider or store that cannot be reached changes nothing: the session lives on to its
/// own end, and the refresh is tried again, ever less often.
pub async fn run(store: Store, provider: Arc<Provider>, cancel: CancellationToken) {
    let mut waits: HashMap<SessionId, Wait> = HashMap::new();
    let mut turn = tokio::time::interval(INTERVAL);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = turn.tick() => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            done = refresh_due(&store, &provider, &mut waits, Now::read()) => {
                if let Err(error) = done {
                    tracing::error!(error = &error as &dyn std::error::Error, "sessions could not be refreshed");
                }
            }
        }
    }
}

/// Not to be tried before `until`, after this many failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    failures: u32,
    until: Instant,
}

/// What one refresh came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Fresh, or gone meanwhile.
    Settled,
    /// Nothing is known; try later.
    TryLater,
}

/// One look at what is due.
pub(super) async fn refresh_due(
    store: &Store,
    provider: &Provider,
    waits: &mut HashMap<SessionId, Wait>,
    now: Now,
) -> Result<(), StoreError> {
    store.purge_expired(now.wall).await?;
    let due = store.sessions_due_for_refresh(now.wall + AHEAD).await?;
    // What is no longer due has no wait: the map is never larger than one batch.
    waits.retain(|id, _| due.iter().any(|due| due.session.id == *id));
    let ready: Vec<RefreshDue> = due
        .into_iter()
        .filter(|due| waits.get(&due.session.id).is_none_or(|wait| wait.until <= now.monotonic))
        .collect();
    for batch in ready.chunks(AT_ONCE_MAX) {
        let outcomes = join_all(batch.iter().map(|due| refresh_one(store, provider, due, now))).await;
        for (due, outcome) in batch.iter().zip(outcomes) {
            let id = &due.session.id;
            match outcome? {
                Outcome::Settled => _ = waits.remove(id),
                Outcome::TryLater => {
                    let failures = waits.get(id).map_or(0, |wait| wait.failures).saturating_add(1);
                    let until = now.monotonic + back_off(failures, jitter());
                    waits.insert(id.clone(), Wait { failures, until });
                }
            }
        }
    }
    Ok(())
}

async fn refresh_one(
    store: &Store,
    provider: &Provider,
    due: &RefreshDue,
    now: Now,
) -> Result<Outcome, StoreError> {
    let id = &due.session.id;
    match provider.refresh(&due.tokens, now.wall).await {
        Ok(granted) => match renewed(&due.session, &granted) {
            Some(session) => {
                store.replace_session(&session, &granted.tokens).await?;
            }
            None => {
                tracing::warn!(session = %id, "the identity provider named another person on refresh: session ended");
                store.end_session(id).await?;
            }
        },
        Err(ProviderError::Refused(why)) => {
            tracing::info!(session = %id, why, "the identity provider refused to refresh: session ended");
            store.end_session(id).await?;
        }
        Err(error) => {
            tracing::warn!(session = %id, error = &error as &dyn std::error::Error, "a session could not be refreshed");
            return Ok(Outcome::TryLater);
        }
    }
    Ok(Outcome::Settled)
}

/// The session with what the provider says now: claims that it no longer sends are gone. `None` when it now speaks of
/// somebody else.
fn renewed(session: &Session, granted: &Granted) -> Option<Session> {
    let identity = &granted.identity;
    (identity.user_id == session.user_id).then(|| Session {
        email: identity.email.clone(),
        name: identity.name.clone(),
        groups: identity.groups.clone(),
        claims: identity.claims.clone(),
        ..session.clone()
    })
}

/// Doubles with each failure up to a cap; `jitter` (0 to 255) takes up to a half off, so that sessions spread.
fn back_off(failures: u32, jitter: u8) -> Duration {
    let doubled = BACK_OFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACK_OFF_MAX);
    doubled - doubled * u32::from(jitter) / 512
}

fn jitter() -> u8 {
    let mut octet = [0_u8];
    // Without randomness all wait equally long, which is no harm.
    _ = aws_lc_rs::rand::fill(&mut octet);
    octet[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_cap_and_never_below_half() {
        assert_eq!(back_off(1, 0), BACK_OFF_MIN);
        assert_eq!(back_off(2, 0), 2 * BACK_OFF_MIN);
        assert_eq!(back_off(u32::MAX, 0), BACK_OFF_MAX);
        for failures in [1, 5, 40] {
            assert!(back_off(failures, 255) >= back_off(failures, 0) / 2);
        }
    }
}
