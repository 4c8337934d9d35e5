//! `bug-report`: an archive to send along, without secrets and names.

use std::path::PathBuf;

use clap::Args;
use pomerium_shared::{clock::Now, finding::Finding};

use super::{Shared, daemon_status, doctor, forwards_file, print, user_cache};
use crate::{
    bug_report::{Part, archive, redact::Redactor},
    cache::read_private,
    device::posture::command,
    exit,
    failure::Failure,
    forward::saved::FILE_LEN_MAX,
    local_api::wire::DaemonStatus,
};

/// Lines of the daemon's log.
const LOG_LINES: &str = "1000";
/// Variables whose presence changes what the program does; their values are not told.
const VARIABLES: [&str; 12] = [
    "POMERIUM_URL",
    "POMERIUM_SERVICE_ACCOUNT",
    "POMERIUM_SERVICE_ACCOUNT_FILE",
    "LOG_LEVEL",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Write an archive with what helps to find a fault: findings of the doctor, state and log of the daemon, kept forwards.
///
/// Tokens, keys, people, hosts and public addresses are taken out; what was the same stays the same. Look into it before you send
/// it: tar -xzOf FILE | less
#[derive(Debug, Args)]
pub(crate) struct BugReport {
    /// Where to write it [default: pomerium-bug-report-TIME.tar.gz in this folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Any host of the gateway, as https://host:port; the one used last if not given
    #[arg(value_name = "GATEWAY", env = "POMERIUM_URL")]
    gateway: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

impl BugReport {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let mut redactor = Redactor::of(&variable("HOME"), &variable("USER"));
        let daemon = daemon_status().await;
        let gateways = daemon.iter().flatten().flat_map(|status| &status.gateways);
        for person in
            gateways.filter_map(|gateway| gateway.person.as_deref()).map(str::to_owned).chain(known_person())
        {
            redactor.hide_person(&person);
        }
        let mut parts = Vec::new();
        for (name, text) in self.found(daemon).await {
            parts.push(Part { name, text: redactor.text(&text) });
        }
        let time = jiff::Timestamp::try_from(Now::read().wall)
            .unwrap_or_default()
            .strftime("%Y%m%d-%H%M%S")
            .to_string();
        let folder = format!("pomerium-bug-report-{time}");
        let path = self.output.unwrap_or_else(|| format!("{folder}.tar.gz").into());
        archive(&path, &folder, &parts).map_err(|source| Failure::Report { path: path.clone(), source })?;
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        print(&format!(
            "Wrote {} with {}.\nTokens, keys, people, hosts and public addresses are taken out. Look before you send it: tar -xzOf {} | less\n",
            path.display(),
            names.join(", "),
            path.display(),
        ))
    }

    /// What there is to tell. What cannot be had is told as such: that is news, too.
    async fn found(&self, daemon: Result<Option<DaemonStatus>, Failure>) -> Vec<(&'static str, String)> {
        let told = |failure: &Failure| exit::message(failure);
        let findings = doctor::examine(&self.shared, self.gateway.as_deref()).await;
        let daemon = match daemon {
            Ok(None) => "the daemon does not run\n".to_owned(),
            Ok(Some(status)) => serde_json::to_string_pretty(&status).unwrap_or_default(),
            Err(failure) => told(&failure),
        };
        let forwards = match forwards_file().map(|file| read_private(&file, FILE_LEN_MAX)) {
            None | Some(Ok(None)) => "there are none\n".to_owned(),
            Some(Ok(Some(text))) => text,
            Some(Err(error)) => exit::chain(&error),
        };
        let log = [
            "--user",
            "--unit",
            "pomerium-cli",
            "--lines",
            LOG_LINES,
            "--output",
            "short-iso",
            "--no-pager",
            "--no-hostname",
        ];
        vec![
            ("program.txt", program()),
            ("doctor.txt", findings.map_or_else(|failure| told(&failure), |all| Finding::text(&all))),
            ("daemon.json", daemon),
            ("forwards.yaml", forwards),
            (
                "daemon.log",
                command::ask("journalctl", &log).await.unwrap_or_else(|| "there is no journal\n".to_owned()),
            ),
        ]
    }
}

/// Who is signed in at the gateway used last.
fn known_person() -> Option<String> {
    let cache = user_cache()?;
    let gateway = cache.last_gateway().ok()??;
    let bound = cache.clone().for_device().token(&gateway).ok().flatten();
    bound.or_else(|| cache.token(&gateway).ok().flatten())?.person()
}

fn program() -> String {
    let set: Vec<&str> = VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    let system = std::fs::read_to_string("/proc/version").unwrap_or_else(|_| std::env::consts::OS.to_owned());
    format!(
        "pomerium-cli {}\nmachine {}\nsystem {}\nvariables that are set: {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        // Who built the kernel, and where, is of no use.
        system.split(" (").next().unwrap_or_default().trim(),
        set.join(", "),
    )
}
