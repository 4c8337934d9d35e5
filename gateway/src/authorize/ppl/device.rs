//! Criteria about devices and what they report, as they are written.

use super::{PolicyProblem, Reader};
use crate::{
    authorize::{
        matcher::StringMatcher,
        posture::{DeviceMatcher, Version},
    },
    yaml::{Node, Value},
};

const OPERATING_SYSTEM: &str = "an operating system: linux, macos or windows";
const VERSION: &str = "a version: numbers with dots between, such as \"12.5\"";
const DEVICE_TYPES: &[(&str, bool)] = &[("any", false), ("enclave_only", true)];

impl Reader {
    /// `{is, approved, type}`.
    pub(super) fn device(&mut self, node: &Node) -> Option<DeviceMatcher> {
        let keys = &["is", "approved", "type"];
        let [id, approved, kind] = self.fields(node, keys, "a mapping such as `approved: true`")?;
        let id = self.optional(id, |reader, node| reader.parsed(node, "a device's id", filled));
        let approved = self.optional(approved, Self::bool);
        let kind = self.optional(kind, |reader, node| {
            let kind =
                |text: &str| DEVICE_TYPES.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind);
            reader.parsed(node, "a type of device: any or enclave_only", kind)
        });
        Some(DeviceMatcher { id: id?, is_approved: approved?, needs_enclave: kind?.unwrap_or(false) })
    }

    /// A string matcher whose words are operating systems, so that a typo does not keep everybody out or let in.
    pub(super) fn operating_system(&mut self, node: &Node) -> Option<StringMatcher> {
        let matcher = self.string_matcher(node)?;
        if let Some(text) = matcher.whole_texts().find(|text| !matches!(*text, "linux" | "macos" | "windows"))
        {
            self.fail(node.at, PolicyProblem::malformed(text, OPERATING_SYSTEM));
            return None;
        }
        Some(matcher)
    }

    /// `{at_least: "12.5"}`.
    pub(super) fn version(&mut self, node: &Node) -> Option<Version> {
        let [at_least] = self.fields(node, &["at_least"], "a mapping such as `at_least: \"12.5\"`")?;
        let at_least = self.required(node, at_least, "`at_least`")?;
        self.parsed(at_least, VERSION, Version::parse)
    }

    pub(super) fn bool(&mut self, node: &Node) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.expected(node, "true or false");
        None
    }
}

/// A text with something in it.
pub(super) fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
