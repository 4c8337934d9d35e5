//! One YAML file becomes [`Settings`], or a list of errors that point at the text.
//!
//! Two steps: the file's tree with places ([`crate::yaml`]), with the environment worked in; then [`Settings`], which
//! is what is meant. Below `Settings` nobody sees a raw string that should be something better. An unknown key is an
//! error, since a typo in a policy must never open a door.
//!
//! What must not live here: what a rule means ([`crate::authorize`]), and anything that runs.

mod access;
mod authorize_service;
mod autocert;
mod branding;
pub mod check;
mod diagnostic;
mod downstream_mtls;
mod environment;
mod global;
mod header_template;
mod identity;
mod keys;
mod material;
mod route;
mod routes;
mod section;
mod services;
mod settings;
mod storage;
#[cfg(test)]
mod tests;
mod upstreams;
mod wireguard;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
};

pub use access::{Access, access};
pub use authorize_service::AuthorizeService;
pub use diagnostic::{ConfigErrors, Diagnostic, Severity};
pub use header_template::{HeaderFact, HeaderTemplate};
pub(crate) use keys::nearest;
pub use route::*;
pub use settings::*;
pub use upstreams::*;
pub use wireguard::WireGuard;

use crate::yaml;

/// Looks up an environment variable by its name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What is meant.
    pub settings: Settings,
    /// What the operator should look at.
    pub warnings: Vec<Diagnostic>,
    /// The file itself and all that it names: a change of any means reading again.
    pub files: Vec<PathBuf>,
}

/// Reads the file at `path` (none: the environment alone); names in it are relative to `base_dir`.
///
/// # Errors
/// All errors and warnings, in the order of the file.
pub fn load(path: Option<&Path>, env: Environment<'_>, base_dir: &Path) -> Result<Loaded, ConfigErrors> {
    let Some(path) = path else { return parse("", "environment", env, base_dir) };
    let mut loaded = parse(&text_of(path)?, &path.display().to_string(), env, base_dir)?;
    loaded.files.insert(0, path.to_owned());
    Ok(loaded)
}

fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    let mut text = String::new();
    // One byte more than the limit, so that the parser sees that it is too long.
    let bound = yaml::TEXT_LEN_MAX as u64 + 1;
    let read = std::fs::File::open(path).and_then(|file| file.take(bound).read_to_string(&mut text));
    read.map_err(|error| {
        ConfigErrors(vec![Diagnostic {
            severity: Severity::Error,
            file: path.display().to_string(),
            at: None,
            key: String::new(),
            message: format!("cannot read it: {error}"),
        }])
    })?;
    Ok(text)
}

/// Reads a configuration from `text`; `file_name` is what messages call it. Reads the files that it names.
///
/// # Errors
/// All errors and warnings, in the order of the text.
pub fn parse(
    text: &str,
    file_name: &str,
    env: Environment<'_>,
    base_dir: &Path,
) -> Result<Loaded, ConfigErrors> {
    let (settings, said, files) = read(text, file_name, env, base_dir, global::settings);
    let failed = said.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match settings {
        Some(settings) if !failed => Ok(Loaded { settings, warnings: said, files }),
        _ => {
            debug_assert!(failed, "something is missing that was not said");
            Err(ConfigErrors(said))
        }
    }
}

/// What `of` makes of the top of a text, what was said meanwhile in the order of the text, and the files that were read.
fn read<T>(
    text: &str,
    file_name: &str,
    env: Environment<'_>,
    base_dir: &Path,
    of: impl FnOnce(&section::Section<'_>) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>, Vec<PathBuf>) {
    let mut reading = section::Reading {
        file: file_name,
        base_dir,
        env,
        from_environment: BTreeSet::new(),
        files: RefCell::new(Vec::new()),
        said: RefCell::new(Vec::new()),
    };
    let value = match yaml::parse(text) {
        Ok(mut root) => {
            environment::substitute(&reading, "", &mut root);
            reading.from_environment = environment::override_keys(&reading, &mut root);
            section::Section::of(&reading, String::new(), &root).and_then(|top| of(&top))
        }
        Err(error) => {
            reading.say(Severity::Error, error.at(), String::new(), error.to_string());
            None
        }
    };
    let mut said = reading.said.into_inner();
    said.sort_by_key(|diagnostic| diagnostic.at);
    (value, said, reading.files.into_inner())
}
