//! What stays on disk between runs: a token per gateway and the gateway used last.
//!
//! Folders are 0700 and files 0600; each write is a rename, so that a reader sees an old or a new token and never
//! half of one. Nothing here asks the network or decides when to sign in.

mod name;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    gateway::Gateway,
    seal::{Seal, is_sealed, sealed_len},
    token::{TOKEN_LEN_MAX, Token},
};

/// Bytes of `last-url` at most.
const LAST_URL_LEN_MAX: u64 = 4 * 1024;

/// The folder of the tokens for `kubectl`, which are forgotten by themselves.
const KUBERNETES_FOLDER: &str = "exec-credential";

/// The cache folder could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
pub(crate) struct CacheError {
    path: PathBuf,
    source: io::Error,
}

impl CacheError {
    /// What the system said about a file or folder.
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// The folder `<user cache>/pomerium-cli`.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
    kind: Kind,
    /// What tokens are sealed with; `None`: they lie there plain.
    seal: Option<Arc<Seal>>,
}

/// Which tokens a cache holds: the two never stand in for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Worth the same in any hands.
    Bearer,
    /// Of sessions that are bound to this machine's key.
    Bound,
    /// For `kubectl`, worth the same in any hands.
    Kubernetes,
}

impl Cache {
    /// The cache in a folder, which is made when it is first written.
    pub(crate) const fn at(root: PathBuf) -> Self {
        Self { root, kind: Kind::Bearer, seal: None }
    }

    /// The same, with tokens sealed.
    pub(crate) fn sealed(self, seal: Option<Arc<Seal>>) -> Self {
        Self { seal, ..self }
    }

    /// The same folder, for tokens that are bound to the device key.
    pub(crate) fn for_device(self) -> Self {
        Self { kind: Kind::Bound, ..self }
    }

    /// The same folder, for tokens that any program may use.
    pub(crate) fn for_programs(self) -> Self {
        Self { kind: Kind::Bearer, ..self }
    }

    /// The same folder, for the tokens of `kubectl`.
    pub(crate) fn for_kubernetes(self) -> Self {
        Self { kind: Kind::Kubernetes, ..self }
    }

    /// Forgets all tokens of `kubectl`.
    pub(crate) fn clear_kubernetes(&self) -> Result<(), CacheError> {
        self.clear_folder(KUBERNETES_FOLDER)
    }

    /// The folder of this user: below `XDG_CACHE_HOME` or `HOME/.cache`; `None` without either.
    pub(crate) fn of_user(xdg_cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<Self> {
        let base = xdg_cache_home
            .filter(|path| path.is_absolute())
            .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".cache")))?;
        Some(Self::at(base.join("pomerium-cli")))
    }

    /// Where it is.
    pub(crate) fn location(&self) -> &Path {
        &self.root
    }

    /// The token of a gateway, if there is one that could be a token and can be opened.
    pub(crate) fn token(&self, gateway: &Gateway) -> Result<Option<Token>, CacheError> {
        let path = self.token_path(gateway);
        let len_max = sealed_len(u64::try_from(TOKEN_LEN_MAX).expect("a small constant fits") + 2);
        let Some(text) = read_private(&path, len_max)? else { return Ok(None) };
        if !is_sealed(&text) {
            return Ok(Token::parse(&text).ok());
        }
        let Some(seal) = &self.seal else {
            tracing::debug!("a token is sealed, and the keyring has not given the key");
            return Ok(None);
        };
        Ok(seal.open(&self.sealed_name(gateway), &text).and_then(|text| Token::parse(&text).ok()))
    }

    /// Keeps a gateway's token.
    pub(crate) fn keep(&self, gateway: &Gateway, token: &Token) -> Result<(), CacheError> {
        let path = self.token_path(gateway);
        let text = match &self.seal {
            None => token.expose().to_owned(),
            Some(seal) => seal
                .seal(&self.sealed_name(gateway), token.expose())
                .map_err(|source| CacheError { path: path.clone(), source })?,
        };
        self.write(&path, &text)
    }

    /// What a sealed token is bound to: it opens for this gateway and this kind alone.
    fn sealed_name(&self, gateway: &Gateway) -> String {
        format!("{:?} {}", self.kind, gateway.cache_key())
    }

    /// Forgets a gateway's token, but only if it is still this very one; says whether it was.
    pub(crate) fn forget(&self, gateway: &Gateway, token: &Token) -> Result<bool, CacheError> {
        if self.token(gateway)?.as_ref() != Some(token) {
            return Ok(false);
        }
        remove(&self.token_path(gateway))
    }

    /// Forgets whatever token a gateway has; says whether there was one.
    pub(crate) fn forget_any(&self, gateway: &Gateway) -> Result<bool, CacheError> {
        remove(&self.token_path(gateway))
    }

    /// The gateway that was used last.
    pub(crate) fn last_gateway(&self) -> Result<Option<Gateway>, CacheError> {
        let text = read_private(&self.root.join("last-url"), LAST_URL_LEN_MAX)?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// Remembers the gateway for commands that name none.
    pub(crate) fn remember(&self, gateway: &Gateway) -> Result<(), CacheError> {
        self.write(&self.root.join("last-url"), &gateway.to_string())
    }

    /// Removes all tokens; the folder stays.
    pub(crate) fn clear(&self) -> Result<(), CacheError> {
        for part in ["jwts", "locks", KUBERNETES_FOLDER] {
            self.clear_folder(part)?;
        }
        remove(&self.root.join("last-url")).map(|_| ())
    }

    fn clear_folder(&self, part: &str) -> Result<(), CacheError> {
        let path = self.root.join(part);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CacheError { path, source }),
            _ => Ok(()),
        }
    }

    /// The file that a process locks while it signs in to this gateway. It stays empty.
    pub(crate) fn sign_in_lock(&self, gateway: &Gateway) -> Result<File, CacheError> {
        let folder = self.root.join("locks");
        self.make_folders(&folder)?;
        let path = folder.join(format!("{}.lock", name::of(&self.key_of(gateway))));
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| CacheError { path, source })
    }

    fn token_path(&self, gateway: &Gateway) -> PathBuf {
        let folder = if self.kind == Kind::Kubernetes { KUBERNETES_FOLDER } else { "jwts" };
        self.root.join(folder).join(format!("{}.jwt", name::of(&self.key_of(gateway))))
    }

    fn key_of(&self, gateway: &Gateway) -> String {
        match self.kind {
            Kind::Bearer | Kind::Kubernetes => gateway.cache_key(),
            Kind::Bound => format!("{}|device", gateway.cache_key()),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), CacheError> {
        let folder = path.parent().unwrap_or(&self.root);
        self.make_folders(folder)?;
        write_renamed(path, text).map_err(|source| CacheError { path: path.to_owned(), source })
    }

    fn make_folders(&self, folder: &Path) -> Result<(), CacheError> {
        for each in [self.root.as_path(), folder] {
            make_private_folder(each)?;
        }
        Ok(())
    }
}

/// Makes a folder that only its owner can enter, or narrows the one that is there.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), CacheError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| narrow(path, &fs::metadata(path)?, 0o700))
        .map_err(|source| CacheError { path: path.to_owned(), source })
}

/// Takes from group and others what they may do with a file or folder of ours, and says so.
fn narrow(path: &Path, metadata: &fs::Metadata, mode: u32) -> io::Result<()> {
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "others could read this: permissions narrowed to the owner");
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The text of a small file, made private first; `None` when it is missing, too long or no text.
pub(crate) fn read_private(path: &Path, len_max: u64) -> Result<Option<String>, CacheError> {
    let read = || -> io::Result<Option<String>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        narrow(path, &file.metadata()?, 0o600)?;
        let mut bytes = Vec::new();
        file.take(len_max + 1).read_to_end(&mut bytes)?;
        let fits = u64::try_from(bytes.len()).is_ok_and(|len| len <= len_max);
        Ok(if fits { String::from_utf8(bytes).ok() } else { None })
    };
    read().map_err(|source| CacheError { path: path.to_owned(), source })
}

/// Replaces a file of ours as a whole, and makes its folder.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), CacheError> {
    if let Some(folder) = path.parent() {
        make_private_folder(folder)?;
    }
    write_renamed(path, text).map_err(|source| CacheError { path: path.to_owned(), source })
}

/// A part of a file name that no other process has.
pub(crate) fn random_suffix() -> io::Result<String> {
    let mut nonce = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(nonce)))
}

fn write_renamed(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", random_suffix()?));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first error is the one to tell; a left-over temporary is private and harmless.
        let _left_over = fs::remove_file(&temporary);
    }
    written
}

fn remove(path: &Path) -> Result<bool, CacheError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CacheError { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::token_until;

    fn gateway(text: &str) -> Gateway {
        text.parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn empty() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("pomerium-cli"));
        (folder, cache)
    }

    #[test]
    fn a_token_comes_back_for_its_gateway_only() {
        let (_folder, cache) = empty();
        let (a, b) = (gateway("a.example"), gateway("a.example:8443"));
        cache.keep(&a, &token_until(5)).unwrap();
        assert_eq!(cache.token(&a).unwrap(), Some(token_until(5)));
        assert_eq!(cache.token(&b).unwrap(), None);
    }

    #[test]
    fn a_bound_token_is_kept_apart_from_one_for_other_programs() {
        let (_folder, cache) = empty();
        let (a, bound) = (gateway("a.example"), cache.clone().for_device());
        cache.keep(&a, &token_until(5)).unwrap();
        assert_eq!(bound.token(&a).unwrap(), None);
        bound.keep(&a, &token_until(6)).unwrap();
        assert_eq!(cache.token(&a).unwrap(), Some(token_until(5)));
        cache.clear().unwrap();
        assert_eq!(bound.token(&a).unwrap(), None);
    }

    #[test]
    fn the_tokens_of_kubectl_are_forgotten_by_themselves() {
        let (_folder, cache) = empty();
        let (a, kubernetes) = (gateway("a.example"), cache.clone().for_kubernetes());
        cache.keep(&a, &token_until(5)).unwrap();
        assert_eq!(kubernetes.token(&a).unwrap(), None);
        kubernetes.keep(&a, &token_until(6)).unwrap();
        cache.clear_kubernetes().unwrap();
        assert_eq!((cache.token(&a).unwrap(), kubernetes.token(&a).unwrap()), (Some(token_until(5)), None));
    }

    #[test]
    fn a_sealed_token_opens_with_its_key_for_its_gateway_and_kind_alone() {
        let (_folder, plain) = empty();
        let sealed = |byte| plain.clone().sealed(Seal::of(&[byte; 32]).map(Arc::new));
        let (a, b) = (gateway("a.example"), gateway("b.example"));
        plain.keep(&a, &token_until(5)).unwrap();
        assert_eq!(sealed(1).token(&a).unwrap(), Some(token_until(5)), "what lay there plain is still good");
        sealed(1).keep(&a, &token_until(6)).unwrap();
        let text = fs::read_to_string(plain.token_path(&a)).unwrap();
        assert!(is_sealed(&text) && !text.contains("e30."), "{text}");
        assert_eq!(sealed(1).token(&a).unwrap(), Some(token_until(6)));
        assert_eq!((plain.token(&a).unwrap(), sealed(2).token(&a).unwrap()), (None, None));
        for (cache, other) in [(sealed(1), &b), (sealed(1).for_device(), &a)] {
            fs::copy(plain.token_path(&a), cache.token_path(other)).unwrap();
            assert_eq!(cache.token(other).unwrap(), None);
        }
    }

    #[test]
    fn nobody_else_can_read_a_token_or_list_the_folder() {
        let (_folder, cache) = empty();
        let a = gateway("a.example");
        cache.keep(&a, &token_until(5)).unwrap();
        let path = cache.token_path(&a);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(cache.location()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn permissions_that_are_too_wide_are_narrowed_before_use() {
        let (_folder, cache) = empty();
        let a = gateway("a.example");
        cache.keep(&a, &token_until(5)).unwrap();
        fs::set_permissions(cache.token_path(&a), fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(cache.location(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(cache.token(&a).unwrap(), Some(token_until(5)));
        assert_eq!(mode(&cache.token_path(&a)), 0o600);
        cache.keep(&a, &token_until(6)).unwrap();
        assert_eq!(mode(cache.location()), 0o700);
    }

    #[test]
    fn forgetting_an_old_token_leaves_a_newer_one() {
        let (_folder, cache) = empty();
        let a = gateway("a.example");
        cache.keep(&a, &token_until(6)).unwrap();
        assert!(!cache.forget(&a, &token_until(5)).unwrap());
        assert_eq!(cache.token(&a).unwrap(), Some(token_until(6)));
        assert!(cache.forget(&a, &token_until(6)).unwrap());
        assert_eq!(cache.token(&a).unwrap(), None);
    }

    #[test]
    fn a_damaged_or_huge_file_is_no_token() {
        let (_folder, cache) = empty();
        let a = gateway("a.example");
        cache.keep(&a, &token_until(6)).unwrap();
        for text in ["", "two words", "x\r\ny: z", &"a".repeat(TOKEN_LEN_MAX * 4)] {
            fs::write(cache.token_path(&a), text).unwrap();
            assert_eq!(cache.token(&a).unwrap(), None);
        }
    }

    #[test]
    fn the_gateway_used_last_is_remembered_until_the_cache_is_cleared() {
        let (_folder, cache) = empty();
        let a = gateway("a.example:8443");
        assert_eq!(cache.last_gateway().unwrap(), None);
        cache.remember(&a).unwrap();
        cache.keep(&a, &token_until(6)).unwrap();
        assert_eq!(cache.last_gateway().unwrap(), Some(a.clone()));
        cache.clear().unwrap();
        assert_eq!(cache.last_gateway().unwrap(), None);
        assert_eq!(cache.token(&a).unwrap(), None);
    }

    #[test]
    fn the_folder_follows_the_environment_but_never_a_relative_path() {
        let at = |xdg: Option<&str>, home: Option<&str>| {
            Cache::of_user(xdg.map(PathBuf::from), home.map(PathBuf::from))
                .map(|cache| cache.location().to_owned())
        };
        assert_eq!(at(Some("/x"), Some("/home/a")), Some("/x/pomerium-cli".into()));
        assert_eq!(at(Some("x"), Some("/home/a")), Some("/home/a/.cache/pomerium-cli".into()));
        assert_eq!(at(None, None), None);
    }
}
