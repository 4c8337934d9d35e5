//! Shows the main job on one machine: a development identity provider, an app, a TCP service, and a real gateway before
//! them, with a certificate authority made on the spot.
//!
//! Everything listens on loopback. Nothing here is used by a gateway that is run with a configuration of its own.

mod config_file;
mod dev_idp;
mod parts;
mod pki;

use std::path::PathBuf;

use anyhow::Context as _;
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
    pki::make(&options.folder)
        .with_context(|| format!("cannot make keys in {}", options.folder.display()))?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let ports = parts::start(options.port, &tracker, &stop).await?;
    let file = config_file::write(options, ports).context("cannot write the configuration")?;
    Ok(Prepared { file, banner: banner(options), stop, tracker })
}

/// A quickstart that is ready for its gateway.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) file: PathBuf,
    pub(crate) banner: String,
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

/// The next lines to type, in order.
fn banner(options: &Options) -> String {
    let (port, folder) = (options.port, options.folder.display());
    format!(
        "\nThe gateway is up. In another terminal, in this folder:\n\n\
         1. Sign in as alice (a page opens in your browser; choose \"alice\"):\n\n   \
         cargo run --release -q -p pomerium-cli -- login https://localhost:{port} --alternate-ca-path {folder}/ca.pem\n\n\
         2. Reach a TCP service that only the gateway can reach:\n\n   \
         cargo run --release -q -p pomerium-cli -- tcp hello.corp.example:7000 --listen - --pomerium-url https://localhost:{port} --alternate-ca-path {folder}/ca.pem\n\n   \
         It greets you and repeats what you type; Ctrl-D ends it.\n\n\
         3. See the internal web app in a browser (it shows who it thinks you are):\n\n   \
         https://app.localhost:{port}\n\n   \
         The browser warns of the certificate unless it trusts {folder}/ca.pem.\n\n\
         4. Sign out and sign in as bob: he is refused in both places, with the reason:\n\n   \
         cargo run --release -q -p pomerium-cli -- logout https://localhost:{port}\n   \
         https://app.localhost:{port}/.pomerium/sign_out\n\n\
         Keys, configuration and sessions are in {folder}. Ctrl-C stops everything.\n"
    )
}
