//! Why a stream ended: one word, the same in the CLI, the log, the metric and on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

/// First of the HTTP/3 application error codes that carry an [`EndReason`] in `RESET_STREAM` and `STOP_SENDING`
/// (RFC 9114, 8.1 leaves the space open; the value is "pom" in ASCII, far from the registered codes).
pub const ERROR_CODE_BASE: u64 = 0x70_6f_6d_00;

/// Why a stream ended.
///
/// ```
/// use pomerium_shared::reason::EndReason;
/// assert_eq!(EndReason::Policy.to_string(), "policy");
/// assert_eq!(EndReason::from_error_code(EndReason::Policy.error_code()), Some(EndReason::Policy));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The person's side closed it.
    Client,
    /// The app behind the gateway closed it.
    App,
    /// Policy no longer allows it.
    Policy,
    /// The session ended: signed out, revoked or expired.
    Session,
    /// Nothing was sent for longer than the operator allows.
    Idle,
    /// The connection under it was lost.
    Network,
    /// The gateway or the client is stopping.
    Shutdown,
    /// The connection under it was lost, and it could not be resumed over another.
    ResumeFailed,
}

impl EndReason {
    /// All reasons, in the order of their error codes.
    pub const ALL: [Self; 8] = [
        Self::Client,
        Self::App,
        Self::Policy,
        Self::Session,
        Self::Idle,
        Self::Network,
        Self::Shutdown,
        Self::ResumeFailed,
    ];

    /// The word that people and programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::App => "app",
            Self::Policy => "policy",
            Self::Session => "session",
            Self::Idle => "idle",
            Self::Network => "network",
            Self::Shutdown => "shutdown",
            Self::ResumeFailed => "resume-failed",
        }
    }

    /// The code that a reset stream carries.
    #[must_use]
    pub const fn error_code(self) -> u64 {
        ERROR_CODE_BASE + self as u64
    }

    /// The reason in a peer's error code; `None` for codes that are not ours.
    #[must_use]
    pub fn from_error_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.error_code() == code)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So that it can travel in an `io::Error` of a stream that has no resets.
impl std::error::Error for EndReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::from_error_code(reason.error_code()), Some(reason));
        }
    }

    #[test]
    fn a_foreign_error_code_is_no_reason() {
        assert_eq!(EndReason::from_error_code(0x10c), None);
        assert_eq!(EndReason::from_error_code(ERROR_CODE_BASE + 8), None);
    }
}
