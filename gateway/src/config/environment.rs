//! What the environment adds: variables that set a key, and `${NAME}` in the file's texts.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Environment, Severity, keys, section::Reading};
use crate::yaml::{self, Entry, Node, Position, Value};

/// Whose values are templates: what each request fills in, and `$$`, is left for them.
const TEMPLATES: [&str; 2] = [".set_request_headers.", ".set_response_headers."];

/// Replaces `${NAME}` in every text of the tree; `$${` and `$$` stand for `${` and `$`. Keys stay as they are.
pub(super) fn substitute(reading: &Reading<'_>, path: &str, node: &mut Node) {
    match &mut node.value {
        Value::String(text) => {
            match expand(text, reading.env, TEMPLATES.iter().any(|key| path.contains(key))) {
                Ok(Some(expanded)) => *text = expanded,
                Ok(None) => {}
                Err(error) => reading.say(Severity::Error, Some(node.at), path.to_owned(), error.to_string()),
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                substitute(reading, &format!("{path}[{index}]"), item);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                substitute(reading, &format!("{path}{dot}{}", entry.key), &mut entry.value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
    }
}

/// Why a text with `$` cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    #[error(
        "templates like ${{pomerium.jwt}} are filled in under set_request_headers and set_response_headers of a route only"
    )]
    Template,
    #[error(
        "${{ must be followed by the name of an environment variable and }}; write $${{ for the characters"
    )]
    NotAName,
}

/// The text with its variables replaced; `None` when it has none. In a template `$$` stays as it is, and so does whatever
/// `${pomerium.` begins; what a variable holds is no template.
pub(super) fn expand(
    text: &str,
    env: Environment<'_>,
    is_template: bool,
) -> Result<Option<String>, ExpandError> {
    if !text.contains("$$") && !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let behind = &rest[dollar + 1..];
        if let Some(after) = behind.strip_prefix('$') {
            out.push_str(if is_template { "$$" } else { "$" });
            rest = after;
        } else if let Some(inner) = behind.strip_prefix('{') {
            let (name, after) = inner.split_once('}').ok_or(ExpandError::NotAName)?;
            if name.starts_with("pomerium.") {
                if !is_template {
                    return Err(ExpandError::Template);
                }
                out.push_str(&format!("${{{name}}}"));
                rest = after;
                continue;
            }
            let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !valid {
                return Err(ExpandError::NotAName);
            }
            let value = env(name).ok_or_else(|| ExpandError::NotSet(name.to_owned()))?;
            out.push_str(&if is_template { value.replace('$', "$$") } else { value });
            rest = after;
        } else {
            out.push('$');
            rest = behind;
        }
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// Sets keys from variables of the same name in capitals, which win over the file; an empty variable is none.
/// Gives the keys that were set.
pub(super) fn override_keys(reading: &Reading<'_>, root: &mut Node) -> BTreeSet<&'static str> {
    let mut set = BTreeSet::new();
    let variable = |key: &str| (reading.env)(&key.to_ascii_uppercase()).filter(|text| !text.is_empty());
    for key in keys::not_built_in_environment().filter(|key| variable(key).is_some()) {
        let message =
            format!("the environment variable {} is known but not built yet", key.to_ascii_uppercase());
        reading.say(Severity::Error, None, key.to_owned(), message);
    }
    if root.value == Value::Null {
        root.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut root.value else { return set };
    for key in keys::GLOBAL {
        let Some(text) = variable(key) else { continue };
        let value = match value_of(key, &text) {
            Ok(value) => value,
            Err(message) => {
                let name = key.to_ascii_uppercase();
                reading.say(
                    Severity::Error,
                    None,
                    (*key).to_owned(),
                    format!("environment variable {name}: {message}"),
                );
                continue;
            }
        };
        // The other way to say the same would contradict it.
        let twin = key.strip_suffix("_file").map_or_else(|| format!("{key}_file"), str::to_owned);
        let at = Position { line: 1, column: 1 };
        entries.retain(|entry| entry.key != *key && (entry.key != twin || set.contains(twin.as_str())));
        entries.push(Entry { key: (*key).to_owned(), at, value: Node { at, value } });
        set.insert(*key);
    }
    override_nested(reading, entries, &mut set);
    set
}

/// The same for the keys of blocks: `BLOCK_KEY`.
fn override_nested(reading: &Reading<'_>, entries: &mut Vec<Entry>, set: &mut BTreeSet<&'static str>) {
    let at = Position { line: 1, column: 1 };
    for path in keys::NESTED {
        let variable = path.replace('.', "_").to_ascii_uppercase();
        let Some(text) = (reading.env)(&variable).filter(|text| !text.is_empty()) else { continue };
        let Some((block, key)) = path.split_once('.') else { continue };
        let value = match value_of(key, &text) {
            Ok(value) => value,
            Err(message) => {
                let message = format!("environment variable {variable}: {message}");
                reading.say(Severity::Error, None, (*path).to_owned(), message);
                continue;
            }
        };
        if !entries.iter().any(|entry| entry.key == block && entry.value.value != Value::Null) {
            entries.retain(|entry| entry.key != block);
            let value = Node { at, value: Value::Map(Vec::new()) };
            entries.push(Entry { key: block.to_owned(), at, value });
        }
        let inner = entries.iter_mut().find(|entry| entry.key == block).map(|entry| &mut entry.value.value);
        // What is no mapping is said where it is read.
        if let Some(Value::Map(inner)) = inner {
            let twin = path.strip_suffix("_file").map_or_else(|| format!("{path}_file"), str::to_owned);
            let is_twin =
                |entry: &Entry| twin == format!("{block}.{}", entry.key) && !set.contains(twin.as_str());
            inner.retain(|entry| entry.key != key && !is_twin(entry));
            inner.push(Entry { key: key.to_owned(), at, value: Node { at, value } });
            set.insert(path);
        }
    }
}

/// Lists and mappings may be written as in the file; routes are Base64 of a list.
fn value_of(key: &str, text: &str) -> Result<Value, String> {
    let tree = |text: &str| yaml::parse(text).map(|node| node.value).map_err(|error| error.to_string());
    if matches!(key, "policy" | "routes") {
        let not_base64 = || "expected Base64 of a YAML list of routes".to_owned();
        let bytes = STANDARD.decode(text.trim()).map_err(|_| not_base64())?;
        return tree(&String::from_utf8(bytes).map_err(|_| not_base64())?);
    }
    if text.starts_with(['{', '[']) { tree(text) } else { Ok(Value::String(text.to_owned())) }
}
