//! The people of a store, read beside a running gateway: nothing is made, migrated, opened or changed.

use std::path::Path;

use sqlx::AnyPool;
use url::Url;

use super::{DATABASE_FILE, StoreError, User, database, directory, sessions};
use crate::{secret::Secret, session::Session};

/// A store that can only be read, and holds no key: the providers' tokens stay closed.
#[derive(Debug)]
pub struct StoreReader {
    pub(super) pool: AnyPool,
}

/// Somebody who signed in at least once, with the newest session that is kept, expired or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// As of the last sign-in.
    pub user: User,
    /// With claims, and the groups that the directory says; `None` when none is left.
    pub session: Option<Session>,
}

impl StoreReader {
    /// Opens the database in `folder`; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError::Folder`], [`StoreError::Database`].
    pub async fn open(folder: &Path) -> Result<Option<Self>, StoreError> {
        let database = folder.join(DATABASE_FILE);
        if !database.try_exists().map_err(StoreError::Folder)? {
            return Ok(None);
        }
        Ok(Some(Self { pool: database::open_file_for_reading(&database).await? }))
    }

    /// Opens the PostgreSQL database of `url`, in which a gateway has made its tables.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn open_postgres(url: &Secret<Url>) -> Result<Self, StoreError> {
        Ok(Self { pool: database::open_postgres_for_reading(url.expose()).await? })
    }

    /// The person of this email address or user id; of several, the one who signed in last.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Malformed`].
    pub async fn person(&self, who: &str) -> Result<Option<Known>, StoreError> {
        let found = sqlx::query(
            "SELECT * FROM users WHERE id = $1 OR email = $1 ORDER BY signed_in_at_ms DESC, id LIMIT 1",
        )
        .bind(who)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = found else { return Ok(None) };
        let user = sessions::user_of_row(&row)?;
        let session =
            sqlx::query("SELECT * FROM sessions WHERE user_id = $1 ORDER BY issued_at_ms DESC, id LIMIT 1")
                .bind(user.id.as_str())
                .fetch_optional(&self.pool)
                .await?;
        let mut session = session.as_ref().map(sessions::session_of_row).transpose()?;
        if let Some(own) = session.take() {
            session = directory::applied(&mut *self.pool.acquire().await?, own).await?;
        }
        Ok(Some(Known { user, session }))
    }

    /// Everybody, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Malformed`].
    pub async fn people(&self) -> Result<Vec<Known>, StoreError> {
        let users = sqlx::query("SELECT * FROM users ORDER BY id").fetch_all(&self.pool).await?;
        let mut people = Vec::with_capacity(users.len());
        for row in &users {
            people.push(Known { user: sessions::user_of_row(row)?, session: None });
        }
        let newest = sqlx::query(
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY issued_at_ms DESC, id) AS place \
             FROM sessions) AS placed WHERE place = 1 ORDER BY user_id",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut connection = self.pool.acquire().await?;
        for row in &newest {
            let applied = directory::applied(&mut connection, sessions::session_of_row(row)?).await?;
            let Some(session) = applied else { continue };
            // Both are by id; somebody who signed in for the first time between the two reads is left out.
            if let Ok(index) = people.binary_search_by(|known| known.user.id.cmp(&session.user_id)) {
                people[index].session = Some(session);
            }
        }
        Ok(people)
    }

    /// Closes the files.
    pub async fn close(self) {
        self.pool.close().await;
    }
}
