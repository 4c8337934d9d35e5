//! What users and groups of the directory have in common in the database.

use std::time::SystemTime;

use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

use super::{DirectoryError, StoreError};
use crate::{
    scim::{ScimError, resource::Meta},
    store::{from_millis, to_millis},
};

/// A part of what a filter finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many are left out at the start.
    pub skip: usize,
    /// How many are given at most.
    pub count: usize,
}

/// What a window shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// How many the filter finds.
    pub total: usize,
    /// Those in the window.
    pub items: Vec<T>,
}

/// Users and groups that are kept at most, each; removed users count.
const KEPT_MAX: i64 = 100_000;

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Users,
    Groups,
}

impl Kind {
    const fn table(self) -> &'static str {
        match self {
            Self::Users => "directory_users",
            Self::Groups => "directory_groups",
        }
    }

    /// What holds for the rows that the directory sees.
    const fn visible(self) -> &'static str {
        match self {
            Self::Users => "removed_at_ms IS NULL",
            Self::Groups => "TRUE",
        }
    }
}

/// A condition with `?` in the place of its value, and the value.
pub(super) type Condition = (&'static str, String);

/// How many rows meet all `conditions`, and the ids of those in the window.
pub(super) async fn window(
    connection: &mut AnyConnection,
    kind: Kind,
    conditions: &[Condition],
    window: Window,
) -> Result<(usize, Vec<String>), StoreError> {
    let mut found = format!("FROM {} WHERE {}", kind.table(), kind.visible());
    for (index, (condition, _)) in conditions.iter().enumerate() {
        found += &format!(" AND {}", condition.replace('?', &format!("${}", index + 1)));
    }
    let (limit, offset) = (conditions.len() + 1, conditions.len() + 2);
    let part = format!("SELECT id {found} ORDER BY created_at_ms, id LIMIT ${limit} OFFSET ${offset}");
    let mut count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) {found}")));
    let mut ids = sqlx::query_scalar(AssertSqlSafe(part));
    for (_, value) in conditions {
        (count, ids) = (count.bind(value.as_str()), ids.bind(value.as_str()));
    }
    let total: i64 = count.fetch_one(&mut *connection).await?;
    let ids = ids.bind(to_i64(window.count)).bind(to_i64(window.skip)).fetch_all(connection).await?;
    Ok((usize::try_from(total).unwrap_or(0), ids))
}

/// Refuses what would be one too many.
pub(super) async fn room_for_one_more(
    connection: &mut AnyConnection,
    kind: Kind,
) -> Result<(), DirectoryError> {
    let count = format!("SELECT count(*) FROM {}", kind.table());
    let kept: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(connection).await?;
    if kept >= KEPT_MAX { Err(ScimError::Full.into()) } else { Ok(()) }
}

/// What is new gets an id of its own, and the time as the database keeps it.
pub(super) fn new_meta(now: SystemTime) -> Meta {
    let now = from_millis(to_millis(now));
    Meta { id: uuid::Uuid::new_v4().to_string(), created_at: now, changed_at: now }
}

/// The same resource, changed.
pub(super) fn changed(meta: Meta, now: SystemTime) -> Meta {
    Meta { changed_at: from_millis(to_millis(now)), ..meta }
}

pub(super) fn meta_of_row(row: &AnyRow) -> Result<Meta, StoreError> {
    Ok(Meta {
        id: row.try_get("id")?,
        created_at: from_millis(row.try_get("created_at_ms")?),
        changed_at: from_millis(row.try_get("changed_at_ms")?),
    })
}

/// What the database's own rules refuse is the directory's mistake, and everything else is ours.
pub(super) fn refused(error: sqlx::Error) -> DirectoryError {
    match error.as_database_error() {
        Some(database) if database.is_unique_violation() => ScimError::Uniqueness.into(),
        _ => error.into(),
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
