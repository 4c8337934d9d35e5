//! Groups of the directory, and who is in them.

use std::{collections::BTreeSet, time::SystemTime};

use sqlx::{AnyConnection, Row};

use super::{
    DirectoryError, Page, Store, Window,
    sql::{self, Kind, changed, meta_of_row, new_meta, refused},
};
use crate::{
    scim::{
        ScimError,
        filter::{Filter, GroupAttribute},
        resource::{Group, Meta},
    },
    store::to_millis,
};

impl Store {
    /// Keeps a new group.
    ///
    /// # Errors
    /// [`ScimError::Uniqueness`], [`ScimError::InvalidValue`] (a member is not there), [`DirectoryError::Store`].
    pub async fn add_directory_group(
        &self,
        group: &Group,
        now: SystemTime,
    ) -> Result<(Meta, Group), DirectoryError> {
        let meta = new_meta(now);
        let mut transaction = self.begin_write().await?;
        sql::room_for_one_more(&mut transaction, Kind::Groups).await?;
        sqlx::query(
            "INSERT INTO directory_groups (id, display_name, external_id, created_at_ms, changed_at_ms) \
             VALUES ($1, $2, $3, $4, $4)",
        )
        .bind(&meta.id)
        .bind(&group.display_name)
        .bind(&group.external_id)
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await
        .map_err(refused)?;
        put_members(&mut transaction, &meta.id, &BTreeSet::new(), &group.members).await?;
        transaction.commit().await?;
        self.forget_all();
        Ok((meta, group.clone()))
    }

    /// The group of this id.
    ///
    /// # Errors
    /// [`ScimError::NotFound`], [`DirectoryError::Store`].
    pub async fn directory_group(&self, id: &str) -> Result<(Meta, Group), DirectoryError> {
        let mut connection = self.inner.pool.acquire().await?;
        kept_group(&mut connection, id).await
    }

    /// The groups that meet a filter, those pushed first before the others.
    ///
    /// # Errors
    /// [`DirectoryError::Store`].
    pub async fn directory_groups(
        &self,
        filter: &Filter<GroupAttribute>,
        window: Window,
    ) -> Result<Page<(Meta, Group)>, DirectoryError> {
        let condition = |(attribute, value): &(GroupAttribute, String)| match attribute {
            GroupAttribute::Id => ("id = ?", value.clone()),
            GroupAttribute::DisplayName => ("lower(display_name) = ?", value.to_ascii_lowercase()),
            GroupAttribute::ExternalId => ("external_id = ?", value.clone()),
            GroupAttribute::Member => {
                ("id IN (SELECT group_id FROM directory_members WHERE user_id = ?)", value.clone())
            }
        };
        let conditions: Vec<_> = filter.all.iter().map(condition).collect();
        let mut connection = self.inner.pool.acquire().await?;
        let (total, ids) = sql::window(&mut connection, Kind::Groups, &conditions, window).await?;
        let mut items = Vec::with_capacity(ids.len());
        for id in &ids {
            match kept_group(&mut connection, id).await {
                Ok(group) => items.push(group),
                // Removed since.
                Err(DirectoryError::Refused(ScimError::NotFound)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page { total, items })
    }

    /// Makes of a group what `change` says.
    ///
    /// # Errors
    /// Those of `change`; [`ScimError::NotFound`], and as [`Self::add_directory_group`].
    pub async fn change_directory_group(
        &self,
        id: &str,
        change: impl FnOnce(Group) -> Result<Group, ScimError> + Send,
        now: SystemTime,
    ) -> Result<(Meta, Group), DirectoryError> {
        let mut transaction = self.begin_write().await?;
        let (meta, old) = kept_group(&mut transaction, id).await?;
        let group = change(old.clone())?;
        if group == old {
            return Ok((meta, old));
        }
        sqlx::query(
            "UPDATE directory_groups SET display_name = $2, external_id = $3, changed_at_ms = $4 WHERE id = $1",
        )
        .bind(id)
        .bind(&group.display_name)
        .bind(&group.external_id)
        .bind(to_millis(now))
        .execute(&mut *transaction)
        .await
        .map_err(refused)?;
        put_members(&mut transaction, id, &old.members, &group.members).await?;
        transaction.commit().await?;
        self.forget_all();
        Ok((changed(meta, now), group))
    }

    /// Forgets a group.
    ///
    /// # Errors
    /// [`ScimError::NotFound`], [`DirectoryError::Store`].
    pub async fn remove_directory_group(&self, id: &str) -> Result<(), DirectoryError> {
        let mut transaction = self.begin_write().await?;
        let done = sqlx::query("DELETE FROM directory_groups WHERE id = $1")
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            return Err(ScimError::NotFound.into());
        }
        transaction.commit().await?;
        self.forget_all();
        Ok(())
    }
}

async fn put_members(
    connection: &mut AnyConnection,
    id: &str,
    old: &BTreeSet<String>,
    new: &BTreeSet<String>,
) -> Result<(), DirectoryError> {
    for gone in old.difference(new) {
        sqlx::query("DELETE FROM directory_members WHERE group_id = $1 AND user_id = $2")
            .bind(id)
            .bind(gone)
            .execute(&mut *connection)
            .await?;
    }
    for added in new.difference(old) {
        let done = sqlx::query(
            "INSERT INTO directory_members (group_id, user_id) \
             SELECT $1, id FROM directory_users WHERE id = $2 AND removed_at_ms IS NULL",
        )
        .bind(id)
        .bind(added)
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() == 0 {
            return Err(ScimError::InvalidValue("a member is no user that was pushed to this gateway").into());
        }
    }
    Ok(())
}

async fn kept_group(connection: &mut AnyConnection, id: &str) -> Result<(Meta, Group), DirectoryError> {
    let row = sqlx::query("SELECT * FROM directory_groups WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(ScimError::NotFound)?;
    let members: Vec<String> =
        sqlx::query_scalar("SELECT user_id FROM directory_members WHERE group_id = $1")
            .bind(id)
            .fetch_all(connection)
            .await?;
    let group = Group {
        display_name: row.try_get("display_name")?,
        external_id: row.try_get("external_id")?,
        members: members.into_iter().collect(),
    };
    Ok((meta_of_row(&row)?, group))
}
