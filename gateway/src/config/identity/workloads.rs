//! `workload_issuers`: whose tokens programs may trade for a session.

use std::time::Duration;

use super::issuer_url;
use crate::{
    config::{WorkloadIssuer, section::Section},
    yaml::{Entry, Value},
};

const EXPIRE_DEFAULT: Duration = Duration::from_secs(3600);
const KEYS: [&str; 6] = ["name", "issuer", "audience", "claims", "groups", "expire"];

/// Reads the list; broken entries are left out, and said.
pub(in crate::config) fn workload_issuers(top: &Section<'_>) -> Vec<WorkloadIssuer> {
    let list = "workload_issuers";
    let items = match top.node(list).map(|node| &node.value) {
        None => return Vec::new(),
        Some(Value::List(items)) => items,
        Some(other) => {
            top.error(list, format!("expected a list of issuers, found {}", other.kind()));
            return Vec::new();
        }
    };
    let mut issuers: Vec<WorkloadIssuer> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(section) = Section::of(top.reading, format!("{list}[{index}]"), item) else { continue };
        let Some(issuer) = workload_issuer(&section) else { continue };
        if issuers.iter().any(|known| known.name == issuer.name || known.issuer == issuer.issuer) {
            section.error("name", "another entry has this name or issuer: a token must lead to one of them");
        }
        issuers.push(issuer);
    }
    issuers
}

fn workload_issuer(section: &Section<'_>) -> Option<WorkloadIssuer> {
    section.allow_only(&KEYS);
    let required = |name: &str, what: &str| {
        if !section.has(name) {
            section.error(name, format!("is missing: {what}"));
        }
    };
    required("name", "what policy calls its workloads, like github");
    required("issuer", "the URL in the iss of its tokens");
    required("audience", "what its tokens must be made for; without it any token of the issuer would do");
    let name = section.filled("name")?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        section.error("name", "must be of letters, digits, -, _ and .");
    }
    let texts = |name: &str| -> Vec<String> {
        section.list(name).unwrap_or_default().into_iter().map(|(text, _)| text.to_owned()).collect()
    };
    let expire = section.duration("expire").unwrap_or(Some(EXPIRE_DEFAULT));
    if expire.is_none() {
        section.error("expire", "must not be 0: a session has to end");
    }
    Some(WorkloadIssuer {
        name: name.to_owned(),
        issuer: issuer_url(section, "issuer")?,
        audiences: Some(texts("audience")).filter(|audiences| !audiences.is_empty())?,
        claims: claims(section),
        groups: texts("groups"),
        expire: expire.unwrap_or(EXPIRE_DEFAULT),
    })
}

fn claims(section: &Section<'_>) -> Vec<(String, Vec<String>)> {
    let name = "claims";
    let Some(node) = section.node(name) else { return Vec::new() };
    let Some(inner) = Section::of(section.reading, section.key(name), node) else { return Vec::new() };
    let claim = |entry: &Entry| {
        let values: Vec<String> =
            inner.list(&entry.key)?.into_iter().map(|(value, _)| value.to_owned()).collect();
        if values.is_empty() {
            inner.error(&entry.key, "expected a value, or a list of them");
        }
        Some((entry.key.clone(), values))
    };
    inner.entries.iter().filter_map(claim).collect()
}
