//! The command line: a file a command, and the options that they share.

mod auth;
mod bug_report;
mod cache;
mod completion;
mod connect;
mod daemon;
mod doctor;
mod k8s;
mod keeping;
mod login;
mod logout;
mod open;
mod proxy;
#[cfg(target_os = "linux")]
mod repair;
mod routes;
mod service_account;
mod ssh_config;
mod status;
mod tcp;
#[cfg(all(target_os = "linux", feature = "tray"))]
mod tray;
#[cfg(target_os = "linux")]
mod tun;
mod udp;
mod wg;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use pomerium_shared::telemetry::{LogFormat, init};
use tokio_util::task::TaskTracker;

use self::service_account::ServiceAccount;
use crate::{
    access::{Access, Caller},
    cache::Cache,
    device::{self, key::DeviceKey},
    exit::{self, Exit},
    failure::Failure,
    gateway::Gateway,
    link::Link,
    local_api::{
        self,
        wire::{DaemonStatus, Reply, Request},
    },
    login::browser::Browser,
    reach::Reach,
    trust::{Trust, TrustSettings},
};

/// Reach what is behind the gateway: ssh, databases and anything else over TCP and UDP, with your browser's sign-in.
#[derive(Debug, Parser)]
#[command(name = "pomerium-cli", version, after_help = exit::HELP, propagate_version = false)]
struct Root {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug, trace, or directives
    #[arg(
        long,
        global = true,
        env = "LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "warn,pomerium_cli=info"
    )]
    log_level: String,
    /// How the log and the last words of a command that fails look on standard error
    #[arg(long, global = true, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign in to a gateway
    Login(login::Login),
    /// End this machine's session, and forget its token
    Logout(logout::Logout),
    /// Show where you are signed in, and until when
    Status(status::Status),
    /// List the routes that you may use
    Routes(routes::Routes),
    /// Open local ports for TCP and UDP routes, and keep them open
    Connect(connect::Connect),
    /// Put the list of name servers back as it was, after `connect --tun` was killed
    #[cfg(target_os = "linux")]
    Repair(repair::Repair),
    /// Open one local port (or standard input and output) for one destination
    Tcp(tcp::Tcp),
    /// Open one local UDP port for one destination
    Udp(udp::Udp),
    /// Let machines with WireGuard come in as you: add, list, rename, remove
    Wg(wg::Wg),
    /// Open one local SOCKS5 and HTTP proxy for all TCP routes, with a PAC file for browsers
    Proxy(proxy::Proxy),
    /// Hold sign-in, connections and kept forwards for all other commands
    Daemon(daemon::Daemon),
    /// Show an icon in the desktop's panel
    #[cfg(all(target_os = "linux", feature = "tray"))]
    Tray(tray::Tray),
    /// Open a web route in the browser
    Open(open::Open),
    /// Give kubectl its token, for clusters behind the gateway
    K8s(k8s::K8s),
    /// Print lines for ~/.ssh/config, so that plain ssh reaches your SSH routes
    SshConfig(ssh_config::SshConfig),
    /// Print a valid token, signing in if there is none
    Auth(auth::Auth),
    /// Find what is in the way to the gateway, and what to do about it
    Doctor(doctor::Doctor),
    /// Write an archive to send along with a report, without secrets and names
    BugReport(bug_report::BugReport),
    /// Show or clear the folder with tokens
    Cache(cache::CacheCommand),
    /// Print the completion script of a shell
    Completion(completion::Completion),
    /// Print the version
    Version,
}

/// Options of every command that speaks to a gateway.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// Believe any certificate. DANGEROUS: anyone on the way can read your traffic and take your session
    #[arg(long, help_heading = "Trust")]
    disable_tls_verification: bool,
    /// Believe the CAs in this PEM file too
    #[arg(long, value_name = "FILE", help_heading = "Trust")]
    alternate_ca_path: Option<PathBuf>,
    /// Believe this CA too: base64 of its PEM text
    #[arg(long, value_name = "BASE64", help_heading = "Trust")]
    ca_cert: Option<String>,
    /// Open the sign-in page with this command; the address is its last argument
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_browser", help_heading = "Sign-in")]
    browser_cmd: Option<String>,
    /// Open no browser, only print the address of the sign-in page
    #[arg(long, help_heading = "Sign-in")]
    no_browser: bool,
    /// Use this service account token; never open a browser. POMERIUM_SERVICE_ACCOUNT does the same, and shows in no list of processes
    #[arg(long, value_name = "TOKEN", conflicts_with = "service_account_file", help_heading = "Sign-in")]
    service_account: Option<String>,
    /// Use the service account token in this file; never open a browser. So does POMERIUM_SERVICE_ACCOUNT_FILE
    #[arg(long, value_name = "FILE", help_heading = "Sign-in")]
    service_account_file: Option<PathBuf>,
    /// Show the gateway no key of this device: the session is then worth the same on any machine
    #[arg(long, help_heading = "Sign-in")]
    no_device_key: bool,
    /// Do without the daemon, even if it runs. So do all commands with options of trust or sign-in of their own
    #[arg(long)]
    no_daemon: bool,
}

/// The gateway that a command is about.
#[derive(Debug, Args)]
pub(crate) struct GatewayArg {
    /// Any host of the gateway, as https://host:port; the one used last if not given
    #[arg(value_name = "GATEWAY", env = "POMERIUM_URL")]
    gateway: Option<String>,
}

impl GatewayArg {
    fn resolve(&self, cache: Option<&Cache>) -> Result<Gateway, Failure> {
        named_or_last(self.gateway.as_deref(), cache)
    }
}

fn named_or_last(named: Option<&str>, cache: Option<&Cache>) -> Result<Gateway, Failure> {
    match (named, cache) {
        (Some(text), _) => Ok(text.parse()?),
        (None, Some(cache)) => cache.last_gateway()?.ok_or(Failure::NoGateway),
        (None, None) => Err(Failure::NoGateway),
    }
}

fn user_cache() -> Option<Cache> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    Some(Cache::of_user(folder("XDG_CACHE_HOME"), folder("HOME"))?.sealed(keeping::seal()))
}

/// The daemon's socket.
fn socket_path() -> Option<PathBuf> {
    local_api::socket::path(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
}

/// What the daemon says, if it runs.
async fn daemon_status() -> Result<Option<DaemonStatus>, Failure> {
    let Some(path) = socket_path() else { return Ok(None) };
    let Some(mut line) = local_api::caller::Caller::at(path).line().await else { return Ok(None) };
    match line.ask(Request::Status, |_| {}).await? {
        Reply::Status(status) => Ok(Some(status)),
        _ => Err(Failure::BadAnswer { what: "a question for the state" }),
    }
}

/// The file of forwards that are kept.
fn forwards_file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let settings = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(settings.join("pomerium").join("forwards.yaml"))
}

/// The folder with the device key.
fn device_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    device::key::folder(folder("XDG_DATA_HOME"), folder("HOME"))
}

/// The device key; without one people still get in where policy does not ask for a bound session.
fn device_key() -> Option<DeviceKey> {
    let Some(folder) = device_folder() else {
        tracing::warn!("no device key: HOME and XDG_DATA_HOME are not set");
        return None;
    };
    match DeviceKey::load_or_make(&folder, keeping::seal().as_deref()) {
        Ok(key) => Some(key),
        Err(error) => {
            tracing::warn!(error = %exit::chain(&error), "no device key: the session will not be bound to this device");
            None
        }
    }
}

impl Shared {
    /// The same, without a window of a browser.
    fn without_browser(self) -> Self {
        Self { no_browser: true, browser_cmd: None, ..self }
    }

    /// The same, without a device key.
    fn without_device_key(self) -> Self {
        Self { no_device_key: true, ..self }
    }

    /// Everything that is needed to ask a gateway. Reads files, dials nothing.
    fn access(&self, gateway: Gateway, tracker: &TaskTracker) -> Result<Arc<Access>, Failure> {
        self.access_of(self.caller()?, gateway, tracker)
    }

    /// The daemon's socket, for a command that leaves trust and sign-in to the daemon.
    fn daemon(&self) -> Option<local_api::caller::Caller> {
        let has_own = self.no_daemon
            || self.disable_tls_verification
            || self.no_browser
            || self.no_device_key
            || self.alternate_ca_path.is_some()
            || self.ca_cert.is_some()
            || self.browser_cmd.is_some()
            || !matches!(self.service_account(), Ok(None));
        if has_own { None } else { socket_path().map(local_api::caller::Caller::at) }
    }

    /// The gateway, through the daemon while it runs.
    fn reach(&self, gateway: Gateway, tracker: &TaskTracker) -> Result<Arc<Reach>, Failure> {
        Ok(Arc::new(Reach::new(self.access(gateway, tracker)?, self.daemon())))
    }

    /// The same for a caller that is known.
    fn access_of(
        &self,
        caller: Caller,
        gateway: Gateway,
        tracker: &TaskTracker,
    ) -> Result<Arc<Access>, Failure> {
        self.access_with(user_cache(), caller, gateway, tracker)
    }

    /// The same for a cache that is known.
    fn access_with(
        &self,
        cache: Option<Cache>,
        caller: Caller,
        gateway: Gateway,
        tracker: &TaskTracker,
    ) -> Result<Arc<Access>, Failure> {
        let trust = self.trust()?;
        let wants_key = gateway.tls() && !self.no_device_key && !matches!(caller, Caller::ServiceAccount(_));
        let key = if wants_key { device_key() } else { None };
        let link = Link::new(gateway, &trust, key.as_ref(), tracker.clone())?;
        Ok(Access::new(link, cache, caller, key, tracker.clone()))
    }

    /// Whose certificates are believed.
    fn trust(&self) -> Result<Trust, Failure> {
        Ok(Trust::load(&TrustSettings {
            anything: self.disable_tls_verification,
            ca_file: self.alternate_ca_path.clone(),
            ca_base64: self.ca_cert.clone(),
        })?)
    }

    fn caller(&self) -> Result<Caller, Failure> {
        Ok(match self.service_account()? {
            Some(account) => Caller::ServiceAccount(account.token()?),
            None => Caller::Person(self.browser()),
        })
    }

    /// The service account of the command line, or else of the environment.
    fn service_account(&self) -> Result<Option<ServiceAccount>, Failure> {
        let said = (self.service_account.clone(), self.service_account_file.clone());
        ServiceAccount::of(said, |name| std::env::var_os(name))
    }

    /// How pages are opened.
    fn browser(&self) -> Browser {
        match &self.browser_cmd {
            Some(command) => Browser::Command(command.clone()),
            None if self.no_browser => Browser::None,
            None => Browser::Desktop,
        }
    }
}

/// Remembers a gateway that answered, for commands that name none.
fn remember(gateway: &Gateway) {
    if let Some(Err(error)) = user_cache().map(|cache| cache.remember(gateway)) {
        tracing::warn!(error = %exit::chain(&error), "the gateway is not remembered");
    }
}

/// Prints a result to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Runs the program: arguments in, exit code out.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let root = match Root::try_parse_from(arguments) {
        Ok(root) => root,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // Nobody is left to tell when the terminal is gone.
            let _closed = error.print();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(Exit::Usage as u8) };
        }
    };
    let format = match root.log_format {
        Format::Text => LogFormat::Human,
        Format::Json => LogFormat::Json,
    };
    let _log = match init(format, &root.log_level) {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("pomerium-cli: {}\n  Set LOG_LEVEL to info or debug.", exit::chain(&error)));
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    match in_runtime(root.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = exit::message(&failure);
            let code = exit::verdict(&failure).0 as u8;
            match format {
                LogFormat::Human => complain(&message),
                LogFormat::Json => complain(
                    &serde_json::json!({"level": "ERROR", "message": message, "exit": code}).to_string(),
                ),
            }
            ExitCode::from(code)
        }
    }
}

fn in_runtime(command: Command) -> Result<(), Failure> {
    let handed_over = match &command {
        Command::Daemon(_) => daemon::prepare(),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        if !matches!(command, Command::Version | Command::Completion(_)) {
            // The daemon has no terminal, and the keyring's own window is enough.
            let may_prompt = io::stderr().is_terminal() || matches!(command, Command::Daemon(_));
            keeping::decide(user_cache().as_ref().map(Cache::location), may_prompt).await;
        }
        match command {
            Command::Login(command) => command.run().await,
            Command::Logout(command) => command.run().await,
            Command::Status(command) => command.run().await,
            Command::Routes(command) => command.run().await,
            Command::Connect(command) => Box::pin(command.run()).await,
            #[cfg(target_os = "linux")]
            Command::Repair(command) => command.run(),
            Command::Tcp(command) => Box::pin(command.run()).await,
            Command::Udp(command) => Box::pin(command.run()).await,
            Command::Wg(command) => Box::pin(command.run()).await,
            Command::Proxy(command) => Box::pin(command.run()).await,
            Command::Daemon(command) => Box::pin(command.run(handed_over)).await,
            #[cfg(all(target_os = "linux", feature = "tray"))]
            Command::Tray(command) => command.run().await,
            Command::Open(command) => command.run().await,
            Command::K8s(command) => command.run().await,
            Command::SshConfig(command) => command.run().await,
            Command::Doctor(command) => Box::pin(command.run()).await,
            Command::BugReport(command) => Box::pin(command.run()).await,
            Command::Auth(command) => command.run().await,
            Command::Cache(command) => command.run(),
            Command::Completion(command) => command.run(),
            Command::Version => print(concat!("pomerium-cli ", env!("CARGO_PKG_VERSION"), "\n")),
        }
    });
    // A read of standard input cannot be interrupted: do not wait for its thread.
    runtime.shutdown_background();
    ended
}

#[expect(clippy::print_stderr, reason = "the last words of the program, whatever the log level is")]
fn complain(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Root::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_ends_with_64() {
        let arguments = ["pomerium-cli", "tcp"].map(OsString::from).into_iter();
        assert_eq!(run(arguments), ExitCode::from(64));
    }
}
