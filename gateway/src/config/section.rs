//! Typed reading of one mapping: each reader gives the value, or says what is wrong and gives none.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use url::Url;

use super::{Diagnostic, HeaderTemplate, Severity, keys};
use crate::{
    duration,
    yaml::{Entry, Node, Position, Value},
};

/// What all readers of one configuration share: where it came from and what was said about it.
pub(super) struct Reading<'a> {
    pub(super) file: &'a str,
    pub(super) base_dir: &'a Path,
    pub(super) env: super::Environment<'a>,
    /// Global keys, and those of blocks like `block.key`, whose value came from the environment.
    pub(super) from_environment: BTreeSet<&'static str>,
    pub(super) files: RefCell<Vec<PathBuf>>,
    pub(super) said: RefCell<Vec<Diagnostic>>,
}

impl Reading<'_> {
    pub(super) fn say(&self, severity: Severity, at: Option<Position>, key: String, message: String) {
        let top = key.split(['.', '[']).next().unwrap_or_default();
        let nested = key.split('[').next().unwrap_or_default();
        let (file, at) = match [nested, top].into_iter().find(|key| self.from_environment.contains(key)) {
            Some(key) => {
                let variable = key.replace('.', "_").to_ascii_uppercase();
                (format!("environment variable {variable}"), None)
            }
            None => (self.file.to_owned(), at),
        };
        self.said.borrow_mut().push(Diagnostic { severity, file, at, key, message });
    }
}

/// One mapping and the way to it.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading<'a>,
    /// `""` at the top, else like `routes[0]`.
    pub(super) path: String,
    pub(super) at: Position,
    pub(super) entries: &'a [Entry],
}

impl<'a> Section<'a> {
    /// The mapping that `node` is; `None`, with an error, if it is none.
    pub(super) fn of(reading: &'a Reading<'a>, path: String, node: &'a Node) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { reading, path, at: node.at, entries }),
            Value::Null if path.is_empty() => Some(Self { reading, path, at: node.at, entries: &[] }),
            other => {
                let message = format!("expected a mapping of keys to values, found {}", other.kind());
                reading.say(Severity::Error, Some(node.at), path, message);
                None
            }
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn error(&self, name: &str, message: impl Into<String>) {
        self.report(Severity::Error, name, message.into());
    }

    pub(super) fn warn(&self, name: &str, message: impl Into<String>) {
        self.report(Severity::Warning, name, message.into());
    }

    fn report(&self, severity: Severity, name: &str, message: String) {
        let entry = self.entries.iter().find(|entry| entry.key == name);
        let at = entry.map_or(self.at, |entry| entry.at);
        self.reading.say(severity, Some(at), self.key(name), message);
    }

    pub(super) fn error_at(&self, at: Position, name: &str, message: impl Into<String>) {
        self.reading.say(Severity::Error, Some(at), self.key(name), message.into());
    }

    /// The value of a key that is there and not null.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        (entry.value.value != Value::Null).then_some(&entry.value)
    }

    /// Whether a key is there with a value; null and the empty text are none.
    pub(super) fn has(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| !matches!(&node.value, Value::String(text) if text.is_empty()))
    }

    /// Says what every key of this mapping that is not read means.
    pub(super) fn check_keys(&self, place: keys::Place) {
        for entry in self.entries {
            let (severity, message) = match keys::meaning(place, &entry.key) {
                keys::Meaning::Read => continue,
                keys::Meaning::NotBuilt => {
                    (Severity::Error, "is known but not built yet in this gateway".to_owned())
                }
                keys::Meaning::Removed(instead) => (Severity::Error, format!("is removed: {instead}")),
                keys::Meaning::Foreign => {
                    let message =
                        "steers a data-plane process that this gateway does not have; it is ignored";
                    (Severity::Warning, message.to_owned())
                }
                keys::Meaning::Unknown(Some(near)) => {
                    (Severity::Error, format!("unknown key; did you mean \"{near}\"?"))
                }
                keys::Meaning::Unknown(None) => (Severity::Error, "unknown key".to_owned()),
            };
            self.reading.say(severity, Some(entry.at), self.key(&entry.key), message);
        }
    }

    /// The same for a small mapping with a closed set of keys.
    pub(super) fn allow_only(&self, known: &[&'static str]) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            match keys::nearest(&entry.key, known) {
                Some(near) => self.error(&entry.key, format!("unknown key; did you mean \"{near}\"?")),
                None => self.error(&entry.key, format!("unknown key; expected one of {}", known.join(", "))),
            }
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let node = self.node(name)?;
        self.text_of(name, node)
    }

    /// A text that is not empty; the empty one counts as not set.
    pub(super) fn filled(&self, name: &str) -> Option<&'a str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    fn text_of(&self, name: &str, node: &'a Node) -> Option<&'a str> {
        if let Value::String(text) = &node.value {
            return Some(text);
        }
        let hint = match node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => ": put it in quotes",
            Value::Null | Value::String(_) | Value::List(_) | Value::Map(_) => "",
        };
        self.error_at(node.at, name, format!("expected a text, found {}{hint}", node.value.kind()));
        None
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let node = self.node(name)?;
        match &node.value {
            Value::Bool(flag) => return Some(*flag),
            Value::String(text) if text == "true" => return Some(true),
            Value::String(text) if text == "false" => return Some(false),
            _ => self.error_at(node.at, name, format!("expected true or false, found {}", node.value.kind())),
        }
        None
    }

    pub(super) fn whole(&self, name: &str) -> Option<i64> {
        let node = self.node(name)?;
        let number = match &node.value {
            Value::Integer(number) => Some(*number),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.error_at(node.at, name, format!("expected a whole number, found {}", node.value.kind()));
        }
        number
    }

    /// Texts with their places: a list, or one text with commas.
    pub(super) fn list(&self, name: &str) -> Option<Vec<(&'a str, Position)>> {
        let node = self.node(name)?;
        match &node.value {
            Value::List(items) => {
                let texts = items.iter().enumerate();
                texts.map(|(i, item)| Some((self.text_of(&format!("{name}[{i}]"), item)?, item.at))).collect()
            }
            Value::String(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(|part| (part, node.at))
                    .collect(),
            ),
            other => {
                self.error_at(node.at, name, format!("expected a list of texts, found {}", other.kind()));
                None
            }
        }
    }

    /// Key, value and place of each entry of a mapping of texts.
    pub(super) fn pairs(&self, name: &str) -> Option<Vec<(&'a str, &'a str, Position)>> {
        let inner = Self::of(self.reading, self.key(name), self.node(name)?)?;
        let pair =
            |entry: &'a Entry| Some((entry.key.as_str(), inner.text_of(&entry.key, &entry.value)?, entry.at));
        inner.entries.iter().map(pair).collect()
    }

    /// `Some(None)` is no limit, which is how `0` is written.
    pub(super) fn duration(&self, name: &str) -> Option<Option<Duration>> {
        let node = self.node(name)?;
        let parsed = match &node.value {
            Value::Integer(0) => Ok(Duration::ZERO),
            Value::String(text) => duration::parse(text),
            _ => Err(duration::DurationError::NotADuration),
        };
        match parsed {
            Ok(duration) => Some(Some(duration).filter(|duration| !duration.is_zero())),
            Err(error) => {
                self.error_at(node.at, name, error.to_string());
                None
            }
        }
    }

    /// One of a closed set of words, in any case.
    pub(super) fn one_of<T: Copy>(&self, name: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.filled(name)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(name, format!("expected one of {}", all.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A URL of scheme `http` or `https`, without credentials or fragment.
    pub(super) fn url(&self, name: &str) -> Option<Url> {
        let text = self.filled(name)?;
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.error(name, "expected a URL that begins with https://");
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.error(name, "a URL must not hold credentials");
            }
            Ok(url) if url.fragment().is_some() => {
                self.error(name, "a URL must not have a fragment (#...) here")
            }
            Ok(url) => return Some(url),
            Err(error) => self.error(name, format!("expected a URL like https://host.example: {error}")),
        }
        None
    }

    pub(super) fn header_name(&self, at: Position, key: &str, text: &str) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        if name.is_none() {
            self.error_at(at, key, "this is not a valid header name");
        }
        name
    }

    /// A mapping of header names to templates of values.
    pub(super) fn header_templates(&self, name: &str) -> Option<Vec<(HeaderName, HeaderTemplate)>> {
        let texts = self.pairs(name)?;
        let headers = self.headers(name)?.into_iter().zip(texts);
        let template = |((header, _), (written, text, at)): ((HeaderName, HeaderValue), _)| {
            let (template, unknown) = HeaderTemplate::parse(text).ok()?;
            for reference in unknown {
                let key = self.key(&format!("{name}.{written}"));
                let message = format!("{reference} is nothing that a request has: it stays empty");
                self.reading.say(Severity::Warning, Some(at), key, message);
            }
            Some((header, template))
        };
        headers.map(template).collect()
    }

    /// A mapping of header names to values.
    pub(super) fn headers(&self, name: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (header, value, at) in self.pairs(name)? {
            let key = format!("{name}.{header}");
            let parsed = self.header_name(at, &key, header)?;
            if headers.iter().any(|(known, _)| *known == parsed) {
                self.error_at(at, &key, "this header is already set: names are the same in any case");
            }
            let Ok(value) = HeaderValue::from_str(value) else {
                self.error_at(at, &key, "this is not a valid header value");
                return None;
            };
            headers.push((parsed, value));
        }
        Some(headers)
    }
}
