//! `pomerium-cli`: see `pomerium_cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    pomerium_cli::run(std::env::args_os())
}
