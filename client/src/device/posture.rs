//! What this machine says of itself: collected here, reported by `access`.
//!
//! Each platform has a module that asks the system; what the system's words mean is decided by pure functions in
//! `reading`. What cannot be found out is `None`, which satisfies no rule of the gateway.

pub(crate) mod command;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, target_os = "macos"))]
#[cfg_attr(not(target_os = "macos"), expect(dead_code, reason = "compiled with the tests everywhere"))]
mod macos;
mod reading;
#[cfg(any(test, target_os = "windows"))]
#[cfg_attr(not(target_os = "windows"), expect(dead_code, reason = "compiled with the tests everywhere"))]
mod windows;

use std::time::{Duration, Instant};

use pomerium_shared::posture::PostureReport;

#[cfg(target_os = "linux")]
use self::linux as platform;
#[cfg(target_os = "macos")]
use self::macos as platform;
#[cfg(target_os = "windows")]
use self::windows as platform;

/// Between two looks at the machine.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The gateway hears of a machine that does not change this often, so that its report does not grow old.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(300);

/// What this machine is like now. Takes as long as the slowest question to the system, a few seconds at most.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
pub(crate) async fn collect() -> PostureReport {
    with_own_version(platform::collect().await)
}

/// On other systems nothing is known.
#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
pub(crate) async fn collect() -> PostureReport {
    with_own_version(PostureReport::default())
}

fn with_own_version(report: PostureReport) -> PostureReport {
    PostureReport { client_version: env!("CARGO_PKG_VERSION").to_owned(), ..report }.cleaned()
}

/// Whether the gateway should hear of `report`, after what it heard last.
pub(crate) fn is_due(heard: Option<&(PostureReport, Instant)>, report: &PostureReport, now: Instant) -> bool {
    heard.is_none_or(|(known, at)| known != report || now.saturating_duration_since(*at) >= RENEWAL_INTERVAL)
}

#[cfg(test)]
mod tests {
    use pomerium_shared::{clock::Now, posture::OperatingSystem};

    use super::*;

    #[test]
    fn a_change_is_reported_at_once_and_the_same_now_and_then() {
        let now = Now::read().monotonic;
        let report = PostureReport { firewall: Some(true), ..PostureReport::default() };
        let heard = (report.clone(), now);
        assert!(is_due(None, &report, now));
        assert!(!is_due(Some(&heard), &report, now + RENEWAL_INTERVAL - Duration::from_secs(1)));
        assert!(is_due(Some(&heard), &report, now + RENEWAL_INTERVAL));
        assert!(is_due(Some(&heard), &PostureReport::default(), now));
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn this_machine_can_be_told_to_a_gateway() {
        let report = collect().await;
        assert_eq!(report.os, OperatingSystem::Linux);
        let json = serde_json::to_vec(&report).unwrap();
        assert_eq!(PostureReport::parse(&json).unwrap(), report);
    }
}
