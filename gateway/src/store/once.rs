//! Single uses, and keys that are made once.

use std::time::SystemTime;

use super::{Store, StoreError, aead, to_millis};
use crate::secret::Secret;

impl Store {
    /// Takes `key` for good: `true` for the first caller, `false` for everyone after, also over a restart.
    ///
    /// What it stands for must itself be worthless after `expires_at`, for the row goes then.
    ///
    /// # Errors
    /// [`StoreError::Database`]: treat as "already used".
    pub async fn claim_once(
        &self,
        key: &str,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_write().await?;
        sqlx::query("DELETE FROM claimed WHERE expires_at_ms < $1")
            .bind(to_millis(now))
            .execute(&mut *transaction)
            .await?;
        let taken = sqlx::query(
            "INSERT INTO claimed (key, expires_at_ms) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
        )
        .bind(key)
        .bind(to_millis(expires_at))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(taken.rows_affected() == 1)
    }

    /// Whether somebody has taken `key` with [`Self::claim_once`], and it still stands.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn is_claimed(&self, key: &str, now: SystemTime) -> Result<bool, StoreError> {
        let found: i64 =
            sqlx::query_scalar("SELECT count(*) FROM claimed WHERE key = $1 AND expires_at_ms >= $2")
                .bind(key)
                .bind(to_millis(now))
                .fetch_one(&self.inner.pool)
                .await?;
        Ok(found == 1)
    }

    /// The key of this name; the first call makes it with `make`, all later ones return the same, sealed at rest.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn named_key(
        &self,
        name: &str,
        make: impl FnOnce() -> Vec<u8> + Send,
    ) -> Result<Secret<Vec<u8>>, StoreError> {
        if let Some(key) = self.stored_key(name).await? {
            return Ok(key);
        }
        let sealed = aead::seal(self.inner.master_key.expose(), &make(), name.as_bytes())?;
        self.write(
            sqlx::query(
                "INSERT INTO named_keys (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            )
            .bind(name)
            .bind(sealed),
        )
        .await?;
        // Read back: another process may have been first.
        self.stored_key(name).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))
    }

    /// Keeps a secret under a name, sealed at rest, in place of one that is there.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn keep_secret(&self, name: &str, secret: &[u8]) -> Result<(), StoreError> {
        let sealed = aead::seal(self.inner.master_key.expose(), secret, name.as_bytes())?;
        self.write(
            sqlx::query("INSERT INTO named_keys (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed")
                .bind(name)
                .bind(sealed),
        )
        .await?;
        Ok(())
    }

    /// What was kept under a name.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn kept_secret(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        self.stored_key(name).await
    }

    async fn stored_key(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM named_keys WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.inner.pool)
            .await?;
        let Some(sealed) = sealed else { return Ok(None) };
        Ok(Some(Secret::new(aead::open(self.inner.master_key.expose(), &sealed, name.as_bytes())?)))
    }
}
