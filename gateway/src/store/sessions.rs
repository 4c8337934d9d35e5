//! Sessions with the provider's tokens, and the people they belong to.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sqlx::{Row, any::AnyRow};

use super::{
    CACHED_SESSIONS_MAX, ServiceAccount, Store, StoreError, aead, devices, directory, from_millis, to_millis,
    within_limit,
};
use crate::{
    device::Thumbprint,
    secret::Secret,
    session::{DeviceProof, Session, SessionId, UserId},
};

/// Rows that one round of refreshing takes at most.
pub(crate) const DUE_MAX: usize = 100;

/// For one refresh: a gateway that dies amid it holds up the others for so long. Longer than any provider is waited for.
const REFRESH_TURN: Duration = Duration::from_secs(120);

/// What the identity provider gave for one session. Rests encrypted, and leaves the gateway only
/// for the apps of routes whose `set_request_headers` ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderTokens {
    /// The access token.
    pub access: Secret<String>,
    /// The refresh token; without one the session just lapses.
    pub refresh: Option<Secret<String>>,
    /// The ID token as it came, for the provider's sign-out.
    pub id_token: Secret<String>,
    /// When the access token ends; `None` when the provider did not say.
    pub access_expires_at: Option<SystemTime>,
}

/// Somebody who signed in at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Names the person.
    pub id: UserId,
    /// The email address, as of the last sign-in.
    pub email: String,
    /// The display name, as of the last sign-in.
    pub name: String,
    /// The last sign-in.
    pub signed_in_at: SystemTime,
}

/// A session whose provider tokens are about to end.
#[derive(Debug, Clone)]
pub struct RefreshDue {
    /// The session as it is.
    pub session: Session,
    /// The tokens to refresh it with.
    pub tokens: ProviderTokens,
}

#[derive(Serialize, Deserialize)]
struct SealedTokens {
    access: String,
    refresh: Option<String>,
    id_token: String,
    access_expires_at_ms: Option<i64>,
}

impl ProviderTokens {
    /// What a session without a provider's tokens has.
    #[must_use]
    pub fn none() -> Self {
        let empty = || Secret::new(String::new());
        Self { access: empty(), refresh: None, id_token: empty(), access_expires_at: None }
    }
}

impl Store {
    /// Keeps a session that has just begun; when this returns, it survives a crash.
    ///
    /// # Errors
    /// [`StoreError::Database`], also when there is a session of this id.
    pub async fn put_session(&self, session: &Session, tokens: &ProviderTokens) -> Result<(), StoreError> {
        let row = SessionRow::new(self, session, tokens)?;
        let mut transaction = self.begin_write().await?;
        sqlx::query(
            "INSERT INTO users (id, email, name, signed_in_at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE \
             SET email = excluded.email, name = excluded.name, signed_in_at_ms = excluded.signed_in_at_ms",
        )
        .bind(session.user_id.as_str())
        .bind(&session.email)
        .bind(&session.name)
        .bind(to_millis(session.issued_at))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO sessions (id, user_id, idp_id, email, name, groups_json, claims_json, issued_at_ms, \
             expires_at_ms, refresh_at_ms, tokens_sealed, bound_to, subject, provider_session) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(session.id.as_str())
        .bind(session.user_id.as_str())
        .bind(&session.idp_id)
        .bind(&session.email)
        .bind(&session.name)
        .bind(row.groups)
        .bind(row.claims)
        .bind(to_millis(session.issued_at))
        .bind(to_millis(session.expires_at))
        .bind(row.refresh_at)
        .bind(row.sealed)
        .bind(session.bound_to.as_ref().map(Thumbprint::as_str))
        .bind(row.subject)
        .bind(row.provider_session)
        .execute(&mut *transaction)
        .await?;
        devices::enrol(&mut transaction, session).await?;
        self.move_peers(&mut transaction, session).await?;
        transaction.commit().await?;
        self.note_change(&session.id);
        Ok(())
    }

    /// Replaces what a session says of its person, and its tokens; `false` when the session has ended meanwhile, which
    /// it then stays, or its person has signed in anew, which counts more. Its owner, its start and its end never change.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn replace_session(
        &self,
        session: &Session,
        tokens: &ProviderTokens,
    ) -> Result<bool, StoreError> {
        let row = SessionRow::new(self, session, tokens)?;
        let replace = sqlx::query(
            "UPDATE sessions SET email = $2, name = $3, groups_json = $4, claims_json = $5, refresh_at_ms = $6, \
             tokens_sealed = $7, subject = $8, provider_session = $9 \
             WHERE id = $1 AND user_id = $10 AND issued_at_ms = $11",
        );
        let replace = replace
            .bind(session.id.as_str())
            .bind(&session.email)
            .bind(&session.name)
            .bind(row.groups)
            .bind(row.claims)
            .bind(row.refresh_at)
            .bind(row.sealed)
            .bind(row.subject)
            .bind(row.provider_session)
            .bind(session.user_id.as_str())
            .bind(to_millis(session.issued_at));
        let changed = self.write(replace).await?;
        self.note_change(&session.id);
        Ok(changed == 1)
    }

    /// Gives a session that its person has begun anew its new claims, tokens and times; `false` when it has ended
    /// meanwhile, which it then stays. Its owner never changes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn renew_session(
        &self,
        session: &Session,
        tokens: &ProviderTokens,
    ) -> Result<bool, StoreError> {
        let row = SessionRow::new(self, session, tokens)?;
        let mut transaction = self.begin_write().await?;
        let done = sqlx::query(
            "UPDATE sessions SET email = $2, name = $3, groups_json = $4, claims_json = $5, refresh_at_ms = $6, \
             tokens_sealed = $7, issued_at_ms = $8, expires_at_ms = $9, subject = $10, provider_session = $11 \
             WHERE id = $1 AND user_id = $12 AND idp_id = $13",
        )
        .bind(session.id.as_str())
        .bind(&session.email)
        .bind(&session.name)
        .bind(row.groups)
        .bind(row.claims)
        .bind(row.refresh_at)
        .bind(row.sealed)
        .bind(to_millis(session.issued_at))
        .bind(to_millis(session.expires_at))
        .bind(row.subject)
        .bind(row.provider_session)
        .bind(session.user_id.as_str())
        .bind(&session.idp_id)
        .execute(&mut *transaction)
        .await?;
        let is_renewed = done.rows_affected() == 1;
        if is_renewed {
            self.move_peers(&mut transaction, session).await?;
        }
        transaction.commit().await?;
        self.note_change(&session.id);
        Ok(is_renewed)
    }

    /// The session of this id, expired or not, with the groups that the directory says; `None` when it ended or never was,
    /// or the directory keeps its person out.
    ///
    /// # Errors
    /// [`StoreError::Database`]: nothing is known, which is not "no".
    pub async fn session(&self, id: &SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        within_limit(self.session_now(id)).await
    }

    async fn session_now(&self, id: &SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        if ServiceAccount::is_id(id) {
            return Ok(self.service_account_session(id).await?.map(Arc::new));
        }
        let generation = {
            let cache = self.cache();
            if let Some(session) = cache.sessions.get(id) {
                return Ok(Some(session.clone()));
            }
            cache.generation
        };
        let mut connection = self.inner.pool.acquire().await?;
        let row = sqlx::query("SELECT * FROM sessions WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let Some(session) = directory::applied(&mut connection, session_of_row(&row)?).await? else {
            return Ok(None);
        };
        drop(connection);
        let session = Arc::new(session);
        let mut cache = self.cache();
        // Something was written since: what was read may be what was ended.
        if cache.may_keep(generation) {
            if cache.sessions.len() >= CACHED_SESSIONS_MAX {
                cache.sessions.clear();
            }
            cache.sessions.insert(id.clone(), session.clone());
        }
        Ok(Some(session))
    }

    /// The sessions of a person that still count, the newest first, 100 at most.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn sessions_of(&self, user_id: &UserId, now: SystemTime) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE user_id = $1 AND expires_at_ms > $2 ORDER BY issued_at_ms DESC, id LIMIT 100",
        )
        .bind(user_id.as_str())
        .bind(to_millis(now))
        .fetch_all(&self.inner.pool)
        .await?;
        rows.iter().map(session_of_row).collect()
    }

    /// The newest session of a person that is bound to this key and still valid.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn bound_session(
        &self,
        user_id: &UserId,
        idp_id: &str,
        key: &Thumbprint,
        now: SystemTime,
    ) -> Result<Option<SessionId>, StoreError> {
        let id: Option<String> = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE user_id = $1 AND idp_id = $2 AND bound_to = $3 AND expires_at_ms > $4 \
             ORDER BY issued_at_ms DESC, id LIMIT 1",
        )
        .bind(user_id.as_str())
        .bind(idp_id)
        .bind(key.as_str())
        .bind(to_millis(now))
        .fetch_optional(&self.inner.pool)
        .await?;
        Ok(id.map(|id| SessionId::new(id.as_str())))
    }

    /// The provider's tokens of a session.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn tokens(&self, id: &SessionId) -> Result<Option<ProviderTokens>, StoreError> {
        let row = sqlx::query("SELECT tokens_sealed FROM sessions WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.inner.pool)
            .await?;
        row.map(|row| self.tokens_of_row(id, &row)).transpose()
    }

    /// Ends a session at once and for good; `false` when there was none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn end_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        let changed = self.write(sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id.as_str())).await?;
        self.note_change(id);
        Ok(changed == 1)
    }

    /// Ends what a provider's logout token is about, and says how many: the sessions of its own session `sid`; with a
    /// subject also those of that person whose `sid` it never told us; without a `sid` all of that person. What began
    /// after `begun_before` is not meant.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn end_provider_sessions(
        &self,
        idp_id: &str,
        subject: Option<&str>,
        provider_session: Option<&str>,
        begun_before: SystemTime,
    ) -> Result<usize, StoreError> {
        if subject.is_none() && provider_session.is_none() {
            return Ok(0);
        }
        let mut transaction = self.begin_write().await?;
        let ids: Vec<String> = sqlx::query_scalar(
            "DELETE FROM sessions WHERE idp_id = $1 AND issued_at_ms <= $4 AND ($2 IS NULL OR subject = $2) \
             AND ($3 IS NULL OR provider_session = $3 OR ($2 IS NOT NULL AND provider_session IS NULL)) RETURNING id",
        )
        .bind(idp_id)
        .bind(subject)
        .bind(provider_session)
        .bind(to_millis(begun_before))
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        for id in &ids {
            self.note_change(&SessionId::new(id.as_str()));
        }
        Ok(ids.len())
    }

    /// Removes the sessions that expired before `now`, and says how many. One that a WireGuard peer stands on is there for
    /// `peer_grace` longer.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn purge_expired(&self, peer_grace: Duration, now: SystemTime) -> Result<u64, StoreError> {
        let purge = sqlx::query(
            "DELETE FROM sessions WHERE expires_at_ms <= $2 OR (expires_at_ms <= $1 \
             AND id NOT IN (SELECT session_id FROM wireguard_peers WHERE session_id IS NOT NULL))",
        );
        let purge = purge
            .bind(to_millis(now))
            .bind(to_millis(now.checked_sub(peer_grace).unwrap_or(SystemTime::UNIX_EPOCH)));
        let gone = self.write(purge).await?;
        self.cache().sessions.retain(|_, session| session.is_valid_at(now));
        Ok(gone)
    }

    /// Everybody who signed in at least once, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY id").fetch_all(&self.inner.pool).await?;
        rows.iter().map(user_of_row).collect()
    }

    /// Sessions of this provider with a refresh token whose access token ends before `before`, the most urgent first, 100
    /// at most. Rows that do not open are logged and left out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn sessions_due_for_refresh(
        &self,
        idp_id: &str,
        before: SystemTime,
    ) -> Result<Vec<RefreshDue>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE refresh_at_ms < $1 AND idp_id = $2 ORDER BY refresh_at_ms, id LIMIT $3",
        )
        .bind(to_millis(before))
        .bind(idp_id)
        .bind(i64::try_from(DUE_MAX).unwrap_or(i64::MAX))
        .fetch_all(&self.inner.pool)
        .await?;
        let due_of_row = |row: &AnyRow| -> Result<RefreshDue, StoreError> {
            let session = session_of_row(row)?;
            let tokens = self.tokens_of_row(&session.id, row)?;
            Ok(RefreshDue { session, tokens })
        };
        // One damaged row must not keep everybody else's session from being refreshed.
        let readable = rows.iter().filter_map(|row| {
            due_of_row(row)
                .inspect_err(|error| {
                    tracing::error!(
                        error = error as &dyn std::error::Error,
                        "a stored session cannot be refreshed"
                    );
                })
                .ok()
        });
        Ok(readable.collect())
    }

    /// Takes the refresh of a session upon this gateway: `false` while another one of the same store is about it, or has
    /// just done it. A refresh token that is used twice ends the session at careful providers.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Sealed`].
    pub async fn take_refresh(&self, due: &RefreshDue, now: SystemTime) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(true);
        }
        if !self.claim_once(&refresh_key(due), now + REFRESH_TURN, now).await? {
            return Ok(false);
        }
        // Since it came due, another gateway may have been through with it.
        Ok(self.tokens(&due.session.id).await?.as_ref() == Some(&due.tokens))
    }

    /// Leaves a refresh that came to nothing to whoever tries next.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn leave_refresh(&self, due: &RefreshDue) -> Result<(), StoreError> {
        if self.is_shared() {
            self.write(sqlx::query("DELETE FROM claimed WHERE key = $1").bind(refresh_key(due))).await?;
        }
        Ok(())
    }

    fn tokens_of_row(&self, id: &SessionId, row: &AnyRow) -> Result<ProviderTokens, StoreError> {
        let sealed: Vec<u8> = row.try_get("tokens_sealed")?;
        let plain = aead::open(self.inner.master_key.expose(), &sealed, id.as_str().as_bytes())?;
        let tokens: SealedTokens = serde_json::from_slice(&plain).map_err(StoreError::Malformed)?;
        Ok(ProviderTokens {
            access: Secret::new(tokens.access),
            refresh: tokens.refresh.map(Secret::new),
            id_token: Secret::new(tokens.id_token),
            access_expires_at: tokens.access_expires_at_ms.map(from_millis),
        })
    }
}

fn refresh_key(due: &RefreshDue) -> String {
    format!("refresh:{}:{}", due.session.id, due.tokens.access_expires_at.map_or(0, to_millis))
}

/// The columns of a session that take work to make.
struct SessionRow {
    groups: String,
    claims: String,
    refresh_at: Option<i64>,
    sealed: Vec<u8>,
    /// The claims `sub` and `sid`: the provider ends sessions by them.
    subject: Option<String>,
    provider_session: Option<String>,
}

impl SessionRow {
    fn new(store: &Store, session: &Session, tokens: &ProviderTokens) -> Result<Self, StoreError> {
        let access_expires_at_ms = tokens.access_expires_at.map(to_millis);
        let plain = serde_json::to_vec(&SealedTokens {
            access: tokens.access.expose().clone(),
            refresh: tokens.refresh.as_ref().map(|token| token.expose().clone()),
            id_token: tokens.id_token.expose().clone(),
            access_expires_at_ms,
        })
        .map_err(StoreError::Malformed)?;
        let claim = |name: &str| Some(session.claims.get(name)?.first()?.as_str()?.to_owned());
        Ok(Self {
            subject: claim("sub"),
            provider_session: claim("sid"),
            groups: serde_json::to_string(&session.groups).map_err(StoreError::Malformed)?,
            claims: serde_json::to_string(&session.claims).map_err(StoreError::Malformed)?,
            refresh_at: access_expires_at_ms.filter(|_| tokens.refresh.is_some()),
            sealed: aead::seal(store.inner.master_key.expose(), &plain, session.id.as_str().as_bytes())?,
        })
    }
}

pub(super) fn user_of_row(row: &AnyRow) -> Result<User, StoreError> {
    Ok(User {
        id: UserId::new(row.try_get::<String, _>("id")?),
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        signed_in_at: from_millis(row.try_get("signed_in_at_ms")?),
    })
}

pub(super) fn session_of_row(row: &AnyRow) -> Result<Session, StoreError> {
    let groups: String = row.try_get("groups_json")?;
    let claims: String = row.try_get("claims_json")?;
    Ok(Session {
        id: SessionId::new(row.try_get::<String, _>("id")?),
        user_id: UserId::new(row.try_get::<String, _>("user_id")?),
        idp_id: row.try_get("idp_id")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        groups: serde_json::from_str(&groups).map_err(StoreError::Malformed)?,
        claims: serde_json::from_str(&claims).map_err(StoreError::Malformed)?,
        issued_at: from_millis(row.try_get("issued_at_ms")?),
        expires_at: from_millis(row.try_get("expires_at_ms")?),
        bound_to: row.try_get::<Option<String>, _>("bound_to")?.map(Thumbprint::from_text),
        vouched_until: row.try_get::<Option<i64>, _>("refresh_at_ms")?.map(from_millis),
        proof: proof_of_row(row)?,
    })
}

fn proof_of_row(row: &AnyRow) -> Result<Option<DeviceProof>, StoreError> {
    let device_id: Option<String> = row.try_get("proven_device")?;
    let until: Option<i64> = row.try_get("proven_until_ms")?;
    let proof = |(device_id, until)| DeviceProof { device_id, expires_at: from_millis(until) };
    Ok(device_id.zip(until).map(proof))
}
