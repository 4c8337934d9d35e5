//! `cache`: the folder with tokens.

use clap::{Args, Subcommand};

use super::{print, user_cache};
use crate::failure::Failure;

/// Show or clear the folder with tokens.
#[derive(Debug, Args)]
pub(crate) struct CacheCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forget all tokens and the gateway used last
    Clear,
    /// Print where the folder is
    Location,
}

impl CacheCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let cache = user_cache().ok_or(Failure::NoCache)?;
        match self.verb {
            Verb::Clear => Ok(cache.clear()?),
            Verb::Location => print(&format!("{}\n", cache.location().display())),
        }
    }
}
