//! Sessions and their provider's tokens.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, StoreError, from_unix, unix};
use crate::session::{Session, SessionId, UserId};

/// What the identity provider gave for a session; never leaves the gateway.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTokens {
    /// The ID token as it came, for signing out at the provider.
    pub id_token: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token, where the provider gives one.
    pub refresh_token: Option<String>,
}

impl std::fmt::Debug for ProviderTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProviderTokens")
    }
}

impl Store {
    /// Keeps a session, new or refreshed, with its tokens; `refresh_at` says when to renew them.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is kept.
    pub async fn put_session(
        &self,
        session: &Session,
        tokens: &ProviderTokens,
        refresh_at: Option<SystemTime>,
    ) -> Result<(), StoreError> {
        let json = |value: serde_json::Result<String>| value.map_err(|_| StoreError::Damaged("session"));
        let plain = json(serde_json::to_string(tokens))?;
        let sealed = self.seal.seal(plain.as_bytes(), session.id.as_str());
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO users (id, email, name, last_sign_in) VALUES (?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name, last_sign_in = excluded.last_sign_in",
        )
        .bind(session.user_id.as_str())
        .bind(&session.email)
        .bind(&session.name)
        .bind(unix(session.issued_at))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT OR REPLACE INTO sessions \
             (id, user_id, idp_id, email, name, groups, claims, issued_at, expires_at, refresh_at, tokens) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(session.id.as_str())
        .bind(session.user_id.as_str())
        .bind(&session.idp_id)
        .bind(&session.email)
        .bind(&session.name)
        .bind(json(serde_json::to_string(&session.groups))?)
        .bind(json(serde_json::to_string(&session.claims))?)
        .bind(unix(session.issued_at))
        .bind(unix(session.expires_at))
        .bind(refresh_at.map(unix))
        .bind(sealed)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The session of this id, whether or not it has expired.
    ///
    /// # Errors
    /// [`StoreError`]; that is not "no session".
    pub async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query("SELECT * FROM sessions WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(session_of).transpose()
    }

    /// The provider's tokens of a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tokens(&self, id: &SessionId) -> Result<Option<ProviderTokens>, StoreError> {
        let row = sqlx::query("SELECT tokens FROM sessions WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let sealed: Vec<u8> = row.try_get(0)?;
        let plain = self.seal.open(&sealed, id.as_str()).ok_or(StoreError::Damaged("token"))?;
        serde_json::from_slice(&plain).map(Some).map_err(|_| StoreError::Damaged("token"))
    }

    /// Ends a session for good: signed out, revoked, or refused by its provider.
    ///
    /// # Errors
    /// [`StoreError`]; the session lives on.
    pub async fn end_session(&self, id: &SessionId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE id = ?").bind(id.as_str()).execute(&self.pool).await?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Live sessions whose tokens are to be renewed by `now`, the most urgent first, and at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions_to_refresh(&self, now: SystemTime, limit: u32) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions WHERE refresh_at <= ?1 AND expires_at > ?1 ORDER BY refresh_at LIMIT ?2")
            .bind(unix(now))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(session_of).collect()
    }

    /// Tries the renewal of a session's tokens again at `at`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone_refresh(&self, id: &SessionId, at: SystemTime) -> Result<(), StoreError> {
        sqlx::query("UPDATE sessions SET refresh_at = ? WHERE id = ?").bind(unix(at)).bind(id.as_str()).execute(&self.pool).await?;
        Ok(())
    }

    /// Removes sessions that expired before `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge_expired(&self, now: SystemTime) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM sessions WHERE expires_at <= ?").bind(unix(now)).execute(&self.pool).await?;
        Ok(())
    }
}

fn session_of(row: &SqliteRow) -> Result<Session, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let damaged = |_| StoreError::Damaged("session");
    Ok(Session {
        id: SessionId::new(text("id")?),
        user_id: UserId::new(text("user_id")?),
        idp_id: text("idp_id")?,
        email: text("email")?,
        name: text("name")?,
        groups: serde_json::from_str(&text("groups")?).map_err(damaged)?,
        claims: serde_json::from_str(&text("claims")?).map_err(damaged)?,
        issued_at: from_unix(row.try_get("issued_at")?),
        expires_at: from_unix(row.try_get("expires_at")?),
    })
}
