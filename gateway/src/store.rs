//! Sessions, users and keys, kept in SQLite: what was acknowledged survives a crash.
//!
//! The identity provider's tokens and the gateway's own secrets are encrypted at rest with a key that lies beside the
//! database, in a file that only the gateway may read. Whoever needs to know that something changed watches
//! [`Store::changes`].

mod sealed;
mod sessions;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use sqlx::{
    Row as _, SqlSafeStr as _, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use self::sealed::SealKey;
pub use self::sessions::ProviderTokens;

/// For a connection of the pool, and for SQLite's own lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections to the database file.
const CONNECTIONS_MAX: u32 = 4;

/// Where the gateway keeps what must not be lost. Clones share the database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    seal: Arc<SealKey>,
    changes: watch::Sender<u64>,
}

/// Why the store cannot answer. No answer means no access.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or the key file.
    #[error("cannot use the folder of the store; it must be writable by the gateway alone")]
    Folder(#[from] io::Error),
    /// The database.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The database's schema.
    #[error("the database could not be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row that this gateway cannot have written.
    #[error("the database holds a damaged {0}")]
    Damaged(&'static str),
}

impl Store {
    /// Opens the store in a folder, which is made if needed (mode 0700).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let seal = SealKey::new(&master_key(&folder.join("master.key"))?);
        let file = folder.join("pomerium.db");
        // Made by us so that its mode is ours, not the umask's.
        fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&file)?;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        Self::connect(options, CONNECTIONS_MAX, seal).await
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn in_memory() -> Result<Self, StoreError> {
        Self::connect(SqliteConnectOptions::new().in_memory(true), 1, SealKey::new(&random_key())).await
    }

    async fn connect(options: SqliteConnectOptions, connections: u32, seal: SealKey) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options)
            .await?;
        migrations().run(&pool).await?;
        Ok(Self { pool, seal: Arc::new(seal), changes: watch::Sender::new(0) })
    }

    /// Waits for what is under way and closes the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Counts changes of sessions: whoever holds a decision takes it again when the count moves.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The secret of this name; made at random the first time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn secret(&self, name: &'static str) -> Result<[u8; 32], StoreError> {
        let fresh = self.seal.seal(&random_key(), name);
        sqlx::query("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)")
            .bind(name)
            .bind(fresh)
            .execute(&self.pool)
            .await?;
        let row = sqlx::query("SELECT value FROM secrets WHERE name = ?").bind(name).fetch_one(&self.pool).await?;
        let sealed: Vec<u8> = row.try_get(0)?;
        let secret = self.seal.open(&sealed, name).ok_or(StoreError::Damaged("secret"))?;
        secret.try_into().map_err(|_| StoreError::Damaged("secret"))
    }

    /// Takes something that may be used once: `true` for the first caller, `false` for every other, restarts included.
    ///
    /// # Errors
    /// [`StoreError`]; the caller has not got it.
    pub async fn claim_once(&self, key: &str, expires_at: SystemTime, now: SystemTime) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM used WHERE expires_at < ?").bind(unix(now)).execute(&self.pool).await?;
        let inserted = sqlx::query("INSERT OR IGNORE INTO used (key, expires_at) VALUES (?, ?)")
            .bind(key)
            .bind(unix(expires_at))
            .execute(&self.pool)
            .await?;
        Ok(inserted.rows_affected() == 1)
    }
}

fn migrations() -> Migrator {
    let first = Migration::new(
        1,
        "sessions, users, secrets".into(),
        MigrationType::Simple,
        sqlx::AssertSqlSafe(include_str!("store/0001_first.sql")).into_sql_str(),
        false,
    );
    Migrator::with_migrations(vec![first])
}

fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).expect("the system's random source answers");
    key
}

/// Reads the key file, or makes it.
fn master_key(path: &Path) -> io::Result<[u8; 32]> {
    use std::io::Write as _;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let key = random_key();
            file.write_all(&key)?;
            file.sync_all()?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let bytes = fs::read(path)?;
            bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "master.key must hold 32 bytes"))
        }
        Err(error) => Err(error),
    }
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn from_unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
