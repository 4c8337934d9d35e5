//! The commands beside `run`.

pub mod device;
mod directory;
mod doctor;
mod people;
pub mod policy;
mod service_account;
mod wireguard;

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use pomerium_shared::telemetry;

pub use self::{
    directory::{DirectoryArguments, directory},
    doctor::{DoctorArguments, doctor},
    service_account::{ServiceAccountArguments, service_account},
    wireguard::{WireGuardArguments, wireguard},
};

use crate::{
    app,
    config::{self, Settings, Storage},
    fd_store::Inheritance,
    quickstart,
    store::Store,
};

/// Lets `act` work on the store that a configuration names, beside a gateway that runs or not, and prints what it says; 78 if
/// the configuration cannot be used.
fn on_store(file: &Path, act: impl AsyncFnOnce(&Settings, &Store) -> anyhow::Result<String>) -> ExitCode {
    let source = app::Source { file: file.to_owned(), services: None };
    let settings = match source.load() {
        Ok(loaded) => loaded.settings,
        Err(errors) => {
            app::report(&errors.to_string());
            return ExitCode::from(app::EXIT_CONFIG);
        }
    };
    let work = app::start_runtime().and_then(|runtime| {
        runtime.block_on(async {
            if settings.storage == Storage::Memory {
                bail!("the gateway keeps its store in memory, which no other program can see: set databroker_storage_type: file or postgres");
            }
            let store = app::open_store(&settings).await?;
            let said = act(&settings, &store).await;
            store.close().await;
            said
        })
    });
    match work {
        Ok(text) => {
            // Nobody reads a closed terminal.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            app::report(&format!("pomerium-gateway: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells everything that is wrong with a configuration file; 78 if it cannot be used.
#[must_use]
pub fn check_config(file: &Path) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match config::check::run(file, &|name| env::var(name).ok(), Path::new("."), &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(app::EXIT_CONFIG),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Arguments of `quickstart`.
#[derive(Debug, Clone, Args)]
pub struct QuickstartArguments {
    /// Where keys, configuration and sessions are kept [default: $XDG_DATA_HOME/pomerium-quickstart].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The gateway's port on 127.0.0.1, TCP and UDP.
    #[arg(long, default_value_t = 8443)]
    port: u16,
}

/// Runs the quickstart until Ctrl-C.
#[must_use]
pub fn quickstart(arguments: &QuickstartArguments) -> ExitCode {
    let result = telemetry::init(telemetry::LogFormat::Human, "info")
        .context("cannot set up the log")
        .and_then(|log| Ok((log, app::start_runtime()?)))
        .and_then(|(_log, runtime)| runtime.block_on(run_quickstart(arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            app::report(&format!("quickstart: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run_quickstart(arguments: &QuickstartArguments) -> anyhow::Result<()> {
    let folder = match &arguments.data_dir {
        Some(folder) => std::path::absolute(folder)?,
        None => default_folder()?,
    };
    let options = quickstart::Options { folder, port: arguments.port };
    let prepared = quickstart::prepare(&options).await?;
    let source = app::Source { file: prepared.file.clone(), services: None };
    let loaded = source.load().map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let banner = prepared.banner.clone();
    let ready = move || {
        // Nobody reads a closed terminal.
        let _ = std::io::stdout().lock().write_all(banner.as_bytes());
    };
    let result = app::run(source, loaded, Inheritance::default(), ready).await;
    prepared.stop.cancel();
    prepared.tracker.close();
    result
}

fn default_folder() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".local/share")));
    Ok(base.context("neither HOME nor XDG_DATA_HOME is set: give --data-dir")?.join("pomerium-quickstart"))
}
