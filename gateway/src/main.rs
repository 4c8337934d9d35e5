//! `pomerium-gateway`: arguments, and what each command calls.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use pomerium_gateway::{app, commands};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// Identity-aware access gateway: what a team uses instead of a VPN.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 64 wrong usage, 78 configuration not usable."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway with a configuration file.
    Run {
        /// The YAML file; SIGHUP or a change of the file reloads it.
        #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
        config: PathBuf,
        /// Which parts this process runs, in the place of the file's services: all, or authorize alone.
        #[arg(long, value_name = "NAME")]
        services: Option<String>,
    },
    /// Tells everything that is wrong with a configuration file.
    CheckConfig {
        /// The YAML file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Finds what keeps people out, beside the running gateway, and says what to do.
    Doctor(commands::DoctorArguments),
    /// Explains, tests, compares and replays policy before it runs.
    #[command(subcommand)]
    Policy(commands::policy::PolicyCommand),
    /// Lists, approves and removes people's devices, beside the running gateway.
    Device(commands::device::DeviceArguments),
    /// People and groups that were pushed by SCIM: forget them all.
    Directory(commands::DirectoryArguments),
    /// Lists, revokes and removes people's WireGuard devices, beside the running gateway.
    #[command(name = "wireguard")]
    WireGuard(commands::WireGuardArguments),
    /// Makes, lists and revokes tokens for programs.
    ServiceAccount(commands::ServiceAccountArguments),
    /// Shows the main job on this machine, with nothing to configure or install.
    Quickstart(commands::QuickstartArguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed terminal is no other error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        Command::Run { config, services } => app::main(config, services),
        Command::CheckConfig { file } => commands::check_config(&file),
        Command::Doctor(arguments) => commands::doctor(&arguments),
        Command::Policy(command) => commands::policy::policy(command),
        Command::Device(arguments) => commands::device::run(&arguments),
        Command::Directory(arguments) => commands::directory(&arguments),
        Command::WireGuard(arguments) => commands::wireguard(&arguments),
        Command::ServiceAccount(arguments) => commands::service_account(&arguments),
        Command::Quickstart(arguments) => commands::quickstart(&arguments),
    }
}
