//! The file with a device's private key: this person's alone, and never in the place of another.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use pomerium_shared::wireguard::PeerName;

use crate::failure::Failure;

/// What `wg-quick` makes of a file's name is the name of a network interface: so many characters of these kinds.
const STEM_LEN_MAX: usize = 15;

/// A file that is there, and empty until it is written. Dropped before, it is gone again.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl NewFile {
    /// Makes the file, which must not be there yet.
    pub(super) fn create(path: PathBuf) -> Result<Self, Failure> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Self { path, file, is_written: false }),
            Err(source) => Err(Failure::PeerFile { path, source }),
        }
    }

    /// Fills it, and says where it is.
    pub(super) fn write(mut self, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path.clone();
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|source| Failure::PeerFile { path: path.clone(), source })?;
        self.is_written = true;
        Ok(path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_written {
            // It was made here a moment ago, and holds nothing; if it stays, the next try says so.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The file for a device that is called so, in the folder where the person is.
pub(super) fn name_for(name: &PeerName) -> PathBuf {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '=' | '+' | '.' | '-');
    let plain: String = name.as_str().chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    // A leading dot hides the file, a leading dash is an option.
    let stem: String = plain.trim_start_matches(['.', '-']).chars().take(STEM_LEN_MAX).collect();
    PathBuf::from(format!("{}.conf", if stem.is_empty() { "wg0" } else { &stem }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_its_persons_alone_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.conf");
        NewFile::create(path.clone()).unwrap().write("[Interface]\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(NewFile::create(path.clone()), Err(Failure::PeerFile { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[Interface]\n");
    }

    #[test]
    fn a_file_that_was_not_filled_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.conf");
        drop(NewFile::create(path.clone()).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_name_becomes_that_of_an_interface() {
        for (name, file) in [
            ("phone", "phone.conf"),
            ("Ada's router", "Ada-s-router.conf"),
            ("../../etc/passwd", "etc-passwd.conf"),
            ("電話", "wg0.conf"),
            ("-rf", "rf.conf"),
            ("a-very-long-name-of-a-device", "a-very-long-nam.conf"),
        ] {
            assert_eq!(name_for(&name.parse().unwrap()), PathBuf::from(file), "{name}");
        }
    }
}
