//! Devices as policy sees them: plain data, without I/O.

pub mod webauthn;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use pomerium_shared::posture::PostureReport;
use serde::{Deserialize, Serialize};

use crate::session::UserId;

/// SHA-256 of a certificate in DER, base64url without padding: the `x5t#S256` of RFC 8705, 3.1. Names the key that a
/// client proved to hold in its TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// The thumbprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        use sha2::Digest as _;
        Self(URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(certificate)))
    }

    /// A thumbprint that was kept as text.
    #[must_use]
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One device of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Names the device: the thumbprint of its key's certificate, or the id of its WebAuthn credential.
    pub id: String,
    /// Whose it is.
    pub user_id: UserId,
    /// What the person calls it.
    pub name: String,
    /// How it proves that it is the one.
    pub kind: DeviceKind,
    /// Whether an administrator has approved it.
    pub is_approved: bool,
    /// When it was seen first.
    pub enrolled_at: SystemTime,
    /// Its latest report, and when the gateway received it.
    pub posture: Option<(PostureReport, SystemTime)>,
}

/// A change of posture is taken no faster than this: each wakes what is open.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// A report that says nothing new is written down again after this, for rules about its age.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);

/// What to do with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportStep {
    /// It is news.
    Keep,
    /// It is known already.
    Known,
    /// The last one came just now.
    TooSoon,
}

impl Device {
    /// What to do with a report that came at `now`.
    #[must_use]
    pub fn on_report(&self, report: &PostureReport, now: SystemTime) -> ReportStep {
        let Some((known, received_at)) = &self.posture else { return ReportStep::Keep };
        // A clock that was set back makes everything news.
        let Ok(age) = now.duration_since(*received_at) else { return ReportStep::Keep };
        match known == report {
            true if age < RENEWAL_INTERVAL => ReportStep::Known,
            false if age < CHANGE_INTERVAL => ReportStep::TooSoon,
            _ => ReportStep::Keep,
        }
    }
}

/// How a device proves that it is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The key of `pomerium-cli`, kept in a file or a keyring.
    ClientKey,
    /// A WebAuthn credential that may travel between machines.
    WebauthnAny,
    /// A WebAuthn credential that is fixed to one machine's hardware.
    WebauthnEnclave,
}

/// The word names no kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of device")]
pub struct UnknownDeviceKind;

impl DeviceKind {
    /// The word under which it is kept.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientKey => "client_key",
            Self::WebauthnAny => "webauthn_any",
            Self::WebauthnEnclave => "webauthn_enclave",
        }
    }
}

impl FromStr for DeviceKind {
    type Err = UnknownDeviceKind;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::ClientKey, Self::WebauthnAny, Self::WebauthnEnclave]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or(UnknownDeviceKind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn news_is_kept_but_not_faster_than_each_second() {
        let report = |firewall| PostureReport { firewall, ..PostureReport::default() };
        let known = Some((report(Some(true)), at(100_000)));
        let device = Device {
            id: "d".to_owned(),
            user_id: UserId::new("u"),
            name: String::new(),
            kind: DeviceKind::ClientKey,
            is_approved: false,
            enrolled_at: at(0),
            posture: None,
        };
        assert_eq!(device.on_report(&report(None), at(0)), ReportStep::Keep);
        let device = Device { posture: known, ..device };
        for (firewall, now, step) in [
            (Some(true), 100_000, ReportStep::Known),
            (Some(true), 129_999, ReportStep::Known),
            (Some(true), 130_000, ReportStep::Keep),
            (Some(true), 99_999, ReportStep::Keep),
            (Some(false), 100_999, ReportStep::TooSoon),
            (Some(false), 101_000, ReportStep::Keep),
            (None, 99_999, ReportStep::Keep),
        ] {
            assert_eq!(device.on_report(&report(firewall), at(now)), step, "{firewall:?} at {now}");
        }
    }

    #[test]
    fn each_kind_has_a_word() {
        for kind in [DeviceKind::ClientKey, DeviceKind::WebauthnAny, DeviceKind::WebauthnEnclave] {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("".parse::<DeviceKind>(), Err(UnknownDeviceKind));
    }
}
