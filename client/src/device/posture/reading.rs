//! What the systems' own words mean. Pure: text in, facts out; used by the module of each platform.

#![cfg_attr(
    not(test),
    expect(dead_code, reason = "each platform uses its own part; all parts are tested everywhere")
)]

use std::path::{Path, PathBuf};

/// How many layers of block devices are looked through: LVM on LUKS on RAID is three.
const LAYERS_MAX: usize = 8;

/// The value of a key of `os-release(5)`, without its quotes.
pub(super) fn os_release<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(key)?.strip_prefix('=')?.trim();
        let unquoted = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote).and_then(|inner| inner.strip_suffix(*quote)));
        Some(unquoted.unwrap_or(value))
    })
}

/// The numbers with dots between at the first digit of a text: `12.5` of `12.5 (stable)`, `10.0.1` of `Version 10.0.1]`.
pub(super) fn version_number(text: &str) -> String {
    let Some(start) = text.find(|c: char| c.is_ascii_digit()) else { return String::new() };
    let tail = &text[start..];
    let end = tail.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(tail.len());
    let parts: Vec<&str> = tail[..end].split('.').take_while(|part| !part.is_empty()).collect();
    parts.join(".")
}

/// One line of `/proc/self/mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device, or whatever the file system calls its source.
    pub(super) source: String,
    /// The type of the file system.
    pub(super) kind: String,
}

/// The mount that holds `path`: the longest that is a prefix of it, the last of equals.
pub(super) fn mount_of(mounts: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let point = PathBuf::from(unescaped(point));
        let depth = point.components().count();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(known, _)| depth >= *known) {
            best = Some((depth, Mount { source: unescaped(source), kind: kind.to_owned() }));
        }
    }
    best.map(|(_, mount)| mount)
}

/// A field of `/proc/self/mounts`, in which `\040` is a space.
fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(place) = rest.find('\\') {
        text.push_str(&rest[..place]);
        let octal = rest.get(place + 1..place + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) if byte.is_ascii() => {
                text.push(char::from(byte));
                rest = &rest[place + 4..];
            }
            _ => {
                text.push('\\');
                rest = &rest[place + 1..];
            }
        }
    }
    text.push_str(rest);
    text
}

/// Whether a file system of this type encrypts by itself.
pub(super) fn encrypts_itself(kind: &str) -> bool {
    matches!(kind, "ecryptfs" | "fuse.gocryptfs" | "fuse.cryfs" | "fuse.encfs")
}

/// One block device, as `/sys/block` tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// `dm/uuid` of a device of the device mapper.
    pub(super) mapper_id: Option<String>,
    /// The names in `slaves`: what it is made of.
    pub(super) made_of: Vec<String>,
}

/// Whether everything under a block device goes through encryption (dm-crypt). Encryption by the disk itself is not
/// seen; `None` when the layers do not end.
pub(super) fn is_encrypted(name: &str, block: &impl Fn(&str) -> Block) -> Option<bool> {
    layer_is_encrypted(name, block, LAYERS_MAX)
}

fn layer_is_encrypted(name: &str, block: &impl Fn(&str) -> Block, layers_left: usize) -> Option<bool> {
    let device = block(name);
    if device.mapper_id.is_some_and(|id| id.starts_with("CRYPT-")) {
        return Some(true);
    }
    if device.made_of.is_empty() {
        return Some(false);
    }
    let layers_left = layers_left.checked_sub(1)?;
    for part in &device.made_of {
        if !layer_is_encrypted(part, block, layers_left)? {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether `ufw.conf` switches the firewall on.
pub(super) fn ufw_is_on(conf: &str) -> bool {
    conf.lines().any(|line| {
        line.trim().strip_prefix("ENABLED=").is_some_and(|value| value.trim().eq_ignore_ascii_case("yes"))
    })
}

/// Whether `systemctl is-active` of some units names one that is.
pub(super) fn any_unit_is_active(answer: &str) -> bool {
    answer.lines().any(|line| line.trim() == "active")
}

/// GNOME: it locks when it is told to, and only after the screen has gone idle.
pub(super) fn gnome_locks(lock_enabled: &str, idle_delay: &str) -> Option<bool> {
    let is_enabled: bool = lock_enabled.trim().parse().ok()?;
    let idle_delay = idle_delay.trim();
    let seconds: u64 = idle_delay.strip_prefix("uint32 ").unwrap_or(idle_delay).parse().ok()?;
    Some(is_enabled && seconds > 0)
}

/// KDE: `kscreenlockerrc`, where `Autolock` is on unless it says otherwise.
pub(super) fn kde_locks(settings: &str) -> bool {
    !settings.lines().any(|line| {
        line.trim().strip_prefix("Autolock=").is_some_and(|value| value.trim().eq_ignore_ascii_case("false"))
    })
}

/// macOS: what `fdesetup status` says of `FileVault`.
pub(super) fn filevault_is_on(answer: &str) -> Option<bool> {
    match answer {
        on if on.contains("FileVault is On") => Some(true),
        off if off.contains("FileVault is Off") => Some(false),
        _ => None,
    }
}

/// macOS: what `socketfilterfw --getglobalstate` says.
pub(super) fn mac_firewall_is_on(answer: &str) -> Option<bool> {
    match answer {
        on if on.contains("enabled") => Some(true),
        off if off.contains("disabled") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
