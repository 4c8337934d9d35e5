//! What must outlive the process: sessions, users, the providers' tokens, what was used once, and keys.
//!
//! SQLite in one folder (or in memory). Tokens and keys are encrypted at rest under `master.key` beside the
//! database. No policy, no HTTP and no clock live here: moments are arguments. `authenticate` writes, whoever has
//! a credential to resolve reads.

pub mod aead;
mod device_codes;
mod devices;
mod directory;
mod files;
mod once;
mod outside;
mod peers;
mod reading;
mod service_accounts;
mod sessions;
#[cfg(test)]
mod tests;
mod virtual_addresses;
mod webauthn;

use std::{
    borrow::Cow,
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    SqlSafeStr, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use self::devices::DeviceKey;
pub use self::{
    device_codes::{DeviceCode, DevicePoll},
    directory::{DirectoryError, KeptUser, Page, Window},
    peers::AddPeerError,
    reading::{Known, StoreReader},
    service_accounts::{SERVICE_ACCOUNT_IDP, ServiceAccount},
    sessions::{ProviderTokens, RefreshDue, User},
    virtual_addresses::VirtualAddressError,
    webauthn::{Enrolled, device_id_of},
};
pub(crate) use self::{sessions::DUE_MAX, webauthn::CREDENTIALS_MAX};
use crate::{
    device::{Device, UnknownDeviceKind},
    secret::Secret,
    session::{Session, SessionId},
};

/// File name of the database in its folder.
const DATABASE_FILE: &str = "pomerium.sqlite";
/// File name of the key that seals tokens and keys at rest.
const MASTER_KEY_FILE: &str = "master.key";
/// Readers at once; SQLite has one writer whatever we say.
const CONNECTIONS_MAX: u32 = 4;
/// How long a write waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Sessions kept for reading without the database, at most; the cache starts anew when it is full.
const CACHED_SESSIONS_MAX: usize = 10_000;

/// Sessions, users, single uses and keys, kept over restarts. Clones share one database.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: SqlitePool,
    master_key: Secret<[u8; 32]>,
    cache: Mutex<Cache>,
    /// Whether another process writes too: what it ended must not be read from the cache.
    is_beside: bool,
    changes: watch::Sender<u64>,
}

/// Sessions and devices as the database has them. `generation` rises with each write, so that a slow reader cannot put back
/// what was ended while it read.
#[derive(Debug, Default)]
struct Cache {
    generation: u64,
    sessions: HashMap<SessionId, Arc<Session>>,
    devices: HashMap<DeviceKey, Device>,
}

/// Why the store could not answer. Never means "no such session".
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or the master key could not be read or made.
    #[error("the storage folder cannot be used: check that it exists and belongs to the gateway's user")]
    Folder(#[source] io::Error),
    /// The database said no.
    #[error("the session database failed")]
    Database(#[from] sqlx::Error),
    /// The database's tables could not be brought up to date.
    #[error("the session database could not be migrated: it may be newer than this gateway")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A sealed value does not open: the master key was replaced, or somebody changed the database.
    #[error("a sealed value does not open: master.key does not belong to this database")]
    Sealed(#[from] aead::AeadError),
    /// A row holds what no version of the gateway wrote.
    #[error("the session database holds a malformed row")]
    Malformed(#[source] serde_json::Error),
    /// A device of a kind that this gateway does not know.
    #[error("the session database holds a device of an unknown kind: it may be newer than this gateway")]
    Device(#[source] UnknownDeviceKind),
    /// A WireGuard peer whose column holds what no version of the gateway wrote.
    #[error("the session database holds a malformed WireGuard peer: {0}")]
    Peer(&'static str),
}

impl Store {
    /// Opens the database in `folder`, makes what is missing, and closes the folder to other users (0700, files 0600).
    ///
    /// # Errors
    /// [`StoreError::Folder`], [`StoreError::Database`], [`StoreError::Migration`].
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_as(folder, false).await
    }

    /// The same for a process beside the one that writes: each session is read from the database, so that one that was
    /// ended there has ended here.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_beside(folder: &Path) -> Result<Self, StoreError> {
        Self::open_as(folder, true).await
    }

    async fn open_as(folder: &Path, is_beside: bool) -> Result<Self, StoreError> {
        files::prepare_folder(folder).map_err(StoreError::Folder)?;
        let master_key =
            files::master_key(&folder.join(MASTER_KEY_FILE), &random_key()?).map_err(StoreError::Folder)?;
        let database = folder.join(DATABASE_FILE);
        files::prepare_file(&database).map_err(StoreError::Folder)?;
        let options = SqliteConnectOptions::new()
            .filename(&database)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged write survives a power cut, not only a crash of the process.
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX);
        Self::connect(options, pool, master_key, is_beside).await
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Migration`].
    pub async fn in_memory() -> Result<Self, StoreError> {
        // Each connection to `:memory:` is a database of its own: there must be one, for ever.
        let pool = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None);
        let options = SqliteConnectOptions::new().in_memory(true);
        Self::connect(options, pool, Secret::new(random_key()?), false).await
    }

    async fn connect(
        options: SqliteConnectOptions,
        pool: SqlitePoolOptions,
        master_key: Secret<[u8; 32]>,
        is_beside: bool,
    ) -> Result<Self, StoreError> {
        let pool = pool.connect_with(options.foreign_keys(true).busy_timeout(BUSY_TIMEOUT)).await?;
        migrations().run(&pool).await?;
        let (changes, _) = watch::channel(0);
        Ok(Self { inner: Arc::new(Inner { pool, master_key, cache: Mutex::default(), is_beside, changes }) })
    }

    /// Follows the store: the number rises after each session that was put, replaced or ended, and each change of a
    /// device, of a WireGuard peer or of the directory. Whoever holds something open for a session reads both again then. A closed channel means that the store is gone.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Writes out the journal and closes the files. Later calls on any clone fail.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic under this lock leaves a map that is still true: entries are whole.
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after the database has the change: forgets the session and tells who follows.
    fn note_change(&self, id: &SessionId) {
        {
            let mut cache = self.cache();
            cache.generation += 1;
            cache.sessions.remove(id);
        }
        self.inner.changes.send_modify(|count| *count += 1);
    }
}

fn migrations() -> Migrator {
    let one = |version, name, sql: &'static str| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        one(1, "sessions", include_str!("store/migrations/0001_sessions.sql")),
        one(2, "bound sessions", include_str!("store/migrations/0002_bound_sessions.sql")),
        one(3, "identity", include_str!("store/migrations/0003_identity.sql")),
        one(4, "devices", include_str!("store/migrations/0004_devices.sql")),
        one(5, "webauthn", include_str!("store/migrations/0005_webauthn.sql")),
        one(6, "directory", include_str!("store/migrations/0006_directory.sql")),
        one(7, "wireguard peers", include_str!("store/migrations/0007_wireguard_peers.sql")),
        one(8, "virtual addresses", include_str!("store/migrations/0008_virtual_addresses.sql")),
    ])
}

fn random_key() -> Result<[u8; 32], aead::AeadError> {
    let mut key = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| aead::AeadError::NoRandomness)?;
    Ok(key)
}

/// Milliseconds since 1970-01-01 UTC; 0 before it.
fn to_millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn from_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
