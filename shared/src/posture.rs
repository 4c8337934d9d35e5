//! What a client says of the machine it runs on.
//!
//! A report is a claim of a program that somebody may have changed: it keeps honest people from working on a machine
//! that is not fit, and no more. The gateway stores it with the time when it came.

use serde::{Deserialize, Serialize};

/// Bytes of a report as JSON at most; a longer one is refused unread.
pub const REPORT_LEN_MAX: usize = 4 * 1024;

/// The state of one machine. `None` means that the client could not find out, which satisfies no rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostureReport {
    /// The operating system.
    pub os: OperatingSystem,
    /// Its version as numbers with dots between, as far as there are numbers: `12.5`, `10.0.22631`; empty when unknown.
    #[serde(default)]
    pub os_version: String,
    /// The version of the client that reports.
    #[serde(default)]
    pub client_version: String,
    /// The machine's own name.
    #[serde(default)]
    pub hostname: String,
    /// Whether the volume that holds the person's files is encrypted.
    #[serde(default)]
    pub disk_encryption: Option<bool>,
    /// Whether a host firewall filters what comes in.
    #[serde(default)]
    pub firewall: Option<bool>,
    /// Whether the screen locks by itself.
    #[serde(default)]
    pub screen_lock: Option<bool>,
}

/// The operating systems that policy can name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperatingSystem {
    /// Any Linux distribution.
    Linux,
    /// macOS.
    Macos,
    /// Windows.
    Windows,
    /// Something else, or not known.
    #[default]
    Other,
}

impl OperatingSystem {
    /// The word of the policy language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Macos => "macos",
            Self::Windows => "windows",
            Self::Other => "other",
        }
    }
}
