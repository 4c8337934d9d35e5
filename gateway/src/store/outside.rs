//! Changes by another process: an administrator's command beside the running gateway, or another gateway.

use std::time::Duration;

use sqlx::AnyConnection;
use tokio_util::sync::CancellationToken;

use super::{Backend, Store, StoreError};

/// Between two looks. What an administrator takes away is gone within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

impl Store {
    /// Tells the running gateway that something was changed beside it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn announce_outside_change(&self) -> Result<(), StoreError> {
        let mut transaction = self.begin_write().await?;
        self.announce(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Tells the processes beside this one that something was changed here, once the transaction is done.
    pub(super) async fn announce(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        match &self.inner.backend {
            Backend::Sqlite => {
                sqlx::query("UPDATE outside_changes SET count = count + 1").execute(connection).await?;
            }
            // Its triggers tell of each change.
            Backend::Postgres(_) => {}
        }
        Ok(())
    }

    /// Hears of changes by other processes until `stop`: forgets what was kept for reading, and tells who follows.
    pub async fn follow_outside_changes(self, stop: CancellationToken) {
        match &self.inner.backend {
            Backend::Sqlite => self.look_for_changes(&stop).await,
            Backend::Postgres(options) => self.listen_for_changes(options.expose(), &stop).await,
        }
    }

    async fn look_for_changes(&self, stop: &CancellationToken) {
        let mut seen = None;
        loop {
            match self.outside_changes().await {
                Ok(count) => {
                    if seen.is_some_and(|seen| seen != count) {
                        self.forget_all();
                    }
                    seen = Some(count);
                }
                // It cannot be known whether something was taken away: read everything anew.
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the database does not tell of changes"
                    );
                    self.forget_all();
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    async fn outside_changes(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT count FROM outside_changes").fetch_one(&self.inner.pool).await?)
    }
}
