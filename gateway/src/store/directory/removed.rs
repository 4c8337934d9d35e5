//! Users whom the directory has removed. A removal must never open a door: without a trace of them, claims would say their
//! groups again.

use std::time::SystemTime;

use sqlx::AnyConnection;

use super::{DirectoryError, Store, StoreError};
use crate::{
    scim::{ScimError, resource::User},
    store::to_millis,
};

impl Store {
    /// Forgets all that a directory ever pushed, those whom it has removed too, and says how many people that were: from now
    /// on claims say everybody's groups. For an operator whose directory does not push any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn forget_directory(&self) -> Result<u64, StoreError> {
        let mut transaction = self.begin_write().await?;
        sqlx::query("DELETE FROM directory_groups").execute(&mut *transaction).await?;
        let done = sqlx::query("DELETE FROM directory_users").execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.forget_all();
        Ok(done.rows_affected())
    }
}

/// Leaves of a user what keeps them out.
pub(super) async fn remove(
    connection: &mut AnyConnection,
    id: &str,
    now: SystemTime,
) -> Result<(), DirectoryError> {
    let done = sqlx::query(
        "UPDATE directory_users SET is_active = 0, removed_at_ms = $2 WHERE id = $1 AND removed_at_ms IS NULL",
    )
    .bind(id)
    .bind(to_millis(now))
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Err(ScimError::NotFound.into());
    }
    sqlx::query("DELETE FROM directory_members WHERE user_id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// Forgets the removed users whose id, name or one of whose addresses `user` has: the directory speaks of them again.
pub(super) async fn name_again(connection: &mut AnyConnection, user: &User) -> Result<(), DirectoryError> {
    let addresses = user.emails.iter().map(|email| email.value.as_str());
    for name in addresses.chain([user.user_name.as_str()]) {
        sqlx::query(
            "DELETE FROM directory_users WHERE removed_at_ms IS NOT NULL AND (external_id = $1 OR lower(user_name) = $2 \
             OR id IN (SELECT user_id FROM directory_emails WHERE lower(value) = $2))",
        )
        .bind(&user.external_id)
        .bind(name.to_ascii_lowercase())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
