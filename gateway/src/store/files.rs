//! The folder of the store on disk: who may read it, and the master key in it.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::secret::Secret;

/// Only the gateway's own user may enter the folder.
const FOLDER_MODE: u32 = 0o700;
/// Only the gateway's own user may read a file in it.
const FILE_MODE: u32 = 0o600;

/// Makes `folder` if it is missing, and closes it to everybody else.
pub(super) fn prepare_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
}

/// Makes an empty file that only we can read, or closes an old one to everybody else. SQLite gives its
/// journals the mode of the database.
pub(super) fn prepare_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
}

/// The master key of the folder; made with `fresh` when there is none yet.
///
/// # Errors
/// `InvalidData` when the file does not hold 32 bytes: it is never overwritten, since all that it sealed would be lost.
pub(super) fn master_key(path: &Path, fresh: &[u8; 32]) -> io::Result<Secret<[u8; 32]>> {
    match read_key(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    // Written whole under another name, then linked: two processes that start at once end with one key.
    let draft = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&draft)?;
    file.write_all(fresh)?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    read_key(path)
}

fn read_key(path: &Path) -> io::Result<Secret<[u8; 32]>> {
    let bytes = fs::read(path)?;
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "the master key file does not hold 32 bytes")
    })?;
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
    Ok(Secret::new(key))
}
