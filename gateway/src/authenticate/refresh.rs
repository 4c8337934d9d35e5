//! Keeps sessions in step with their provider: a refusal ends a session, silence does not.

use std::{sync::Arc, time::Duration};

use pomerium_shared::clock::Now;
use tokio_util::sync::CancellationToken;

use super::{Provider, ProviderError};
use crate::{
    session::Session,
    store::{Store, StoreError},
};

/// Between two looks for sessions that are due.
const INTERVAL: Duration = Duration::from_secs(5);

/// Sessions renewed in one look at most: a provider that is back must not be trampled down.
const BATCH: u32 = 50;

/// Before a provider that was silent is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Renews sessions until cancelled.
pub async fn run(store: Store, provider: Arc<Provider>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if let Err(error) = renew_due(&store, &provider).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "sessions could not be renewed");
        }
    }
}

async fn renew_due(store: &Store, provider: &Provider) -> Result<(), StoreError> {
    let now = Now::read();
    store.purge_expired(now.wall).await?;
    for session in store.sessions_to_refresh(now.wall, BATCH).await? {
        renew(store, provider, &session).await?;
    }
    Ok(())
}

async fn renew(store: &Store, provider: &Provider, session: &Session) -> Result<(), StoreError> {
    let now = Now::read();
    let Some(tokens) = store.tokens(&session.id).await? else {
        return Ok(());
    };
    let Some(refresh_token) = tokens.refresh_token else {
        return Ok(());
    };
    match provider.refresh(&refresh_token, &tokens.id_token).await {
        Ok(identity) => {
            let (mut renewed, tokens, refresh_at) =
                identity.into_session(session.id.clone(), provider.id(), now.wall, session.expires_at);
            if renewed.user_id != session.user_id {
                tracing::warn!("session-id" = session.id.as_str(), "a refresh gave another person; the session ends");
                return store.end_session(&session.id).await;
            }
            renewed.issued_at = session.issued_at;
            store.put_session(&renewed, &tokens, refresh_at).await
        }
        Err(error @ (ProviderError::Refused(_) | ProviderError::BadToken(_))) => {
            tracing::info!("session-id" = session.id.as_str(), %error, "the session ends: its provider says no");
            store.end_session(&session.id).await
        }
        Err(error @ (ProviderError::Unreachable(_) | ProviderError::Misconfigured(_))) => {
            tracing::warn!("session-id" = session.id.as_str(), %error, "the session is kept: its provider is silent");
            store.postpone_refresh(&session.id, now.wall + RETRY_AFTER).await
        }
    }
}
