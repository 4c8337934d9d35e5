//! The database under the store: SQLite in one folder (or in memory), or PostgreSQL, which several gateways share.
//!
//! One text of SQL serves both: sqlx's `Any` chooses the driver by the URL. Flags are numbers in both, texts are compared
//! octet by octet, and what ignores the case of ASCII letters says `lower(column)` and binds folded text.

use std::{borrow::Cow, path::Path, time::Duration};

use sqlx::{
    Any, AnyPool, ConnectOptions, Connection, Executor, SqlSafeStr, Transaction,
    any::{AnyArguments, AnyConnectOptions, AnyPoolOptions},
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
    query::Query,
};
use url::Url;

use super::{Store, StoreError};
use crate::secret::Secret;

/// Readers of a SQLite file at once; it has one writer whatever we say.
const SQLITE_CONNECTIONS_MAX: u32 = 4;
/// Connections of one gateway to PostgreSQL, beside the one that hears of changes.
const POSTGRES_CONNECTIONS_MAX: u32 = 10;
/// How long a call waits for a connection: so long may a database take to come back without anybody being refused.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new connection may take to PostgreSQL, and the migration of its tables after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(300);

/// An acknowledged write survives a power cut, not only a crash of the process; a write waits for another one.
const SQLITE_SETTINGS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";
/// A gateway that has died amid a write holds up the others for so long and no longer.
const POSTGRES_SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = '10s'; SET tcp_keepalives_idle = 10; \
     SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";
/// What only reads must not write by mistake.
const POSTGRES_READING: &str = "SET default_transaction_read_only = on; SET statement_timeout = '60s'";

/// The lock of whoever writes: a number of our own in this database.
const WRITER_LOCK: i64 = 0x706f_6d65_7269_756d;

/// Which database it is.
#[derive(Debug)]
pub(super) enum Backend {
    Sqlite,
    /// With the options of a connection of its own, for hearing of changes.
    Postgres(Box<Secret<PgConnectOptions>>),
}

/// Opens the file of a folder, which is there, and brings its tables up to date.
pub(super) async fn open_file(database: &Path) -> Result<AnyPool, StoreError> {
    let pool = pool(SQLITE_CONNECTIONS_MAX, Some(SQLITE_SETTINGS))
        .connect_with(sqlite(database, "rw").map_err(StoreError::Database)?)
        .await?;
    sqlite_migrations().run(&pool).await?;
    Ok(pool)
}

/// Opens the file of a folder, and changes nothing.
pub(super) async fn open_file_for_reading(database: &Path) -> Result<AnyPool, StoreError> {
    let options = sqlite(database, "ro").map_err(StoreError::Database)?;
    Ok(pool(SQLITE_CONNECTIONS_MAX, None).connect_with(options).await?)
}

/// Makes a database that is gone with the process.
pub(super) async fn open_memory() -> Result<AnyPool, StoreError> {
    // Each connection to `:memory:` is a database of its own: there must be one, for ever.
    let pool = pool(1, None).min_connections(1).idle_timeout(None).max_lifetime(None);
    let pool = pool.connect("sqlite::memory:").await?;
    sqlite_migrations().run(&pool).await?;
    Ok(pool)
}

/// Opens PostgreSQL, and brings its tables up to date; of several gateways that start at once, one does so.
pub(super) async fn open_postgres(url: &Url) -> Result<(AnyPool, Backend), StoreError> {
    let options = AnyConnectOptions::from_url(url)?;
    let listening = PgConnectOptions::from_url(url)?;
    sqlx::any::install_default_drivers();
    // A connection of its own: waiting for another gateway's migration is not bounded as other statements are. It also
    // says why a database cannot be reached, where a pool only says that it waited.
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect());
    let mut connection = connecting.await.map_err(|_| StoreError::Silent)??;
    tokio::time::timeout(MIGRATE_TIMEOUT, postgres_migrations().run(&mut connection))
        .await
        .map_err(|_| StoreError::Silent)??;
    connection.close().await?;
    let pool = pool(POSTGRES_CONNECTIONS_MAX, Some(POSTGRES_SETTINGS)).connect_with(options).await?;
    Ok((pool, Backend::Postgres(Box::new(Secret::new(listening)))))
}

/// Opens PostgreSQL, and changes nothing.
pub(super) async fn open_postgres_for_reading(url: &Url) -> Result<AnyPool, StoreError> {
    let options = AnyConnectOptions::from_url(url)?;
    Ok(pool(1, Some(POSTGRES_READING)).connect_with(options).await?)
}

/// A pool whose connections begin with `settings`.
fn pool(connections_max: u32, settings: Option<&'static str>) -> AnyPoolOptions {
    sqlx::any::install_default_drivers();
    AnyPoolOptions::new().max_connections(connections_max).acquire_timeout(ACQUIRE_TIMEOUT).after_connect(
        move |connection, _| {
            Box::pin(async move {
                if let Some(settings) = settings {
                    connection.execute(settings).await?;
                }
                Ok(())
            })
        },
    )
}

fn sqlite(database: &Path, mode: &str) -> Result<AnyConnectOptions, sqlx::Error> {
    let unusable = || sqlx::Error::Configuration("the storage folder's name cannot be used".into());
    let absolute = std::path::absolute(database)?;
    let file = Url::from_file_path(absolute).map_err(|()| unusable())?;
    format!("sqlite://{}?mode={mode}", file.path()).parse()
}

impl Store {
    /// A transaction that nobody else's write comes between, here or at another gateway: what it reads stays true until it
    /// ends. All that writes does so in one.
    pub(super) async fn begin_write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match &self.inner.backend {
            Backend::Sqlite => self.inner.pool.begin_with("BEGIN IMMEDIATE").await,
            Backend::Postgres(_) => {
                let mut transaction = self.inner.pool.begin().await?;
                // Released with the transaction, however that ends.
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(WRITER_LOCK)
                    .execute(&mut *transaction)
                    .await?;
                Ok(transaction)
            }
        }
    }

    /// Runs a single statement that writes, and says how many rows it has changed.
    pub(super) async fn write(&self, statement: Query<'_, Any, AnyArguments>) -> Result<u64, sqlx::Error> {
        let mut transaction = self.begin_write().await?;
        let done = statement.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }
}

fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
}

fn sqlite_migrations() -> Migrator {
    Migrator::with_migrations(vec![
        migration(1, "sessions", include_str!("migrations/0001_sessions.sql")),
        migration(2, "bound sessions", include_str!("migrations/0002_bound_sessions.sql")),
        migration(3, "identity", include_str!("migrations/0003_identity.sql")),
        migration(4, "devices", include_str!("migrations/0004_devices.sql")),
        migration(5, "webauthn", include_str!("migrations/0005_webauthn.sql")),
        migration(6, "directory", include_str!("migrations/0006_directory.sql")),
        migration(7, "wireguard peers", include_str!("migrations/0007_wireguard_peers.sql")),
        migration(8, "virtual addresses", include_str!("migrations/0008_virtual_addresses.sql")),
        migration(9, "portable", include_str!("migrations/0009_portable.sql")),
    ])
}

fn postgres_migrations() -> Migrator {
    Migrator::with_migrations(vec![migration(1, "store", include_str!("migrations/postgres/0001_store.sql"))])
}
