//! `pomerium-gateway policy ...`: what people do with policy before it runs.

use std::{
    collections::BTreeMap,
    error::Error,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use crate::{
    app,
    policy_tools::run::{self, DiffOptions, ExplainOptions, Outcome, Trouble},
};

/// The commands below `policy`.
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// Shows why somebody may, or may not, use a route.
    #[command(
        after_help = "Exit codes: 0 allowed, 77 not allowed, 2 something cannot be read, 64 wrong usage, 78 configuration \
                            not usable."
    )]
    Explain(Box<ExplainArguments>),
    /// Runs a table of cases: a unit test of policies.
    #[command(
        after_help = "Exit codes: 0 all cases pass, 1 some fail, 2 something cannot be read, 64 wrong usage, 78 \
                            configuration or cases not usable."
    )]
    Test {
        /// The YAML file with the cases.
        #[arg(value_name = "FILE")]
        cases: PathBuf,
        /// The YAML file with the routes. Certificates and secrets that it names are not needed.
        #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
        config: PathBuf,
    },
    /// Names the people and routes whose access changes between two configurations.
    #[command(
        after_help = "Exit codes: 0 nobody's access changes, 1 somebody's does, 2 something cannot be read, 64 wrong \
                            usage, 78 configuration not usable."
    )]
    Diff {
        /// The YAML file as it is.
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The YAML file as it shall be.
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// The folder of the store with the people [default: that of NEW].
        #[arg(long, value_name = "FOLDER")]
        store: Option<PathBuf>,
        /// The address that everybody comes from.
        #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
        ip: IpAddr,
        /// The moment, as in RFC 3339 [default: now].
        #[arg(long, value_name = "TIME", value_parser = time)]
        time: Option<SystemTime>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Takes the decisions of a gateway's log again with another configuration: who gains, who loses.
    #[command(
        after_help = "Exit codes: 0 everything is decided the same, 1 something is not, or may not be, 2 something cannot \
                            be read or holds no decision, 64 wrong usage, 78 configuration not usable."
    )]
    Replay {
        /// The YAML file as it shall be.
        #[arg(value_name = "NEW")]
        new: PathBuf,
        /// The gateway's log, a JSON object a line; - is standard input.
        #[arg(long, value_name = "FILE")]
        log: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `policy explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArguments {
    /// The YAML file with the routes. Certificates and secrets that it names are not needed.
    #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
    config: PathBuf,
    /// The person, by email address or user id; without one, nobody is signed in.
    #[arg(long, value_name = "EMAIL|ID")]
    user: Option<String>,
    /// The route, by its name, its id or a URL that it takes.
    #[arg(long, value_name = "NAME|URL")]
    route: String,
    /// The request's method [default: GET, and CONNECT for a stream].
    #[arg(long)]
    method: Option<String>,
    /// The request's path [default: the first that the route takes].
    #[arg(long)]
    path: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip: IpAddr,
    /// The country of that address, two letters; no file of networks is read.
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// The number of its autonomous system.
    #[arg(long, value_name = "NUMBER")]
    asn: Option<u32>,
    /// The moment, as in RFC 3339 [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<SystemTime>,
    /// The person's groups, with commas between, instead of those in the store.
    #[arg(long, value_delimiter = ',')]
    groups: Option<Vec<String>>,
    /// A claim, instead of that in the store: a number, true, false, or else a text. Once for each value.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Json)>,
    /// What the person's device reports of itself: a JSON file.
    #[arg(long, value_name = "FILE")]
    posture: Option<PathBuf>,
    /// The client certificate of the connection: a PEM file, the leaf first. It is taken as valid.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The person's device is approved by an administrator.
    #[arg(long)]
    device_approved: bool,
    /// The session is bound to the device's key.
    #[arg(long)]
    bound: bool,
    /// The folder of the store with the people [default: that of the configuration].
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
}

/// Runs one of them.
#[must_use]
pub fn policy(command: PolicyCommand) -> ExitCode {
    let runtime = match app::start_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            app::report(&format!("pomerium-gateway: {error:#}"));
            return ExitCode::from(run::EXIT_TROUBLE);
        }
    };
    finish(runtime.block_on(run(command)))
}

/// What a command prints, and its exit code.
pub(crate) async fn run(command: PolicyCommand) -> Result<Outcome, Trouble> {
    match command {
        PolicyCommand::Explain(arguments) => run::explain((*arguments).into()).await,
        PolicyCommand::Test { cases, config } => run::test(&cases, &config),
        PolicyCommand::Diff { old, new, store, ip, time, json } => {
            run::diff(DiffOptions { old, new, store, ip, time, is_json: json }).await
        }
        PolicyCommand::Replay { new, log, json } => run::replay(&new, &log, json),
    }
}

fn finish(result: Result<Outcome, Trouble>) -> ExitCode {
    match result {
        Ok(outcome) => {
            // Whoever closed the pipe has read enough; the code says the rest.
            let _ = std::io::stdout().lock().write_all(outcome.text.as_bytes());
            ExitCode::from(outcome.code)
        }
        Err(trouble) => {
            let mut text = trouble.to_string();
            let mut cause = trouble.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            app::report(&text);
            ExitCode::from(trouble.code())
        }
    }
}

impl From<ExplainArguments> for ExplainOptions {
    fn from(arguments: ExplainArguments) -> Self {
        let mut claims: BTreeMap<String, Vec<Json>> = BTreeMap::new();
        for (name, value) in arguments.claims {
            claims.entry(name).or_default().push(value);
        }
        Self {
            config: arguments.config,
            store: arguments.store,
            user: arguments.user,
            route: arguments.route,
            method: arguments.method,
            path: arguments.path,
            ip: arguments.ip,
            country: arguments.country,
            asn: arguments.asn,
            time: arguments.time,
            groups: arguments.groups,
            claims,
            posture: arguments.posture,
            certificate: arguments.certificate,
            is_approved: arguments.device_approved,
            is_bound: arguments.bound,
        }
    }
}

fn time(text: &str) -> Result<SystemTime, String> {
    let parsed = text.parse::<jiff::Timestamp>().and_then(SystemTime::try_from);
    parsed.map_err(|_| "write it like 2026-11-23T09:00:00Z or 2026-11-23T10:00:00+01:00".to_owned())
}

fn claim(text: &str) -> Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("write it like department=ops")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
    Ok((name.to_owned(), value))
}
