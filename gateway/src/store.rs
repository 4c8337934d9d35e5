//! What must outlive the process: sessions, users, the providers' tokens, what was used once, and keys.
//!
//! SQLite in one folder (or in memory), or PostgreSQL, which several gateways share. Tokens and keys are encrypted at rest under
//! `master.key` beside the file, or under a key of `shared_secret`. No policy, no HTTP and no clock live here: moments are
//! arguments. `authenticate` writes, whoever has a credential to resolve reads.

pub mod aead;
mod database;
mod device_codes;
mod devices;
mod directory;
mod files;
mod listening;
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
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hkdf;
use sqlx::{AnyPool, Row, any::AnyRow};
use tokio::sync::watch;
use url::Url;

use self::{database::Backend, devices::DeviceKey};
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
/// What the master key of a shared database is derived for.
const MASTER_KEY_LABEL: &[u8] = b"pomerium-gateway store master key";
/// The key that every gateway of a shared database must be able to open.
const CHECK_KEY: &str = "master_key_check";
/// For a decision to learn what it stands on; a database on the other side of a dead network says nothing at all.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Sessions kept for reading without the database, at most; the cache starts anew when it is full.
const CACHED_SESSIONS_MAX: usize = 10_000;

/// Sessions, users, single uses and keys, kept over restarts. Clones share one database.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: AnyPool,
    backend: Backend,
    master_key: Secret<[u8; 32]>,
    cache: Mutex<Cache>,
    changes: watch::Sender<u64>,
}

/// Sessions and devices as the database has them. `generation` rises with each write, so that a slow reader cannot put back
/// what was ended while it read.
#[derive(Debug, Default)]
struct Cache {
    generation: u64,
    /// Whether all changes are heard of. While they are not, nothing is kept: it might have ended elsewhere.
    is_current: bool,
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
    /// The database cannot be reached, or does not answer in time.
    #[error("the session database does not answer")]
    Silent,
    /// A sealed value does not open: the master key was replaced, or somebody changed the database.
    #[error(
        "a sealed value does not open: this database was written with another master.key (with PostgreSQL: with another shared_secret)"
    )]
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
        Self::open_as(folder, true).await
    }

    /// The same for a process beside the one that writes: each session is read from the database, so that one that was
    /// ended there has ended here.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_beside(folder: &Path) -> Result<Self, StoreError> {
        Self::open_as(folder, false).await
    }

    async fn open_as(folder: &Path, is_current: bool) -> Result<Self, StoreError> {
        files::prepare_folder(folder).map_err(StoreError::Folder)?;
        let master_key =
            files::master_key(&folder.join(MASTER_KEY_FILE), &random_key()?).map_err(StoreError::Folder)?;
        let database = folder.join(DATABASE_FILE);
        files::prepare_file(&database).map_err(StoreError::Folder)?;
        let pool = database::open_file(&database).await?;
        Ok(Self::new(pool, Backend::Sqlite, master_key, is_current))
    }

    /// Opens the PostgreSQL database of `url`, which other gateways with the same `shared_secret` may have open as well, and makes
    /// what is missing. Each session is read from it until [`Self::follow_outside_changes`] hears what the others change.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Silent`], [`StoreError::Migration`]; [`StoreError::Sealed`]: the database was
    /// written with another secret.
    pub async fn open_postgres(
        url: &Secret<Url>,
        shared_secret: &Secret<[u8; 32]>,
    ) -> Result<Self, StoreError> {
        let (pool, backend) = database::open_postgres(url.expose()).await?;
        let store = Self::new(pool, backend, master_key_of(shared_secret), false);
        let fresh = random_key()?;
        store.named_key(CHECK_KEY, || fresh.to_vec()).await?;
        Ok(store)
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Migration`].
    pub async fn in_memory() -> Result<Self, StoreError> {
        let pool = database::open_memory().await?;
        Ok(Self::new(pool, Backend::Sqlite, Secret::new(random_key()?), true))
    }

    fn new(pool: AnyPool, backend: Backend, master_key: Secret<[u8; 32]>, is_current: bool) -> Self {
        let (changes, _) = watch::channel(0);
        let cache = Mutex::new(Cache { is_current, ..Cache::default() });
        Self { inner: Arc::new(Inner { pool, backend, master_key, cache, changes }) }
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

    /// Whether other gateways may work with the same database.
    fn is_shared(&self) -> bool {
        matches!(self.inner.backend, Backend::Postgres(_))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A panic under this lock leaves a map that is still true: entries are whole.
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after the database has the change: forgets the session and tells who follows.
    fn note_change(&self, id: &SessionId) {
        self.forget(|cache| {
            cache.sessions.remove(id);
        });
    }

    /// Called after the database has a change that may concern anybody.
    fn forget_all(&self) {
        self.forget(Cache::clear);
    }

    /// Forgets of the cache what `change` takes out of it, and tells who follows.
    fn forget(&self, change: impl FnOnce(&mut Cache)) {
        {
            let mut cache = self.cache();
            cache.generation += 1;
            change(&mut cache);
        }
        self.inner.changes.send_modify(|count| *count += 1);
    }
}

impl Cache {
    fn clear(&mut self) {
        self.sessions.clear();
        self.devices.clear();
    }

    /// Whether what was read at `generation` is still what the database says.
    const fn may_keep(&self, generation: u64) -> bool {
        self.is_current && self.generation == generation
    }
}

/// Reads what a decision stands on, under a limit.
async fn within_limit<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or(Err(StoreError::Silent))
}

/// The key that seals what rests in a shared database: the same at all its gateways.
fn master_key_of(shared_secret: &Secret<[u8; 32]>) -> Secret<[u8; 32]> {
    let mut key = [0_u8; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(shared_secret.expose())
        .expand(&[MASTER_KEY_LABEL], hkdf::HKDF_SHA256)
        .and_then(|expanded| expanded.fill(&mut key))
        .expect("32 octets are one block of HKDF-SHA256");
    Secret::new(key)
}

fn random_key() -> Result<[u8; 32], aead::AeadError> {
    let mut key = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| aead::AeadError::NoRandomness)?;
    Ok(key)
}

/// A flag of a row: databases differ in how they keep truth, not in how they keep numbers.
fn flag(row: &AnyRow, column: &str) -> Result<bool, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

/// Milliseconds since 1970-01-01 UTC; 0 before it.
fn to_millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn from_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
