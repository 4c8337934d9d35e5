//! `databroker_storage_*`: where sessions, users and keys are kept.

use std::path::PathBuf;

use url::Url;

use super::{Environment, Services, Storage, section::Section, services};
use crate::secret::Secret;

const TYPE: &str = "databroker_storage_type";
const PLACE: &str = "databroker_storage_connection_string";

/// What a connection string may say beside host, user, password and database.
const PARAMETERS: [&str; 11] = [
    "application_name",
    "dbname",
    "host",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Where people are kept, if these services can work with it.
pub(super) fn storage_for(top: &Section<'_>, services: Services) -> Option<Storage> {
    let storage = storage(top);
    services::check_storage(top, services, storage.as_ref());
    if let Some(Storage::Postgres(url)) = &storage {
        if !["shared_secret", "shared_secret_file"].iter().any(|name| top.has(name)) {
            top.error(
                TYPE,
                "what rests in the database is sealed by shared_secret, the same at all gateways: set it",
            );
        }
        if is_unproven(url.expose()) {
            top.warn(
                &given(top),
                "the database need not prove who it is: add sslmode=verify-full, or keep it within a network of its own",
            );
        }
    }
    storage
}

/// Where people are kept.
pub(super) fn storage(top: &Section<'_>) -> Option<Storage> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Memory,
        File,
        Postgres,
    }
    let kinds = [("memory", Kind::Memory), ("file", Kind::File), ("postgres", Kind::Postgres)];
    let kind = top.one_of(TYPE, &kinds).unwrap_or(Kind::File);
    if kind == Kind::Memory {
        return Some(Storage::Memory);
    }
    let text = top.secret_text(PLACE);
    match (kind, &text) {
        (Kind::Postgres, Some(text)) => match postgres(text.expose()) {
            Ok(url) => Some(Storage::Postgres(Secret::new(url))),
            Err(message) => {
                top.error(&given(top), message);
                None
            }
        },
        (Kind::Postgres, None) => {
            if !top.has(&given(top)) {
                top.error(PLACE, "is missing: set postgresql://user:password@host/database");
            }
            None
        }
        (Kind::Memory | Kind::File, Some(text)) => folder(top, text.expose()),
        (Kind::Memory | Kind::File, None) => default_folder(top),
    }
}

/// Under which key the connection string is.
fn given(top: &Section<'_>) -> String {
    let file = format!("{PLACE}_file");
    if top.has(&file) { file } else { PLACE.to_owned() }
}

fn folder(top: &Section<'_>, text: &str) -> Option<Storage> {
    let folder = text.strip_prefix("file://").filter(|folder| folder.starts_with('/'));
    if folder.is_none() {
        let is_postgres = text.starts_with("postgres");
        let message =
            if is_postgres { "needs databroker_storage_type: postgres" } else { "expected file:///folder" };
        top.error(&given(top), message);
    }
    folder.map(|folder| Storage::Folder(PathBuf::from(folder)))
}

fn default_folder(top: &Section<'_>) -> Option<Storage> {
    if top.has(&given(top)) {
        // What is wrong with it was said.
        return None;
    }
    let folder = data_folder(top.reading.env);
    if folder.is_none() {
        top.error(
            PLACE,
            "is missing, and neither STATE_DIRECTORY, XDG_DATA_HOME nor HOME says where data belongs",
        );
    }
    folder.map(Storage::Folder)
}

/// The service's state folder under systemd (the first of them), else the person's data folder.
fn data_folder(env: Environment<'_>) -> Option<PathBuf> {
    let absolute = |text: String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let state = env("STATE_DIRECTORY")
        .and_then(|list| absolute(list.split(':').next().unwrap_or_default().to_owned()));
    let data = || env("XDG_DATA_HOME").and_then(absolute).map(|data| data.join("pomerium"));
    let home = || env("HOME").and_then(absolute).map(|home| home.join(".local/share/pomerium"));
    state.or_else(data).or_else(home)
}

/// A connection string; what is wrong with one never shows any of it.
fn postgres(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| {
        format!("expected postgresql://user:password@host/database, with special characters as %XX: {error}")
    })?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err("expected postgresql://user:password@host/database".to_owned());
    }
    if url.query_pairs().any(|(name, _)| !PARAMETERS.contains(&&*name)) {
        return Err(format!("has an unknown parameter; known are {}", PARAMETERS.join(", ")));
    }
    match parameter(&url, "sslmode").as_deref() {
        None | Some("disable" | "prefer" | "require" | "verify-full") => Ok(url),
        // It would take any certificate of a public authority for any host.
        Some("verify-ca") => Err("sslmode=verify-ca proves too little: use verify-full".to_owned()),
        Some(_) => Err("sslmode: expected disable, prefer, require or verify-full".to_owned()),
    }
}

/// Whether the database is reached over a network, and shows no certificate that must be right.
fn is_unproven(url: &Url) -> bool {
    let host = parameter(url, "host").or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
    let is_here = host.is_empty()
        || host.starts_with('/')
        || host.to_ascii_lowercase().starts_with("%2f")
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !is_here && parameter(url, "sslmode").as_deref() != Some("verify-full")
}

/// The last of this name counts.
fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().filter(|(key, _)| key == name).last().map(|(_, value)| value.into_owned())
}
