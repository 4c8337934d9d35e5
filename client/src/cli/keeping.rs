//! How this process keeps secrets on disk: sealed, where there is a keyring, else plain for their owner alone. Decided once, and
//! said wherever people look.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use crate::seal::Seal;

static KEEPING: OnceLock<Keeping> = OnceLock::new();

/// How secrets are kept.
#[derive(Debug)]
pub(super) enum Keeping {
    /// With a key in the keyring.
    Sealed(Arc<Seal>),
    /// As they are, and why.
    Plain(String),
}

/// Asks the keyring, once. `folder` is the cache, `may_prompt`: whether somebody is there who could unlock the keyring.
pub(super) async fn decide(folder: Option<&Path>, may_prompt: bool) {
    let keeping = match folder {
        None => Keeping::Plain("there is no folder for a cache".to_owned()),
        Some(folder) => ask(folder, may_prompt).await,
    };
    // The first one counts; there is but one.
    let _known = KEEPING.set(keeping);
}

#[cfg(target_os = "linux")]
async fn ask(folder: &Path, may_prompt: bool) -> Keeping {
    match crate::keyring::seal(folder, may_prompt).await {
        Ok(seal) => Keeping::Sealed(Arc::new(seal)),
        Err(error) => {
            tracing::debug!(error = %crate::exit::chain(&error), "secrets are kept without the keyring");
            Keeping::Plain(error.to_string())
        }
    }
}

#[cfg(not(target_os = "linux"))]
async fn ask(_folder: &Path, _may_prompt: bool) -> Keeping {
    std::future::ready(Keeping::Plain("the keyring of this system is not used yet".to_owned())).await
}

/// The seal, if there is one.
pub(super) fn seal() -> Option<Arc<Seal>> {
    match KEEPING.get() {
        Some(Keeping::Sealed(seal)) => Some(Arc::clone(seal)),
        Some(Keeping::Plain(_)) | None => None,
    }
}

/// What was decided; nothing in commands that keep nothing.
pub(super) fn decided() -> Option<&'static Keeping> {
    KEEPING.get()
}

impl fmt::Display for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed(_) => f.write_str("sealed, with the key in the keyring"),
            Self::Plain(why) => write!(f, "in files that only you can read; {why}"),
        }
    }
}
