//! Matchers of the device: which one it is, and what it reported of itself.
//!
//! What a device did not report satisfies nothing.

use std::{cmp::Ordering, fmt, time::SystemTime};

use pomerium_shared::posture::{OperatingSystem, PostureReport};

use super::{calendar::AgeLimit, matcher::StringMatcher, reason::Reason};
use crate::device::{Device, DeviceKind};

/// Numbers of a version at most.
const VERSION_PARTS_MAX: usize = 8;

/// `device`: what a device must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMatcher {
    pub(super) id: Option<String>,
    pub(super) is_approved: Option<bool>,
    /// Whether its key must be fixed to the machine's hardware (`type: enclave_only`).
    pub(super) needs_enclave: bool,
}

impl DeviceMatcher {
    /// Whether the device is of the kind that the rule speaks of; one that is not counts as none.
    pub(super) fn concerns(&self, device: &Device) -> bool {
        !self.needs_enclave || device.kind == DeviceKind::WebauthnEnclave
    }

    pub(super) fn matches(&self, device: &Device) -> bool {
        self.id.as_ref().is_none_or(|id| *id == device.id)
            && self.is_approved.is_none_or(|wanted| wanted == device.is_approved)
    }

    /// Whether enrolling (there is no device yet) or an approval could make it match: neither changes which one it is.
    pub(super) fn may_come_to_match(&self, device: Option<&Device>) -> bool {
        match device.filter(|device| self.concerns(device)) {
            Some(device) => {
                self.is_approved == Some(true) && self.id.as_ref().is_none_or(|id| *id == device.id)
            }
            None => self.id.is_none(),
        }
    }
}

/// `posture/...`: one question about what a device reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostureTest {
    /// `posture/os`.
    Os(StringMatcher),
    /// `posture/os_version`.
    OsVersion(Version),
    /// `posture/disk_encryption`.
    DiskEncryption,
    /// `posture/firewall`.
    Firewall,
    /// `posture/screen_lock`.
    ScreenLock,
    /// `posture/age`.
    Age(AgeLimit),
}

impl PostureTest {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Os(_) => "posture/os",
            Self::OsVersion(_) => "posture/os_version",
            Self::DiskEncryption => "posture/disk_encryption",
            Self::Firewall => "posture/firewall",
            Self::ScreenLock => "posture/screen_lock",
            Self::Age(_) => "posture/age",
        }
    }

    /// The reasons of a yes and of a no.
    pub(super) const fn reasons(&self) -> (Reason, Reason) {
        match self {
            Self::Os(_) => (Reason::PostureOsOk, Reason::PostureOsUnauthorized),
            Self::OsVersion(_) => (Reason::PostureOsVersionOk, Reason::PostureOsVersionUnauthorized),
            Self::DiskEncryption => {
                (Reason::PostureDiskEncryptionOk, Reason::PostureDiskEncryptionUnauthorized)
            }
            Self::Firewall => (Reason::PostureFirewallOk, Reason::PostureFirewallUnauthorized),
            Self::ScreenLock => (Reason::PostureScreenLockOk, Reason::PostureScreenLockUnauthorized),
            Self::Age(_) => (Reason::PostureAgeOk, Reason::PostureAgeUnauthorized),
        }
    }

    /// Whether the report, received at a moment, is as it should be; `None` when it does not say.
    pub(super) fn answer(
        &self,
        (report, received_at): &(PostureReport, SystemTime),
        now: SystemTime,
    ) -> Option<bool> {
        match self {
            Self::Os(_) if report.os == OperatingSystem::Other => None,
            Self::Os(matcher) => Some(matcher.matches(report.os.as_str())),
            Self::OsVersion(version) => version.is_reached_by(&report.os_version),
            Self::DiskEncryption => report.disk_encryption,
            Self::Firewall => report.firewall,
            Self::ScreenLock => report.screen_lock,
            Self::Age(limit) => Some(limit.holds(*received_at, now)),
        }
    }
}

/// The numbers of a version, `12.5` or `10.0.22631`; what is not written counts as 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Vec<u64>);

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parts = text.split('.').map(number).collect::<Option<Vec<_>>>()?;
        (parts.len() <= VERSION_PARTS_MAX).then_some(Self(parts))
    }

    /// Whether `reported` is this version or a later one; `None` when it is no version.
    pub(super) fn is_reached_by(&self, reported: &str) -> Option<bool> {
        let mut wanted = self.0.iter().copied();
        let mut order = Ordering::Equal;
        for part in reported.split('.') {
            order = order.then(number(part)?.cmp(&wanted.next().unwrap_or(0)));
        }
        for missing in wanted {
            order = order.then(0.cmp(&missing));
        }
        Some(order.is_ge())
    }
}

/// Digits alone: no sign, which `parse` would take.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for DeviceMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.needs_enclave { "type enclave_only" } else { "type any" })?;
        if let Some(id) = &self.id {
            write!(f, " and is {id:?}")?;
        }
        if let Some(is_approved) = self.is_approved {
            write!(f, " and approved {is_approved}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PostureTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(matcher) => write!(f, " {matcher}"),
            Self::OsVersion(version) => write!(f, " at_least {version}"),
            Self::Age(limit) => write!(f, " {limit}"),
            Self::DiskEncryption | Self::Firewall | Self::ScreenLock => Ok(()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            write!(f, "{}{part}", if index > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}
