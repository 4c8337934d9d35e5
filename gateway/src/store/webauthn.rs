//! Browsers as devices: their credentials, what they were asked, and what a session has proved.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sqlx::{Row, any::AnyRow};

use super::{Store, StoreError, to_millis};
use crate::{
    device::{
        DeviceKind,
        webauthn::{Ceremony, Credential},
    },
    session::{DeviceProof, Session, SessionId, UserId},
};

/// Credentials of one person at most.
pub(crate) const CREDENTIALS_MAX: usize = 16;
/// Questions that one session has open at most: tabs. Older ones are forgotten.
const CHALLENGES_MAX: i64 = 8;

/// What became of a new credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolled {
    /// It is a device now, and waits for approval.
    New,
    /// There is such a device already, this person's or another's.
    Known,
    /// The person has as many as they may.
    TooMany,
}

/// The id of a credential's device.
#[must_use]
pub fn device_id_of(credential_id: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(credential_id)
}

const fn word(ceremony: Ceremony) -> &'static str {
    match ceremony {
        Ceremony::Registration => "registration",
        Ceremony::Authentication => "authentication",
    }
}

impl Store {
    /// Keeps what a session's browser is asked.
    ///
    /// # Errors
    /// [`StoreError::Database`], also for a challenge that there is already, or a session that has ended.
    pub async fn add_challenge(
        &self,
        session: &SessionId,
        ceremony: Ceremony,
        challenge: &[u8],
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin_write().await?;
        sqlx::query(
            "DELETE FROM webauthn_challenges WHERE expires_at_ms <= $1 OR (session_id = $2 AND challenge NOT IN \
             (SELECT challenge FROM webauthn_challenges WHERE session_id = $2 ORDER BY expires_at_ms DESC LIMIT $3))",
        )
        .bind(to_millis(now))
        .bind(session.as_str())
        .bind(CHALLENGES_MAX - 1)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO webauthn_challenges (challenge, ceremony, session_id, expires_at_ms) VALUES ($1, $2, $3, $4)",
        )
        .bind(challenge)
        .bind(word(ceremony))
        .bind(session.as_str())
        .bind(to_millis(expires_at))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Takes a challenge for good: `true` for the first answer from the session that was asked, in time.
    ///
    /// # Errors
    /// [`StoreError::Database`]: treat as "already used".
    pub async fn take_challenge(
        &self,
        session: &SessionId,
        ceremony: Ceremony,
        challenge: &[u8],
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let take = sqlx::query(
            "DELETE FROM webauthn_challenges \
             WHERE challenge = $1 AND ceremony = $2 AND session_id = $3 AND expires_at_ms > $4",
        );
        let take = take.bind(challenge).bind(word(ceremony)).bind(session.as_str()).bind(to_millis(now));
        Ok(self.write(take).await? == 1)
    }

    /// Makes a credential a device of this person, which waits for approval.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn enrol_credential(
        &self,
        owner: &UserId,
        name: &str,
        credential: &Credential,
        now: SystemTime,
    ) -> Result<Enrolled, StoreError> {
        let id = device_id_of(&credential.id);
        let mut transaction = self.begin_write().await?;
        let device = sqlx::query(
            "INSERT INTO devices (user_id, id, name, kind, is_approved, enrolled_at_ms) VALUES ($1, $2, $3, $4, 0, $5) \
             ON CONFLICT (user_id, id) DO NOTHING",
        )
        .bind(owner.as_str())
        .bind(&id)
        .bind(name)
        .bind(DeviceKind::WebauthnAny.as_str())
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await?;
        let key = sqlx::query(
            "INSERT INTO webauthn_credentials (device_id, user_id, cose_key, sign_count) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (device_id) DO NOTHING",
        )
        .bind(&id)
        .bind(owner.as_str())
        .bind(&credential.cose_key)
        .bind(i64::from(credential.sign_count))
        .execute(&mut *transaction)
        .await?;
        if device.rows_affected() == 0 || key.rows_affected() == 0 {
            return Ok(Enrolled::Known);
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM webauthn_credentials WHERE user_id = $1")
            .bind(owner.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        // What was written goes with the transaction.
        if usize::try_from(count).unwrap_or(usize::MAX) > CREDENTIALS_MAX {
            return Ok(Enrolled::TooMany);
        }
        transaction.commit().await?;
        Ok(Enrolled::New)
    }

    /// A person's credentials, 16 at most.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn credentials(&self, owner: &UserId) -> Result<Vec<Credential>, StoreError> {
        let rows = sqlx::query("SELECT * FROM webauthn_credentials WHERE user_id = $1 ORDER BY device_id")
            .bind(owner.as_str())
            .fetch_all(&self.inner.pool)
            .await?;
        let credential = |row: &AnyRow| {
            let id: String = row.try_get("device_id")?;
            let count: i64 = row.try_get("sign_count")?;
            Ok(Credential {
                // We wrote it; were it something else, no authenticator would have it.
                id: URL_SAFE_NO_PAD.decode(id).unwrap_or_default(),
                cose_key: row.try_get("cose_key")?,
                sign_count: u32::try_from(count).unwrap_or(u32::MAX),
            })
        };
        rows.iter().map(credential).collect()
    }

    /// Writes into a session which device its browser has proved to be, and the credential's new count; `false` when the
    /// count has grown meanwhile, or the device or the session is gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn prove_device(
        &self,
        session: &Session,
        proof: &DeviceProof,
        count: u32,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin_write().await?;
        let counted = sqlx::query(
            "UPDATE webauthn_credentials SET sign_count = $3 WHERE user_id = $1 AND device_id = $2 \
             AND (sign_count < $3 OR (sign_count = 0 AND $3 = 0))",
        )
        .bind(session.user_id.as_str())
        .bind(&proof.device_id)
        .bind(i64::from(count))
        .execute(&mut *transaction)
        .await?;
        let written = sqlx::query(
            "UPDATE sessions SET proven_device = $3, proven_until_ms = $4 WHERE id = $1 AND user_id = $2",
        )
        .bind(session.id.as_str())
        .bind(session.user_id.as_str())
        .bind(&proof.device_id)
        .bind(to_millis(proof.expires_at))
        .execute(&mut *transaction)
        .await?;
        if counted.rows_affected() == 0 || written.rows_affected() == 0 {
            return Ok(false);
        }
        transaction.commit().await?;
        self.note_change(&session.id);
        Ok(true)
    }
}
