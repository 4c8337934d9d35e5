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

/// Characters of a version at most.
const VERSION_LEN_MAX: usize = 64;

/// Characters of a machine's name at most, as in DNS.
const HOSTNAME_LEN_MAX: usize = 253;

/// Why bytes are no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Longer than [`REPORT_LEN_MAX`].
    #[error("the report is longer than {REPORT_LEN_MAX} bytes")]
    TooLong,
    /// Not the document that a report is.
    #[error("the report is malformed")]
    Malformed(#[source] serde_json::Error),
    /// A text with characters or of a length that none has.
    #[error("{field} has characters that do not belong there, or is too long")]
    BadText {
        /// Which.
        field: &'static str,
    },
}

impl PostureReport {
    /// Reads a report as it comes over the wire. Unknown fields, and texts that could not be of an honest client, are
    /// errors.
    ///
    /// # Errors
    /// [`ReportError`].
    ///
    /// ```
    /// use pomerium_shared::posture::PostureReport;
    ///
    /// let report = PostureReport::parse(br#"{"os":"linux","os_version":"12.5","disk_encryption":true}"#)?;
    /// assert_eq!((report.disk_encryption, report.firewall), (Some(true), None));
    /// # Ok::<(), pomerium_shared::posture::ReportError>(())
    /// ```
    pub fn parse(json: &[u8]) -> Result<Self, ReportError> {
        if json.len() > REPORT_LEN_MAX {
            return Err(ReportError::TooLong);
        }
        let report: Self = serde_json::from_slice(json).map_err(ReportError::Malformed)?;
        for (field, is_good) in [
            ("os_version", is_version_number(&report.os_version)),
            ("client_version", is_shown(&report.client_version, VERSION_LEN_MAX)),
            ("hostname", is_shown(&report.hostname, HOSTNAME_LEN_MAX)),
        ] {
            if !is_good {
                return Err(ReportError::BadText { field });
            }
        }
        Ok(report)
    }

    /// The same, with what [`parse`](Self::parse) would refuse left out.
    #[must_use]
    pub fn cleaned(mut self) -> Self {
        if !is_version_number(&self.os_version) {
            self.os_version.clear();
        }
        for (text, len_max) in
            [(&mut self.client_version, VERSION_LEN_MAX), (&mut self.hostname, HOSTNAME_LEN_MAX)]
        {
            if !is_shown(text, len_max) {
                text.clear();
            }
        }
        self
    }
}

/// Numbers with dots between, or nothing.
fn is_version_number(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.is_empty() || (text.len() <= VERSION_LEN_MAX && text.split('.').all(is_number))
}

/// Text for a line on a terminal or a page.
fn is_shown(text: &str, len_max: usize) -> bool {
    let is_steering = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().count() <= len_max && !text.chars().any(is_steering)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_honest_client_sends_is_refused() {
        for text in [
            r#"{"os":"linux","rooted":false}"#,
            r#"{"os":"plan9"}"#,
            r#"{"os":"linux","firewall":"yes"}"#,
            r#"{"os":"linux","os_version":"12 (bookworm)"}"#,
            r#"{"os":"linux","os_version":"12..5"}"#,
            r#"{"os":"linux","hostname":"a\u001b[31mb"}"#,
            r#"{"os":"linux","client_version":"\u202e1.0"}"#,
            "[]",
            "",
        ] {
            assert!(PostureReport::parse(text.as_bytes()).is_err(), "{text}");
        }
        let long = format!(r#"{{"os":"linux"{}}}"#, " ".repeat(REPORT_LEN_MAX));
        assert!(matches!(PostureReport::parse(long.as_bytes()), Err(ReportError::TooLong)));
    }

    proptest! {
        #[test]
        fn what_an_honest_client_sends_is_read_as_it_was_meant(
            os_version in ".{0,80}", client_version in ".{0,80}", hostname in ".{0,300}", disk: Option<bool>,
        ) {
            let report = PostureReport {
                os: OperatingSystem::Linux, os_version, client_version, hostname, disk_encryption: disk,
                ..PostureReport::default()
            }.cleaned();
            let json = serde_json::to_vec(&report).unwrap();
            prop_assert_eq!(PostureReport::parse(&json).unwrap(), report);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _may_be_none = PostureReport::parse(&bytes);
        }
    }
}
