//! Shows the main job on one machine: a development identity provider, an app, a TCP service, and a real gateway before
//! them, with a certificate authority made on the spot.
//!
//! Everything listens on loopback. Nothing here is used by a gateway that is run with a configuration of its own: the
//! quickstart ends in an ordinary configuration file, and what reads that file knows nothing of the quickstart.

mod banner;
mod config_file;
mod dev_idp;
mod hello;
mod loopback;
mod parts;
mod pki;
mod sample_app;

use std::path::PathBuf;

use anyhow::Context as _;
use pomerium_shared::clock::Now;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the quickstart is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where keys, configuration and sessions are kept.
    pub folder: PathBuf,
    /// The gateway's port on 127.0.0.1.
    pub port: u16,
}

/// Prepares everything and returns the configuration file, the lines to type, and what to stop at the end.
pub(crate) async fn prepare(options: &Options) -> anyhow::Result<Prepared> {
    let folder = &options.folder;
    pki::make(folder, Now::read()).with_context(|| format!("cannot make keys in {}", folder.display()))?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let parts = parts::start(options, &tracker, &stop).await?;
    let file = config_file::write(options, &parts).context("cannot write the configuration")?;
    Ok(Prepared { file, banner: banner::text(options), stop, tracker })
}

/// A quickstart that is ready for its gateway.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) file: PathBuf,
    pub(crate) banner: String,
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

#[cfg(test)]
mod tests;
