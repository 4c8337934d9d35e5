//! Linux: files that anybody may read, and programs of the desktop.

use std::{
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use pomerium_shared::posture::{OperatingSystem, PostureReport};

use super::{
    command::ask,
    reading::{
        Block, any_unit_is_active, encrypts_itself, gnome_locks, is_encrypted, kde_locks, mount_of,
        os_release, ufw_is_on, version_number,
    },
};

/// Bytes of any file that is read here, at most.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// Units that set up a host firewall.
const FIREWALL_UNITS: [&str; 5] = ["is-active", "firewalld", "nftables", "iptables", "netfilter-persistent"];

pub(super) async fn collect() -> PostureReport {
    let (firewall, screen_lock) = tokio::join!(firewall(), screen_lock());
    PostureReport {
        os: OperatingSystem::Linux,
        os_version: os_version(),
        client_version: String::new(),
        hostname: text("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        disk_encryption: env::var_os("HOME").and_then(|home| disk_encryption(Path::new(&home))),
        firewall,
        screen_lock,
    }
}

/// Distributions that only roll have no number.
fn os_version() -> String {
    let release = text("/etc/os-release").or_else(|| text("/usr/lib/os-release")).unwrap_or_default();
    version_number(os_release(&release, "VERSION_ID").unwrap_or_default())
}

fn disk_encryption(home: &Path) -> Option<bool> {
    let mount = mount_of(&text("/proc/self/mounts")?, home)?;
    if encrypts_itself(&mount.kind) {
        return Some(true);
    }
    if !mount.source.starts_with("/dev/") {
        // A network, a container's layers, ZFS: nothing here tells.
        return None;
    }
    let device = fs::canonicalize(&mount.source).ok()?;
    is_encrypted(device.file_name()?.to_str()?, &block)
}

fn block(name: &str) -> Block {
    let folder = PathBuf::from("/sys/block").join(name);
    let made_of = fs::read_dir(folder.join("slaves"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    Block { mapper_id: text(folder.join("dm/uuid")), made_of }
}

/// The rules themselves are the administrator's to read: a firewall counts when its service says that it is on, and
/// nothing is known otherwise.
async fn firewall() -> Option<bool> {
    if text("/etc/ufw/ufw.conf").is_some_and(|conf| ufw_is_on(&conf)) {
        return Some(true);
    }
    let answer = ask("systemctl", &FIREWALL_UNITS).await?;
    any_unit_is_active(&answer).then_some(true)
}

/// Each desktop keeps it elsewhere; without one that we know, nothing is known.
async fn screen_lock() -> Option<bool> {
    let desktop = env::var("XDG_CURRENT_DESKTOP").unwrap_or_default();
    let is = |name: &str| desktop.split(':').any(|part| part.eq_ignore_ascii_case(name));
    if is("GNOME") {
        let (lock, idle) = tokio::join!(
            ask("gsettings", &["get", "org.gnome.desktop.screensaver", "lock-enabled"]),
            ask("gsettings", &["get", "org.gnome.desktop.session", "idle-delay"]),
        );
        return gnome_locks(&lock?, &idle?);
    }
    if is("KDE") {
        let folder = env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".config")))?;
        return Some(kde_locks(&text(folder.join("kscreenlockerrc")).unwrap_or_default()));
    }
    None
}

/// A small text file of the system; `None` when it is missing, closed to us, or no text.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_LEN_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}
