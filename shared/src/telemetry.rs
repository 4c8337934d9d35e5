//! Sets up the log: `tracing` events as JSON or for people, filtered, to standard error.

use std::io;

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt as _, registry};

/// How the log's lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for programs.
    Json,
    /// Coloured where standard error is a terminal, for people.
    Human,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter is not one of `tracing`'s directives.
    #[error("the log filter cannot be read: write a level or directives such as info,pomerium_gateway=debug")]
    BadFilter(#[source] ParseError),
    /// A log was set up before.
    #[error("the log was set up twice")]
    AlreadySet(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends the process's events that pass `filter` (a level, or directives as in `RUST_LOG`) to standard error.
///
/// # Errors
/// [`TelemetryError::BadFilter`], and [`TelemetryError::AlreadySet`] from the second call on.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(TelemetryError::BadFilter)?;
    let registry = registry().with(filter);
    match format {
        LogFormat::Json => {
            let lines = fmt::layer().json().flatten_event(true).with_writer(io::stderr);
            tracing::subscriber::set_global_default(registry.with(lines))
        }
        LogFormat::Human => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            let lines = fmt::layer().with_ansi(is_terminal).with_writer(io::stderr);
            tracing::subscriber::set_global_default(registry.with(lines))
        }
    }
    .map_err(TelemetryError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        let refused = init(LogFormat::Json, "pomerium_gateway=loud");
        assert!(matches!(refused, Err(TelemetryError::BadFilter(_))), "{refused:?}");
    }
}
