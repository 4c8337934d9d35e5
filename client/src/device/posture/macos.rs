//! macOS: the system's own programs.

use pomerium_shared::posture::{OperatingSystem, PostureReport};

use super::{
    command::ask,
    reading::{filevault_is_on, mac_firewall_is_on, version_number},
};

/// Tells of the firewall without root.
const FIREWALL: &str = "/usr/libexec/ApplicationFirewall/socketfilterfw";

pub(super) async fn collect() -> PostureReport {
    let (version, name, vault, firewall) = tokio::join!(
        ask("/usr/bin/sw_vers", &["-productVersion"]),
        ask("/bin/hostname", &[]),
        ask("/usr/bin/fdesetup", &["status"]),
        ask(FIREWALL, &["--getglobalstate"]),
    );
    PostureReport {
        os: OperatingSystem::Macos,
        os_version: version_number(&version.unwrap_or_default()),
        client_version: String::new(),
        hostname: name.unwrap_or_default().trim().to_owned(),
        disk_encryption: vault.as_deref().and_then(filevault_is_on),
        firewall: firewall.as_deref().and_then(mac_firewall_is_on),
        screen_lock: None,
    }
}
