//! Service accounts: programs with a token of their own, made and revoked by the operator's commands.

use std::time::{Duration, SystemTime};

use sqlx::{Row, any::AnyRow};
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError, from_millis, to_millis};
use crate::session::{Session, SessionId, UserId};

/// The `idp_id` of their sessions: no identity provider vouches for them, this gateway does.
pub const SERVICE_ACCOUNT_IDP: &str = "service-account";
/// What their ids begin with. Ids of people's sessions are UUIDs and never do.
const ID_PREFIX: &str = "sa-";
/// How often the gateway looks whether a command has changed them beside it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A program that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Names it in its token.
    pub id: SessionId,
    /// What the operator calls it; policy sees `service-account/<name>` as its user.
    pub name: String,
    /// The groups that policy sees.
    pub groups: Vec<String>,
    /// When it was made.
    pub created_at: SystemTime,
    /// From this moment on its token is worth nothing.
    pub expires_at: SystemTime,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
}

impl ServiceAccount {
    /// One that is made now.
    #[must_use]
    pub fn new(name: &str, groups: Vec<String>, expires_at: SystemTime, now: SystemTime) -> Self {
        let id = SessionId::new(format!("{ID_PREFIX}{}", uuid::Uuid::new_v4()));
        Self { id, name: name.to_owned(), groups, created_at: now, expires_at, revoked_at: None }
    }

    /// Whether an id is that of a service account.
    #[must_use]
    pub fn is_id(id: &SessionId) -> bool {
        id.as_str().starts_with(ID_PREFIX)
    }

    /// The account as policy sees it: without an email, and never mistaken for a person.
    #[must_use]
    pub fn session(&self) -> Session {
        Session {
            id: self.id.clone(),
            user_id: UserId::new(format!("{SERVICE_ACCOUNT_IDP}/{}", self.name)),
            idp_id: SERVICE_ACCOUNT_IDP.to_owned(),
            email: String::new(),
            name: self.name.clone(),
            groups: self.groups.clone(),
            claims: [("service_account".to_owned(), vec![self.name.clone().into()])].into(),
            issued_at: self.created_at,
            expires_at: self.expires_at,
            bound_to: None,
            vouched_until: None,
            proof: None,
        }
    }
}

impl Store {
    /// Keeps a new account; `false` when there is one of this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn add_service_account(&self, account: &ServiceAccount) -> Result<bool, StoreError> {
        let add = sqlx::query(
            "INSERT INTO service_accounts (id, name, groups_json, created_at_ms, expires_at_ms) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        );
        let add = add
            .bind(account.id.as_str())
            .bind(&account.name)
            .bind(serde_json::to_string(&account.groups).map_err(StoreError::Malformed)?)
            .bind(to_millis(account.created_at))
            .bind(to_millis(account.expires_at));
        Ok(self.write(add).await? == 1)
    }

    /// All accounts, revoked ones as well, by name and age.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn service_accounts(&self) -> Result<Vec<ServiceAccount>, StoreError> {
        let rows = sqlx::query("SELECT * FROM service_accounts ORDER BY name, created_at_ms")
            .fetch_all(&self.inner.pool)
            .await?;
        rows.iter().map(account_of_row).collect()
    }

    /// Ends the account of this name at once and for good; `false` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_service_account(&self, name: &str, now: SystemTime) -> Result<bool, StoreError> {
        let revoke = sqlx::query(
            "UPDATE service_accounts SET revoked_at_ms = $2 WHERE name = $1 AND revoked_at_ms IS NULL",
        );
        let changed = self.write(revoke.bind(name).bind(to_millis(now))).await?;
        self.inner.changes.send_modify(|count| *count += 1);
        Ok(changed == 1)
    }

    /// The session of an account that is not revoked. Never from the cache: commands of another process write here.
    pub(super) async fn service_account_session(
        &self,
        id: &SessionId,
    ) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query("SELECT * FROM service_accounts WHERE id = $1 AND revoked_at_ms IS NULL")
            .bind(id.as_str())
            .fetch_optional(&self.inner.pool)
            .await?;
        row.map(|row| account_of_row(&row).map(|account| account.session())).transpose()
    }

    /// Tells who follows the store when another process has made or revoked a service account, until `cancel`: what is
    /// open for it is decided again within a second.
    pub async fn follow_service_accounts(self, cancel: CancellationToken) {
        if self.is_shared() {
            // Its database tells of them with all other changes.
            return;
        }
        let mut seen = None;
        let mut turn = tokio::time::interval(LOOK_INTERVAL);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = turn.tick() => {}
            }
            // Rows never go: made and revoked ones together tell each state from the next.
            let state = sqlx::query_as::<_, (i64, i64)>(
                "SELECT count(*), count(revoked_at_ms) FROM service_accounts",
            )
            .fetch_one(&self.inner.pool)
            .await;
            match state {
                Ok(state) if seen == Some(state) => {}
                Ok(state) => {
                    seen = Some(state);
                    self.inner.changes.send_modify(|count| *count += 1);
                }
                Err(error) => tracing::warn!(%error, "service accounts cannot be followed"),
            }
        }
    }
}

fn account_of_row(row: &AnyRow) -> Result<ServiceAccount, StoreError> {
    let groups: String = row.try_get("groups_json")?;
    Ok(ServiceAccount {
        id: SessionId::new(row.try_get::<String, _>("id")?),
        name: row.try_get("name")?,
        groups: serde_json::from_str(&groups).map_err(StoreError::Malformed)?,
        created_at: from_millis(row.try_get("created_at_ms")?),
        expires_at: from_millis(row.try_get("expires_at_ms")?),
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at_ms")?.map(from_millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::places::{Place, on_both};

    on_both! {
        a_service_account_is_a_session_until_another_process_revokes_it,
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    async fn a_service_account_is_a_session_until_another_process_revokes_it(place: &Place) {
        let (gateway, command) = (place.open().await, place.open().await);
        let account = ServiceAccount::new("ci", vec!["deploy".into()], at(100), at(1));
        assert!(command.add_service_account(&account).await.unwrap());
        let twin = ServiceAccount::new("ci", vec![], at(100), at(1));
        assert!(!command.add_service_account(&twin).await.unwrap(), "a name is one account's");
        let session = gateway.session(&account.id).await.unwrap().unwrap();
        assert_eq!((session.user_id.as_str(), session.email.as_str()), ("service-account/ci", ""));
        assert_eq!(session.groups, ["deploy"]);

        let mut changes = gateway.changes();
        let cancel = CancellationToken::new();
        let mut follower = tokio::task::JoinSet::new();
        follower.spawn(gateway.clone().follow_service_accounts(cancel.clone()));
        follower.spawn(gateway.clone().follow_outside_changes(cancel.clone()));
        changes.changed().await.unwrap();
        assert!(command.revoke_service_account("ci", at(2)).await.unwrap());
        changes.changed().await.unwrap();
        assert_eq!(gateway.session(&account.id).await.unwrap(), None);
        assert!(!command.revoke_service_account("ci", at(3)).await.unwrap());
        assert!(command.add_service_account(&twin).await.unwrap(), "the name is free again");
        assert_eq!(gateway.session(&account.id).await.unwrap(), None, "its old token stays worthless");
        cancel.cancel();
        follower.join_all().await;
    }
}
