//! Has the system ask for names on the device first: a block of ours at the beginning of `/etc/resolv.conf`.
//!
//! Whoever asks for another name is refused there, and asks the servers below, which stay as they are. The block names itself, so that it can
//! be taken out by anybody who finds it: by us at the end, at the next beginning, or by `pomerium-cli repair`.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{TunError, rewrite};

/// Where the C library reads who knows names (resolv.conf(5)).
pub(crate) const FILE: &str = "/etc/resolv.conf";

const BEGIN: &str = "# begin pomerium-cli: until it ends, or until `pomerium-cli repair`";
const END: &str = "# end pomerium-cli";

/// Between two looks whether another program has written the file anew.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The file with our block, until this is dropped.
#[derive(Debug)]
pub(crate) struct Redirected {
    path: PathBuf,
    server: IpAddr,
}

impl Redirected {
    /// Puts the block in.
    pub(crate) fn begin(path: &Path, server: IpAddr) -> Result<Self, TunError> {
        let failed = |source| TunError::Resolver { path: path.to_owned(), source };
        match fs::read_link(path) {
            Ok(target) => return Err(TunError::ForeignResolver { path: path.to_owned(), target }),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(failed(error)),
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        rewrite::rewrite(path, &with_block(&text, server)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), server })
    }

    /// Puts the block in again where somebody wrote the file without it; never returns.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let Ok(text) = fs::read_to_string(&self.path) else { continue };
            if !text.contains(BEGIN)
                && let Err(error) = rewrite::rewrite(&self.path, &with_block(&text, self.server))
            {
                tracing::warn!(%error, path = %self.path.display(), "another program changed the file, and it cannot be changed again");
            }
        }
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        if let Err(error) = repair(&self.path) {
            tracing::error!(%error, path = %self.path.display(), "run `pomerium-cli repair`: the file is not as it was");
        }
    }
}

/// Takes the block out; whether there was one.
///
/// # Errors
/// What the system says.
pub(crate) fn repair(path: &Path) -> io::Result<bool> {
    rewrite::clear(path);
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read?,
    };
    let repaired = without_block(&text);
    if repaired == text {
        return Ok(false);
    }
    rewrite::rewrite(path, &repaired)?;
    Ok(true)
}

/// The servers in the list, in their order.
pub(super) fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    // An IPv6 address may name its device.
    lines.filter_map(|rest| rest.trim().split(['%', ' ', '\t']).next()?.parse().ok())
}

fn with_block(text: &str, server: IpAddr) -> String {
    format!("{BEGIN}\nnameserver {server}\n{END}\n{}", without_block(text))
}

/// A block without its end is somebody's own text by now.
fn without_block(text: &str) -> String {
    let Some((before, rest)) = text.split_once(&format!("{BEGIN}\n")) else { return text.to_owned() };
    let Some((_, after)) = rest.split_once(&format!("{END}\n")) else { return text.to_owned() };
    format!("{before}{after}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 2));

    #[test]
    fn our_server_comes_first_and_the_others_stay() {
        let text = "# the office\nsearch corp.example\nnameserver 192.0.2.53\n";
        let with = with_block(text, SERVER);
        let servers: Vec<_> = with.lines().filter(|line| line.starts_with("nameserver")).collect();
        assert_eq!(servers, ["nameserver 100.64.0.2", "nameserver 192.0.2.53"]);
        assert_eq!(with_block(&with, SERVER), with, "one block, however often");
    }

    #[test]
    fn the_file_is_as_it_was_however_we_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let text = "nameserver 192.0.2.53\noptions edns0";
        fs::write(&path, text).unwrap();
        drop(Redirected::begin(&path, SERVER).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // Killed: nobody drops anything.
        let _killed = std::mem::ManuallyDrop::new(Redirected::begin(&path, SERVER).unwrap());
        assert!(fs::read_to_string(&path).unwrap().starts_with(BEGIN));
        assert!(repair(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(!repair(&path).unwrap());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Redirected::begin(&link, SERVER), Err(TunError::ForeignResolver { .. })));
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(text in "[a-z0-9. #\\n]{0,200}") {
            prop_assert_eq!(without_block(&with_block(&text, SERVER)), text);
        }
    }
}
