//! The device key: made once, shown as TLS client certificate on each connection to a gateway, never sent anywhere.
//!
//! It lies in a file that only its owner can read, sealed where there is a keyring. Hardware would keep it better; that comes later,
//! and changes nothing for the gateway.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};

use crate::{
    cache::{CacheError, make_private_folder, random_suffix, read_private, write_private},
    seal::{Seal, is_sealed},
};

/// The key and its certificate, in PEM, one after the other: written whole, so that they never part.
const FILE: &str = "device.pem";

/// Bytes of the file at most.
const FILE_LEN_MAX: u64 = 16 * 1024;

/// What the certificate calls its holder: nothing that tells one machine from another.
const COMMON_NAME: &str = "pomerium-cli device";

/// Why there is no device key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceKeyError {
    /// The folder or file cannot be read or written.
    #[error(transparent)]
    File(#[from] CacheError),
    /// The file holds no key with its certificate.
    #[error("{} holds no device key: remove it, and a new one is made", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The key of the seal is not at hand.
    #[error("{} is sealed, and the keyring has not given its key: unlock it", path.display())]
    Sealed {
        /// Which file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("no device key could be made")]
    NotMade(#[source] rcgen::Error),
}

/// The key of this machine, ready to sign handshakes.
#[derive(Clone)]
pub(crate) struct DeviceKey {
    resolver: Arc<SingleCertAndKey>,
    thumbprint: String,
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceKey").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// The client's folder for what must not be lost: below `XDG_DATA_HOME` or `HOME/.local/share`; `None` without either.
pub(crate) fn folder(xdg_data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let base = xdg_data_home
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/share")))?;
    Some(base.join("pomerium-cli"))
}

impl DeviceKey {
    /// The key that lies in `folder`; made now, if there is none. Processes that make one at once agree on one. What lies there
    /// plain is sealed now, if there is a seal.
    pub(crate) fn load_or_make(folder: &Path, seal: Option<&Seal>) -> Result<Self, DeviceKeyError> {
        let path = folder.join(FILE);
        if let Some(key) = Self::load(folder, seal)? {
            if let (Some(seal), Some(text)) = (seal, read_private(&path, FILE_LEN_MAX)?)
                && !is_sealed(&text)
            {
                let sealed = seal.seal(FILE, &text).map_err(|source| CacheError::new(&path, source))?;
                write_private(&path, &sealed)?;
            }
            return Ok(key);
        }
        make_private_folder(folder)?;
        let pem = make().map_err(DeviceKeyError::NotMade)?;
        let text = match seal {
            Some(seal) => seal.seal(FILE, &pem).map_err(|source| CacheError::new(&path, source))?,
            None => pem,
        };
        keep(folder, &text)?;
        Self::load(folder, seal)?.ok_or(DeviceKeyError::Damaged { path })
    }

    /// The key that lies in `folder`, if there is one.
    pub(crate) fn load(folder: &Path, seal: Option<&Seal>) -> Result<Option<Self>, DeviceKeyError> {
        let path = folder.join(FILE);
        let pem = match read_private(&path, FILE_LEN_MAX)? {
            Some(text) if is_sealed(&text) => {
                let Some(seal) = seal else { return Err(DeviceKeyError::Sealed { path }) };
                seal.open(FILE, &text).ok_or_else(|| DeviceKeyError::Damaged { path: path.clone() })?
            }
            Some(pem) => pem,
            None if path.exists() => return Err(DeviceKeyError::Damaged { path }),
            None => return Ok(None),
        };
        Self::of_pem(&pem).map(Some).ok_or(DeviceKeyError::Damaged { path })
    }

    fn of_pem(pem: &str) -> Option<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate));
        let certified =
            CertifiedKey::from_der(vec![certificate], key, &pomerium_shared::tls::provider()).ok()?;
        Some(Self { resolver: Arc::new(certified.into()), thumbprint })
    }

    /// SHA-256 of the certificate, as the gateway names the key (`x5t#S256`, RFC 8705, 3.1).
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Shows the key on connections with these settings, when the gateway asks for one.
    pub(crate) fn apply(&self, mut config: rustls::ClientConfig) -> rustls::ClientConfig {
        config.client_auth_cert_resolver = self.resolver.clone();
        config
    }
}

/// A new key and its certificate, in PEM. Only the key counts: the certificate never expires and names nobody.
fn make() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    let certificate = parameters.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Puts the file in its place unless there is one already, which then stays.
fn keep(folder: &Path, pem: &str) -> Result<(), CacheError> {
    let path = folder.join(FILE);
    let write = || {
        let temporary = folder.join(format!("{FILE}.{}.new", random_suffix()?));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(pem.as_bytes())?;
            file.sync_all()?;
            // A link, unlike a rename, does not replace the key that another process has just made.
            match fs::hard_link(&temporary, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        })();
        // The first error is the one to tell; a left-over temporary is private.
        let _left_over = fs::remove_file(&temporary);
        written
    };
    write().map_err(|source| CacheError::new(&path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_the_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        let folder = folder(None, Some(home.path().to_owned())).unwrap();
        assert!(DeviceKey::load(&folder, None).unwrap().is_none());
        let made = DeviceKey::load_or_make(&folder, None).unwrap();
        let again = DeviceKey::load_or_make(&folder, None).unwrap();
        assert_eq!(made.thumbprint(), again.thumbprint());
        assert_eq!(made.thumbprint().len(), 43);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn two_processes_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), &make().unwrap()).unwrap();
        let first = DeviceKey::load(folder.path(), None).unwrap().unwrap();
        keep(folder.path(), &make().unwrap()).unwrap();
        assert_eq!(DeviceKey::load(folder.path(), None).unwrap().unwrap().thumbprint(), first.thumbprint());
    }

    #[test]
    fn a_damaged_file_is_told_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (make().unwrap(), make().unwrap());
        let start = |pem: &str| pem.find("-----BEGIN CERTIFICATE").unwrap();
        let (key, certificate) = one.split_at(start(&one));
        let mixed = format!("{key}{}", &other[start(&other)..]);
        for text in ["", "no key", key, certificate, &mixed] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let refused = DeviceKey::load_or_make(folder.path(), None);
            assert!(matches!(refused, Err(DeviceKeyError::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn a_key_that_lay_plain_is_sealed_and_opens_with_the_seal_alone() {
        let folder = tempfile::tempdir().unwrap();
        let made = DeviceKey::load_or_make(folder.path(), None).unwrap();
        let seal = Seal::of(&[1; 32]).unwrap();
        for _ in 0..2 {
            let again = DeviceKey::load_or_make(folder.path(), Some(&seal)).unwrap();
            assert_eq!(again.thumbprint(), made.thumbprint());
            assert!(is_sealed(&fs::read_to_string(folder.path().join(FILE)).unwrap()));
        }
        assert!(matches!(DeviceKey::load(folder.path(), None), Err(DeviceKeyError::Sealed { .. })));
        let other = Seal::of(&[2; 32]);
        assert!(matches!(
            DeviceKey::load(folder.path(), other.as_ref()),
            Err(DeviceKeyError::Damaged { .. })
        ));
        let sealed_at_once = tempfile::tempdir().unwrap();
        DeviceKey::load_or_make(sealed_at_once.path(), Some(&seal)).unwrap();
        assert!(is_sealed(&fs::read_to_string(sealed_at_once.path().join(FILE)).unwrap()));
    }

    #[test]
    fn nothing_of_the_key_shows_in_debug_output() {
        let key = DeviceKey::of_pem(&make().unwrap()).unwrap();
        assert_eq!(format!("{key:?}"), format!("DeviceKey {{ thumbprint: {:?}, .. }}", key.thumbprint()));
    }
}
