//! `docs/policy-tools.md` shows real output: its commands are run on `docs/examples`, and compared.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use super::{make_store, monday, now, people};
use crate::{
    authorize::{self, CheckLog, Situation},
    commands::policy::{self, PolicyCommand},
    config,
    policy_tools::{
        routes::{Place, Routes},
        run::place_asked,
    },
    session::Session,
};

/// Set, it makes the tests write the documents instead of comparing with them.
const UPDATE: &str = "UPDATE_DOCUMENTS";
/// The store that the example configurations name.
const STORE: &str = "/var/lib/pomerium-gateway";

#[derive(Debug, clap::Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: PolicyCommand,
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs")
}

/// Compares a document with what it should be, or writes it.
fn keep(file: &Path, expected: &str) {
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(file, expected).unwrap();
    }
    let found = std::fs::read_to_string(file).unwrap_or_default();
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{}:{}: set {UPDATE} to write it anew", file.display(), line + 1);
    }
    assert_eq!(found.len(), expected.len(), "{}: set {UPDATE} to write it anew", file.display());
}

/// The examples in `folder`, with a store of their people.
async fn copy_examples(folder: &Path) {
    let store = folder.join("store");
    make_store(&store, &people()).await;
    for entry in std::fs::read_dir(docs().join("examples")).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap().replace(STORE, store.to_str().unwrap());
        std::fs::write(folder.join(file.file_name().unwrap()), text).unwrap();
    }
    std::fs::write(folder.join("gateway.log"), example_log()).unwrap();
}

/// What a command prints, and its code.
async fn run(folder: &Path, command: &str) -> (String, u8) {
    let words = command.split_whitespace().skip(1).map(|word| {
        let file = folder.join(word);
        if file.is_file() { file.display().to_string() } else { word.to_owned() }
    });
    let line = CommandLine::try_parse_from(words).unwrap_or_else(|error| panic!("{command}\n{error}"));
    let (text, code) = match policy::run(line.command).await {
        Ok(outcome) => (outcome.text, outcome.code),
        Err(trouble) => (format!("{trouble}\n"), trouble.code()),
    };
    (text.replace(&format!("{}/", folder.display()), ""), code)
}

#[tokio::test]
async fn the_documents_show_what_the_commands_print() {
    let folder = tempfile::tempdir().unwrap();
    copy_examples(folder.path()).await;
    let document = docs().join("policy-tools.md");
    let text = std::fs::read_to_string(&document).unwrap();
    let (mut expected, mut blocks) = (String::new(), 0);
    for (index, part) in text.split("```console\n").enumerate() {
        if index == 0 {
            expected.push_str(part);
            continue;
        }
        let (block, behind) = part.split_once("```").unwrap();
        let command = block.lines().next().unwrap().strip_prefix("$ ").unwrap();
        let (output, code) = run(folder.path(), command).await;
        blocks += 1;
        expected.push_str(&format!("```console\n$ {command}\n{output}$ echo $?\n{code}\n```{behind}"));
    }
    assert!(blocks >= 7, "the document has lost its commands");
    keep(&document, &expected);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A clock for the lines, so that they are the same each time.
struct NoTime;

impl FormatTime for NoTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str("2026-11-23T09:00:00Z")
    }
}

/// What the gateway logs while `events` happen.
pub(super) fn logged(events: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_timer(NoTime)
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, events);
    let text = lines.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

/// Puts a question before the routes as the proxy does.
pub(super) fn ask(
    routes: &Routes,
    request_id: &str,
    url: &str,
    session: Option<&Session>,
    ip: &str,
    minute: u64,
) {
    let place = Place::parse(url, None).unwrap();
    let route = routes.at(&place).unwrap();
    let mut now = now();
    now.wall = monday() + Duration::from_secs(60 * minute);
    let situation = Situation {
        session: session.cloned(),
        source_ip: ip.parse::<IpAddr>().unwrap(),
        ..place_asked(&place, now)
    };
    let facts = CheckLog { request_id, route_id: &route.id, route_name: &route.name };
    let _outcome = authorize::check(&route.policy, &routes.check(&situation), facts);
}

#[test]
fn the_example_log_is_what_the_gateway_writes() {
    keep(&docs().join("examples/gateway.log"), &example_log());
}

fn example_log() -> String {
    let access = config::access(&docs().join("examples/policy.yaml"), &|_| None, Path::new(".")).unwrap();
    let routes = Routes::new(access.routes, access.records);
    let [alice, bob, carol, dora] = people();
    let (grafana, office) = ("https://grafana.corp.example", "192.0.2.7");
    let (ssh, orders) = ("tcp+https://ssh.corp.example:22", "tcp+https://orders-db.corp.example:5432");
    let opened = |request_id: &str, route: &str, destination: &str| {
        tracing::info!("request-id" = request_id, route, destination, "stream opened");
    };
    logged(|| {
        ask(&routes, "r-01", &format!("{grafana}/"), Some(&alice), office, 0);
        ask(&routes, "r-02", &format!("{grafana}/d/sales"), Some(&bob), "203.0.113.9", 1);
        ask(&routes, "r-03", &format!("{grafana}/public/logo.png"), Some(&carol), "203.0.113.9", 2);
        ask(&routes, "r-04", &format!("{grafana}/public/style.css"), Some(&carol), "203.0.113.9", 2);
        ask(&routes, "r-05", &format!("{grafana}/d/sales"), Some(&carol), "203.0.113.9", 3);
        ask(&routes, "r-06", &format!("{grafana}/"), None, "203.0.113.9", 4);
        ask(&routes, "r-07", ssh, Some(&alice), office, 5);
        opened("r-07", "ssh", "ssh.corp.example:22");
        ask(&routes, "r-08", orders, Some(&alice), office, 6);
        opened("r-08", "orders-db", "orders-db.corp.example:5432");
        ask(&routes, "r-09", orders, Some(&dora), office, 7);
        opened("r-09", "orders-db", "orders-db.corp.example:5432");
        ask(&routes, "r-10", orders, Some(&bob), office, 8);
        tracing::info!("request-id" = "r-09", route = "orders-db", reason = "client", "stream ended");
    })
}
