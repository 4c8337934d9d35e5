//! `check-config`: says everything about a file, and whether the gateway would start with it.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{Diagnostic, Environment, Severity, load};

/// Prints every diagnostic of the file and a summary; `true` when it can be used.
///
/// # Errors
/// Only what writing to `out` brings.
pub fn run(path: &Path, env: Environment<'_>, base_dir: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let (usable, diagnostics, routes) = match load(Some(path), env, base_dir) {
        Ok(loaded) => (true, loaded.warnings, loaded.settings.routes.len()),
        Err(errors) => (false, errors.0, 0),
    };
    for diagnostic in &diagnostics {
        writeln!(out, "{diagnostic}")?;
    }
    let warnings = counted(&diagnostics, Severity::Warning, "warning");
    if usable {
        let routes = number(routes, "route");
        match warnings {
            Some(warnings) => writeln!(out, "{}: ok: {routes}, {warnings}", path.display())?,
            None => writeln!(out, "{}: ok: {routes}", path.display())?,
        }
    } else {
        let parts = [counted(&diagnostics, Severity::Error, "error"), warnings];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        writeln!(out, "{}: {}", path.display(), parts.join(", "))?;
    }
    Ok(usable)
}

fn counted(diagnostics: &[Diagnostic], severity: Severity, word: &str) -> Option<String> {
    let count = diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    (count > 0).then(|| number(count, word))
}

fn number(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
