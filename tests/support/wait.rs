//! Waiting for a state under a limit: never for a time.

use std::{future::Future, time::Duration};

use anyhow::Context as _;

/// For a part to get ready, or a state to come, on a slow and busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at a state that nothing announces.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `look` sees something.
///
/// # Errors
/// Nothing was seen within [`LIMIT`].
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    within(what, looking).await
}

/// Waits for a future under [`LIMIT`].
///
/// # Errors
/// It was not done in time.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(LIMIT, work).await.with_context(|| format!("waited {LIMIT:?} in vain: {what}"))
}
