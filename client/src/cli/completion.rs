//! `completion`: scripts for shells.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Root, print};
use crate::failure::Failure;

/// Print the completion script of a shell, for example: pomerium-cli completion bash > /etc/bash_completion.d/pomerium-cli
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// Which shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Root::command(), "pomerium-cli", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
