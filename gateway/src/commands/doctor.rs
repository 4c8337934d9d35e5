//! `doctor`: whether people can get in from outside, and what to do where they cannot.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use pomerium_shared::finding::Finding;

use crate::{app, doctor};

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArguments {
    /// The gateway's YAML file.
    #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
    config: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Looks and says what it means: 0 if nothing is in the way, 1 if something is, 78 if the configuration cannot be used.
#[must_use]
pub fn doctor(arguments: &DoctorArguments) -> ExitCode {
    let source = app::Source { file: arguments.config.clone(), services: None };
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(errors) => {
            app::report(&errors.to_string());
            return ExitCode::from(app::EXIT_CONFIG);
        }
    };
    let facts = app::start_runtime().map(|runtime| runtime.block_on(doctor::gather(&loaded.settings)));
    let findings = match facts {
        Ok(facts) => doctor::check(&facts),
        Err(error) => {
            app::report(&format!("pomerium-gateway: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&findings).map(|text| text + "\n").unwrap_or_default(),
        false => Finding::text(&findings),
    };
    // Nobody reads a closed terminal.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if Finding::bad(&findings) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
