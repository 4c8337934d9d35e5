//! What a directory has pushed: people and groups, and what that means for somebody's session.
//!
//! A session's person is the user whose `externalId` is the person's user id at the identity provider, else the one whose
//! `userName` is their email address, else the one who has that address among their `emails`. Whoever is found so has
//! the groups that the directory says, in place of those of their claims, and no session at all while not `active`. Who was
//! removed is not there any more for the directory, and stays out for the gateway until the directory names them again.

mod groups;
mod removed;
mod sql;
#[cfg(test)]
mod tests;

use std::time::SystemTime;

use sqlx::{AnyConnection, Row, any::AnyRow};

use self::sql::{Kind, changed, meta_of_row, new_meta, refused};
pub use self::sql::{Page, Window};
use super::{Store, StoreError, flag, to_millis};
use crate::{
    scim::{
        ScimError,
        filter::{Filter, UserAttribute},
        resource::{Meta, User},
    },
    session::{Session, SessionId, WORKLOAD_IDP_PREFIX},
};

/// Why the directory was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It was asked for what cannot be.
    #[error(transparent)]
    Refused(#[from] ScimError),
    /// Nothing is known.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for DirectoryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Database(error))
    }
}

/// A user as kept, with the ids and names of their groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptUser {
    /// What the gateway itself says of them.
    pub meta: Meta,
    /// What the directory says.
    pub user: User,
    /// Ids and names.
    pub groups: Vec<(String, String)>,
}

/// What the directory says of a session's person.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Nothing: they are not in it.
    Unknown,
    /// They may not come in.
    Inactive,
    /// They may, and are in these groups.
    Active(Vec<String>),
}

impl Store {
    /// Keeps a new user.
    ///
    /// # Errors
    /// [`ScimError::Uniqueness`], [`ScimError::Full`], [`StoreError::Database`].
    pub async fn add_directory_user(&self, user: &User, now: SystemTime) -> Result<KeptUser, DirectoryError> {
        let meta = new_meta(now);
        let mut transaction = self.begin_write().await?;
        removed::name_again(&mut transaction, user).await?;
        sql::room_for_one_more(&mut transaction, Kind::Users).await?;
        sqlx::query(
            "INSERT INTO directory_users (id, user_name, external_id, is_active, resource_json, created_at_ms, \
             changed_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $6)",
        )
        .bind(&meta.id)
        .bind(&user.user_name)
        .bind(&user.external_id)
        .bind(i64::from(user.is_active))
        .bind(serde_json::to_string(user).map_err(StoreError::Malformed)?)
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await
        .map_err(refused)?;
        put_emails(&mut transaction, &meta.id, user).await?;
        if !user.is_active {
            let theirs = sessions_of(&mut transaction, &meta.id).await?;
            end_sessions(&mut transaction, &theirs).await?;
        }
        transaction.commit().await?;
        self.forget_all();
        Ok(KeptUser { meta, user: user.clone(), groups: Vec::new() })
    }

    /// The user of this id.
    ///
    /// # Errors
    /// [`ScimError::NotFound`], [`StoreError::Database`].
    pub async fn directory_user(&self, id: &str) -> Result<KeptUser, DirectoryError> {
        let mut connection = self.inner.pool.acquire().await.map_err(StoreError::Database)?;
        kept_user(&mut connection, id).await
    }

    /// The users that meet a filter, those pushed first before the others.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn directory_users(
        &self,
        filter: &Filter<UserAttribute>,
        window: Window,
    ) -> Result<Page<KeptUser>, DirectoryError> {
        let condition = |(attribute, value): &(UserAttribute, String)| match attribute {
            UserAttribute::Id => ("id = ?", value.clone()),
            UserAttribute::UserName => ("lower(user_name) = ?", value.to_ascii_lowercase()),
            UserAttribute::ExternalId => ("external_id = ?", value.clone()),
            UserAttribute::Email => (
                "id IN (SELECT user_id FROM directory_emails WHERE lower(value) = ?)",
                value.to_ascii_lowercase(),
            ),
        };
        let conditions: Vec<_> = filter.all.iter().map(condition).collect();
        let mut connection = self.inner.pool.acquire().await.map_err(StoreError::Database)?;
        let (total, ids) = sql::window(&mut connection, Kind::Users, &conditions, window).await?;
        let mut items = Vec::with_capacity(ids.len());
        for id in &ids {
            match kept_user(&mut connection, id).await {
                Ok(user) => items.push(user),
                // Removed since.
                Err(DirectoryError::Refused(ScimError::NotFound)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page { total, items })
    }

    /// Makes of a user what `change` says; who is then not active has no session left.
    ///
    /// # Errors
    /// Those of `change`; [`ScimError::NotFound`], [`ScimError::Uniqueness`], [`StoreError::Database`].
    pub async fn change_directory_user(
        &self,
        id: &str,
        change: impl FnOnce(User) -> Result<User, ScimError> + Send,
        now: SystemTime,
    ) -> Result<KeptUser, DirectoryError> {
        let mut transaction = self.begin_write().await?;
        let old = kept_user(&mut transaction, id).await?;
        let user = change(old.user.clone())?;
        if user == old.user {
            return Ok(old);
        }
        // Under the old name and under the new one.
        let mut theirs = sessions_of(&mut transaction, id).await?;
        removed::name_again(&mut transaction, &user).await?;
        sqlx::query(
            "UPDATE directory_users SET user_name = $2, external_id = $3, is_active = $4, resource_json = $5, \
             changed_at_ms = $6 WHERE id = $1",
        )
        .bind(id)
        .bind(&user.user_name)
        .bind(&user.external_id)
        .bind(i64::from(user.is_active))
        .bind(serde_json::to_string(&user).map_err(StoreError::Malformed)?)
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await
        .map_err(refused)?;
        put_emails(&mut transaction, id, &user).await?;
        if !user.is_active {
            theirs.extend(sessions_of(&mut transaction, id).await?);
            end_sessions(&mut transaction, &theirs).await?;
        }
        transaction.commit().await?;
        self.forget_all();
        Ok(KeptUser { meta: changed(old.meta, now), user, ..old })
    }

    /// Removes a user for the directory: their sessions end, and they stay out until it names them again.
    ///
    /// # Errors
    /// [`ScimError::NotFound`], [`StoreError::Database`].
    pub async fn remove_directory_user(&self, id: &str, now: SystemTime) -> Result<(), DirectoryError> {
        let mut transaction = self.begin_write().await?;
        let theirs = sessions_of(&mut transaction, id).await?;
        end_sessions(&mut transaction, &theirs).await?;
        removed::remove(&mut transaction, id, now).await?;
        transaction.commit().await?;
        self.forget_all();
        Ok(())
    }

    /// Whether the directory keeps this session's person out.
    ///
    /// # Errors
    /// [`StoreError::Database`]: nothing is known, which is not "no".
    pub async fn is_deactivated(&self, session: &Session) -> Result<bool, StoreError> {
        let mut connection = self.inner.pool.acquire().await?;
        Ok(standing(&mut connection, session).await? == Standing::Inactive)
    }
}

/// A session as the directory wants it: `None` for somebody who may not come in.
pub(super) async fn applied(
    connection: &mut AnyConnection,
    session: Session,
) -> Result<Option<Session>, StoreError> {
    Ok(match standing(connection, &session).await? {
        Standing::Unknown => Some(session),
        Standing::Inactive => None,
        Standing::Active(groups) => Some(Session { groups, ..session }),
    })
}

async fn standing(connection: &mut AnyConnection, session: &Session) -> Result<Standing, StoreError> {
    // A program is nobody in the directory, whatever ids its users may have there.
    if session.idp_id.starts_with(WORKLOAD_IDP_PREFIX) {
        return Ok(Standing::Unknown);
    }
    let found = matching(connection, session.user_id.as_str(), &session.email).await?;
    // An address that several have: nobody knows whose groups count, so none do.
    Ok(match found.as_slice() {
        [] => Standing::Unknown,
        several if several.iter().any(|one| !one.is_active) => Standing::Inactive,
        [one] => {
            let groups = sqlx::query_scalar(
                "SELECT display_name FROM directory_members JOIN directory_groups ON id = group_id \
                 WHERE user_id = $1 ORDER BY lower(display_name)",
            )
            .bind(&one.id)
            .fetch_all(connection)
            .await?;
            Standing::Active(groups)
        }
        _ => Standing::Active(Vec::new()),
    })
}

/// A user who may be a session's person.
struct Match {
    id: String,
    is_active: bool,
}

/// The users whom the first rule that finds any finds.
async fn matching(
    connection: &mut AnyConnection,
    user_id: &str,
    email: &str,
) -> Result<Vec<Match>, StoreError> {
    // An empty address or id is nobody's: the directory's are never empty.
    let rows = sqlx::query(
        "SELECT id, is_active, 0 AS rank FROM directory_users WHERE external_id = $1 \
         UNION ALL SELECT id, is_active, 1 FROM directory_users WHERE lower(user_name) = $2 \
         UNION ALL SELECT id, is_active, 2 FROM directory_users \
         WHERE id IN (SELECT user_id FROM directory_emails WHERE lower(value) = $2) ORDER BY rank",
    )
    .bind(user_id)
    .bind(email.to_ascii_lowercase())
    .fetch_all(connection)
    .await?;
    let rank = |row: &AnyRow| row.try_get::<i64, _>("rank");
    let Some(first) = rows.first().map(rank).transpose()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for row in &rows {
        if rank(row)? == first {
            found.push(Match { id: row.try_get("id")?, is_active: flag(row, "is_active")? });
        }
    }
    Ok(found)
}

/// The sessions of the people whom the directory takes for this user.
async fn sessions_of(connection: &mut AnyConnection, id: &str) -> Result<Vec<SessionId>, StoreError> {
    let candidates = sqlx::query(
        "SELECT sessions.id, sessions.user_id, sessions.email FROM sessions JOIN directory_users AS u ON u.id = $1 \
         WHERE substr(sessions.idp_id, 1, length($2)) <> $2 AND (sessions.user_id = u.external_id OR lower(sessions.email) = lower(u.user_name) \
         OR lower(sessions.email) IN (SELECT lower(value) FROM directory_emails WHERE user_id = u.id))",
    )
    .bind(id)
    .bind(WORKLOAD_IDP_PREFIX)
    .fetch_all(&mut *connection)
    .await?;
    let mut theirs = Vec::new();
    for row in &candidates {
        let (user_id, email): (String, String) = (row.try_get("user_id")?, row.try_get("email")?);
        if matching(connection, &user_id, &email).await?.iter().any(|found| found.id == id) {
            theirs.push(SessionId::new(row.try_get::<String, _>("id")?));
        }
    }
    Ok(theirs)
}

async fn end_sessions(connection: &mut AnyConnection, ids: &[SessionId]) -> Result<(), StoreError> {
    for id in ids {
        sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id.as_str()).execute(&mut *connection).await?;
    }
    if !ids.is_empty() {
        tracing::info!(sessions = ids.len(), "the directory ended somebody's sessions");
    }
    Ok(())
}

async fn put_emails(connection: &mut AnyConnection, id: &str, user: &User) -> Result<(), DirectoryError> {
    sqlx::query("DELETE FROM directory_emails WHERE user_id = $1").bind(id).execute(&mut *connection).await?;
    for email in &user.emails {
        sqlx::query("INSERT INTO directory_emails (user_id, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(id)
            .bind(&email.value)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn kept_user(connection: &mut AnyConnection, id: &str) -> Result<KeptUser, DirectoryError> {
    let row = sqlx::query("SELECT * FROM directory_users WHERE id = $1 AND removed_at_ms IS NULL")
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(ScimError::NotFound)?;
    let resource: String = row.try_get("resource_json")?;
    let groups = sqlx::query_as(
        "SELECT id, display_name FROM directory_members JOIN directory_groups ON id = group_id WHERE user_id = $1 \
         ORDER BY lower(display_name)",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let user = serde_json::from_str(&resource).map_err(StoreError::Malformed)?;
    Ok(KeptUser { meta: meta_of_row(&row)?, user, groups })
}
