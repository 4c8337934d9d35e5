//! The one real clock, and the moment that pure code is handed.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970-01-01 UTC; 0 before it.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// One moment, read once at the edge and passed down: cores never read a clock themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For durations and time-outs.
    pub monotonic: Instant,
    /// For what people and tokens say.
    pub wall: SystemTime,
}

impl Now {
    /// Reads the machine's clocks. Only shells call this.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Whole seconds since 1970-01-01 UTC, as JWT's `NumericDate` counts (RFC 7519, 2); 0 before it.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        i64::try_from(unix_seconds(self.wall)).unwrap_or(i64::MAX)
    }
}
