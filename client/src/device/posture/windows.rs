//! Windows: what the command interpreter tells everybody.

use pomerium_shared::posture::{OperatingSystem, PostureReport};

use super::{command::ask, reading::version_number};

pub(super) async fn collect() -> PostureReport {
    let version = ask("cmd", &["/d", "/c", "ver"]).await.unwrap_or_default();
    PostureReport {
        os: OperatingSystem::Windows,
        os_version: version_number(&version),
        client_version: String::new(),
        hostname: std::env::var("COMPUTERNAME").unwrap_or_default(),
        // BitLocker and the firewall's state are told to administrators only.
        disk_encryption: None,
        firewall: None,
        screen_lock: None,
    }
}
