//! The archive that somebody sends along with a report: what helps to find a fault, and nothing that names or opens anything.
//!
//! [`redact`] takes out what is personal or secret, from every part; [`archive`] packs what is left.

pub(crate) mod redact;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

/// Bytes of a part at most; what is longer loses its beginning, which is the oldest.
const PART_LEN_MAX: usize = 1024 * 1024;

/// One file of the archive.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its name there.
    pub(crate) name: &'static str,
    /// What it says, redacted.
    pub(crate) text: String,
}

/// Writes an archive that only its owner can read, where there is none yet.
pub(crate) fn archive(path: &Path, folder: &str, parts: &[Part]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    for part in parts {
        let text = tail(&part.text);
        let mut header = Header::new_gnu();
        header.set_size(u64::try_from(text.len()).map_err(io::Error::other)?);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("{folder}/{}", part.name), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(PART_LEN_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_archive_is_private_and_never_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        let parts = [
            Part { name: "a.txt", text: "one".to_owned() },
            Part { name: "b.txt", text: "ä".repeat(PART_LEN_MAX) },
        ];
        archive(&path, "report", &parts).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(archive(&path, "report", &parts).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let packed = std::fs::File::open(&path).unwrap();
        let mut packed = tar::Archive::new(flate2::read::GzDecoder::new(packed));
        let read: Vec<(String, String)> = packed
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect();
        assert_eq!(read[0], ("report/a.txt".to_owned(), "one".to_owned()));
        assert!(read[1].0 == "report/b.txt" && read[1].1.len() <= PART_LEN_MAX);
    }
}
