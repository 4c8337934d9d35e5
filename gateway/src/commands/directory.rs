//! `directory`: what an operator does about people and groups that were pushed by SCIM. Works on the store; a running gateway
//! follows within a second.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::on_store;
use crate::store::Store;

/// Arguments of `directory`.
#[derive(Debug, Clone, Args)]
pub struct DirectoryArguments {
    /// The gateway's YAML file: it says where the store is.
    #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Forgets every person and group that was pushed: claims say everybody's groups again, and whom the directory had
    /// removed or deactivated can sign in if the identity provider lets them.
    Forget,
}

/// Runs the command; 78 if the configuration cannot be used.
#[must_use]
pub fn directory(arguments: &DirectoryArguments) -> ExitCode {
    on_store(&arguments.config, async |_, store| act(store, &arguments.action).await)
}

async fn act(store: &Store, action: &Action) -> anyhow::Result<String> {
    match action {
        Action::Forget => {
            let people = store.forget_directory().await?;
            store.announce_outside_change().await?;
            Ok(format!("Forgot the directory; people in it: {people}.\n"))
        }
    }
}
