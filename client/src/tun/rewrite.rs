//! Changes a small text file so that a full disk or a kill, whenever it comes, leaves the old text or the new one. Who reads at that moment finds
//! one of the two as well, but for a file that has to be changed in place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// What a file that is to take the other's place is called, beside it.
const SUFFIX: &str = ".pomerium-cli";

/// Makes `text` be what the file says. A link is followed and stays; a file that is mounted by itself, and so cannot be replaced, is
/// changed in place.
pub(super) fn rewrite(path: &Path, text: &str) -> io::Result<()> {
    // What a link leads to is the file; the link is somebody's choice.
    let path = fs::canonicalize(path)?;
    match replace(&path, text) {
        Err(error) if is_mounted(&error) => in_place(&path, text),
        replaced => replaced,
    }
}

/// Takes away what a killed process left beside the file.
pub(super) fn clear(path: &Path) {
    if let Ok(path) = fs::canonicalize(path) {
        // Mostly there is nothing.
        let _nothing = fs::remove_file(beside(&path));
    }
}

/// Whether a rename failed because of where the file is: on a mount of its own, or in a folder that takes no new files.
fn is_mounted(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(error.kind(), CrossesDevices | PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// A new file takes the old one's place, with its owner and its modes.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path)?;
    let new = beside(path);
    let _nothing = fs::remove_file(&new);
    // `create_new` follows no link that somebody put there.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let replaced = fill(&file, text, &old).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // The first error is the one to tell.
        let _left = fs::remove_file(&new);
        return replaced;
    }
    // The name is on the disk when its folder is.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn fill(mut file: &File, text: &str, like: &fs::Metadata) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(like.permissions())?;
    file.sync_all()
}

/// The file itself: room is taken first, as empty lines at its end, which say nothing; what follows needs no more. What is too long
/// for the new text is empty lines, too, until it is cut off: between any two calls the file says the old or the new.
fn in_place(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let old_len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut whole = text.as_bytes().to_vec();
    whole.resize(text.len().max(old_len), b'\n');
    let room = vec![b'\n'; whole.len() - old_len];
    if let Err(error) = file.write_all_at(&room, old_len as u64).and_then(|()| file.sync_all()) {
        file.set_len(old_len as u64)?;
        return Err(error);
    }
    file.write_all_at(&whole, 0)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const OLD: &str = "nameserver 192.0.2.53\n";
    const NEW: &str = "# longer than what was there\nnameserver 100.64.0.2\n";

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, OLD).unwrap();
        (folder, path)
    }

    #[test]
    fn a_new_file_takes_the_place_of_the_old_one_and_is_like_it() {
        let (folder, path) = file();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut reader = File::open(&path).unwrap();
        rewrite(&path, NEW).unwrap();
        let mut seen = String::new();
        io::Read::read_to_string(&mut reader, &mut seen).unwrap();
        assert_eq!(seen, OLD, "who reads it already reads it to its end");
        assert_eq!(fs::read_to_string(&path).unwrap(), NEW);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_stays_and_the_file_behind_it_changes() {
        let (folder, path) = file();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        rewrite(&link, NEW).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), NEW);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_changed_in_place() {
        let (_folder, path) = file();
        let number = fs::metadata(&path).unwrap().ino();
        for text in [NEW, OLD] {
            in_place(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().ino(), number);
    }

    #[test]
    fn what_was_in_the_way_or_left_behind_changes_nothing() {
        let (_folder, path) = file();
        // No file can be made there: as on a disk without room for it.
        fs::create_dir(beside(&path)).unwrap();
        assert!(rewrite(&path, NEW).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
        fs::remove_dir(beside(&path)).unwrap();
        // A process that was killed, and a trap.
        symlink("/dev/null", beside(&path)).unwrap();
        rewrite(&path, NEW).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), NEW);
        fs::write(beside(&path), "half").unwrap();
        clear(&path);
        assert!(!beside(&path).exists());
    }
}
