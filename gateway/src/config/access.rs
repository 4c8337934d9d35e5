//! A configuration as tools for policy read it: routes and storage, without the keys and secrets of the machine it is for.

use std::{path::Path, sync::Arc};

use super::{ConfigErrors, Diagnostic, Environment, Route, Severity, Storage, global, read, text_of};
use crate::authorize::Records;

/// Who may do what, and where people are kept.
#[derive(Debug)]
pub struct Access {
    /// `policy` followed by `routes`: the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// `records_file`: external data for the criterion `record`.
    pub records: Option<Records>,
    /// `databroker_storage_*`; `None` when it cannot be made out here.
    pub storage: Option<Storage>,
}

/// Reads the routes of the file at `path`; names in it are relative to `base_dir`. What is wrong elsewhere in the file
/// does not count: certificates and the environment's secrets need not be at hand.
///
/// # Errors
/// What is wrong with the file as YAML, with a route, or with the records.
pub fn access(path: &Path, env: Environment<'_>, base_dir: &Path) -> Result<Access, ConfigErrors> {
    let (access, said, _) = read(&text_of(path)?, &path.display().to_string(), env, base_dir, global::access);
    let matters = |diagnostic: &Diagnostic| {
        let top = diagnostic.key.split(['.', '[']).next().unwrap_or_default();
        let is_about_access = matches!(top, "" | "policy" | "routes" | "records_file" | "downstream_mtls");
        diagnostic.severity == Severity::Error && is_about_access
    };
    let errors: Vec<_> = said.into_iter().filter(matters).collect();
    access.filter(|_| errors.is_empty()).ok_or(ConfigErrors(errors))
}
