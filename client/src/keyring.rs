//! The keyring of the desktop (the Secret Service on D-Bus: GNOME Keyring, KWallet, KeePassXC): keeps the one key that files are
//! sealed with.
//!
//! It is asked once a process. Where there is none, or nobody unlocks it, files are kept plain, for their owner alone, and the
//! person is told.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use futures_util::StreamExt as _;
use tokio::time::timeout;
use zbus::{
    Connection, Proxy,
    zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value},
};

use crate::{
    cache::make_private_folder,
    seal::{KEY_LEN, Seal},
};

const SERVICE: &str = "org.freedesktop.secrets";
const ROOT: &str = "/org/freedesktop/secrets";
const INTERFACE: &str = "org.freedesktop.Secret.Service";
/// How our item is found again.
const ATTRIBUTES: [(&str, &str); 2] = [("application", "pomerium-cli"), ("purpose", "seals files")];
/// How long a keyring that needs no person may take: a command waits for it.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a person has to unlock it.
const PROMPT_LIMIT: Duration = Duration::from_secs(60);

/// Session, parameters, value and content type of a secret.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyringError {
    /// No desktop, or none with a keyring.
    #[error("there is no keyring")]
    None(#[source] zbus::Error),
    /// There is a service and no collection that it would use.
    #[error("the keyring has not been set up")]
    Empty,
    /// It is locked, and nobody unlocked it.
    #[error("the keyring is locked")]
    Locked,
    /// It did not answer.
    #[error("the keyring does not answer")]
    Silent,
    /// What it has is no key of ours.
    #[error("what the keyring has is not our key")]
    Damaged,
    /// No lock, or no random numbers.
    #[error("this machine's files or random numbers failed")]
    Local(#[source] std::io::Error),
}

impl From<zbus::Error> for KeyringError {
    fn from(error: zbus::Error) -> Self {
        Self::None(error)
    }
}

/// The key, made now if there is none. `folder` has the lock that makes processes agree on one; `may_prompt`: whether somebody is
/// there who could unlock it.
pub(crate) async fn seal(folder: &Path, may_prompt: bool) -> Result<Seal, KeyringError> {
    let limit = if may_prompt { PROMPT_LIMIT } else { LIMIT };
    let work = async {
        let bus = timeout(LIMIT, Connection::session()).await.map_err(|_| KeyringError::Silent)??;
        let keyring = Keyring::open(&bus, may_prompt).await?;
        if let Some(key) = keyring.find().await? {
            return Ok(key);
        }
        let _held = lock(folder).await?;
        match keyring.find().await? {
            Some(key) => Ok(key),
            None => keyring.make().await,
        }
    };
    let key = timeout(limit, work).await.map_err(|_| KeyringError::Silent)??;
    Seal::of(&key).ok_or(KeyringError::Damaged)
}

async fn lock(folder: &Path) -> Result<fs::File, KeyringError> {
    make_private_folder(folder).map_err(|error| KeyringError::Local(std::io::Error::other(error)))?;
    let path = folder.join("keyring.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock().map(|()| file)
    });
    locked.await.map_err(std::io::Error::other).and_then(|locked| locked).map_err(KeyringError::Local)
}

struct Keyring<'a> {
    bus: &'a Connection,
    service: Proxy<'a>,
    session: OwnedObjectPath,
    may_prompt: bool,
}

impl<'a> Keyring<'a> {
    async fn open(bus: &'a Connection, may_prompt: bool) -> Result<Self, KeyringError> {
        let service = Proxy::new(bus, SERVICE, ROOT, INTERFACE).await?;
        // Plain: the bus is a Unix socket of this person, as good as the memory of this process.
        let (_, session): (OwnedValue, OwnedObjectPath) =
            service.call("OpenSession", &("plain", Value::from(""))).await?;
        Ok(Self { bus, service, session, may_prompt })
    }

    async fn find(&self) -> Result<Option<Vec<u8>>, KeyringError> {
        let attributes = HashMap::from(ATTRIBUTES);
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) =
            self.service.call("SearchItems", &(attributes,)).await?;
        let item = match (unlocked.into_iter().next(), locked.into_iter().next()) {
            (Some(item), _) => item,
            (None, Some(item)) => {
                self.unlock(&item).await?;
                item
            }
            (None, None) => return Ok(None),
        };
        let item = Proxy::new(self.bus, SERVICE, item, "org.freedesktop.Secret.Item").await?;
        let (_, _, value, _): Secret = item.call("GetSecret", &(&self.session,)).await?;
        if value.len() == KEY_LEN { Ok(Some(value)) } else { Err(KeyringError::Damaged) }
    }

    async fn make(&self) -> Result<Vec<u8>, KeyringError> {
        let collection: OwnedObjectPath = self.service.call("ReadAlias", &("default",)).await?;
        if collection.as_str() == "/" {
            return Err(KeyringError::Empty);
        }
        self.unlock(&collection).await?;
        let mut key = vec![0; KEY_LEN];
        aws_lc_rs::rand::fill(&mut key)
            .map_err(|_| KeyringError::Local(std::io::Error::other("no random numbers")))?;
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Value::from("Pomerium client: key of its files")),
            ("org.freedesktop.Secret.Item.Attributes", Value::from(HashMap::from(ATTRIBUTES))),
        ]);
        let secret = (&self.session, Vec::<u8>::new(), key.as_slice(), "application/octet-stream");
        let collection =
            Proxy::new(self.bus, SERVICE, collection, "org.freedesktop.Secret.Collection").await?;
        let (_, prompt): (OwnedObjectPath, OwnedObjectPath) =
            collection.call("CreateItem", &(properties, secret, false)).await?;
        self.answer(&prompt).await?;
        Ok(key)
    }

    async fn unlock(&self, what: &ObjectPath<'_>) -> Result<(), KeyringError> {
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) =
            self.service.call("Unlock", &([what].as_slice(),)).await?;
        self.answer(&prompt).await
    }

    /// Has the person answer a question of the keyring, if there is one.
    async fn answer(&self, prompt: &ObjectPath<'_>) -> Result<(), KeyringError> {
        if prompt.as_str() == "/" {
            return Ok(());
        }
        if !self.may_prompt {
            return Err(KeyringError::Locked);
        }
        let prompt =
            Proxy::new(self.bus, SERVICE, prompt.to_owned(), "org.freedesktop.Secret.Prompt").await?;
        let mut completed = prompt.receive_signal("Completed").await?;
        let () = prompt.call("Prompt", &("",)).await?;
        let answer = completed.next().await.ok_or(KeyringError::Locked)?;
        let (is_dismissed, _): (bool, OwnedValue) = answer.body().deserialize()?;
        if is_dismissed { Err(KeyringError::Locked) } else { Ok(()) }
    }
}
