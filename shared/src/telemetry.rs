//! Sets up the log: `tracing` events as JSON or for people, filtered, to standard error.

mod json;
mod lines;

use std::io;

use self::{json::Json, lines::Lines};
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt as _, registry};

/// Libraries whose words are not for people: boringtun calls it an error that somebody has gone to bed. A filter that names them
/// hears them.
const QUIET: &str = "boringtun=off";

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
    /// No thread for the log.
    #[error("the system has no thread to spare for the log: raise the limit of processes (ulimit -u)")]
    NoThread(#[source] io::Error),
}

/// The log of this process; what it still holds is written as this is dropped.
#[derive(Debug)]
#[must_use = "the last lines are written as it is dropped"]
pub struct Log(Option<Lines>);

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.flush();
        }
    }
}

/// Sends the process's events that pass `filter` (a level, or directives as in `RUST_LOG`) to standard error: JSON in
/// batches, by a thread of its own, as a gateway writes many; lines for people at once.
///
/// # Errors
/// [`TelemetryError::BadFilter`], [`TelemetryError::NoThread`], and [`TelemetryError::AlreadySet`] from the second call on.
pub fn init(format: LogFormat, filter: &str) -> Result<Log, TelemetryError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(TelemetryError::BadFilter)?;
    let registry = registry().with(filter);
    let (set, lines) = match format {
        LogFormat::Json => {
            let lines = Lines::to(io::stderr()).map_err(TelemetryError::NoThread)?;
            let writer = lines.clone();
            let layer = fmt::layer().json().event_format(Json::new()).with_writer(move || writer.clone());
            (tracing::subscriber::set_global_default(registry.with(layer)), Some(lines))
        }
        LogFormat::Human => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            let layer = fmt::layer().with_ansi(is_terminal).with_writer(io::stderr);
            (tracing::subscriber::set_global_default(registry.with(layer)), None)
        }
    };
    set.map_err(TelemetryError::AlreadySet)?;
    Ok(Log(lines))
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
