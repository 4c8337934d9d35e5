//! Questions about records as they are written.

use super::{PolicyProblem, Reader, Vocabulary, device::filled};
use crate::{
    authorize::{
        matcher::Scalar,
        record::{Comparison, FieldPath, FieldTest, RecordKey, RecordMatcher},
    },
    yaml::{Entry, Node, Value},
};

const KEYS: &[&str] = &["type", "key", "field", "is", "in", "exists", "<", "<=", "=", ">", ">="];
const TESTS: &str = "a test, such as `is` or `exists`";

impl Reader {
    /// `{type, key, field}` and tests of the field.
    pub(super) fn record(&mut self, node: &Node) -> Option<RecordMatcher> {
        let (mut kind, mut key, mut field) = (None, Some(RecordKey::UserId), None);
        let mut tests = Vec::new();
        let entries = self.entries(node, "a mapping such as `type: TYPE`, `field: NAME` and a test");
        if entries.is_empty() {
            return None;
        }
        for entry in entries {
            let value = &entry.value;
            match entry.key.as_str() {
                "type" => kind = Some(self.parsed(value, "a type of records", filled)?),
                "field" => field = Some(self.parsed(value, "a field's name", filled)?),
                "key" => key = self.record_key(value),
                _ => tests.push(self.field_test(entry)?),
            }
        }
        if tests.is_empty() {
            self.missing(node, TESTS);
            return None;
        }
        let kind = self.required(node, kind, "`type`");
        let field = self.required(node, field, "`field`");
        Some(RecordMatcher { kind: kind?, key: key?, field: FieldPath { literal: field? }, tests })
    }

    fn record_key(&mut self, node: &Node) -> Option<RecordKey> {
        let key = |text: &str| RecordKey::WORDS.iter().find(|(word, _)| *word == text).map(|(_, key)| *key);
        self.parsed(node, "one of user_id, email, session_id, device_id, host and source_ip", key)
    }

    fn field_test(&mut self, entry: &Entry) -> Option<FieldTest> {
        let value = &entry.value;
        let comparison = match entry.key.as_str() {
            "is" | "=" => return self.scalar(value).map(FieldTest::Is),
            "in" => return self.scalars(value).map(FieldTest::In),
            "exists" => return self.bool(value).map(FieldTest::Exists),
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            word => {
                self.fail(entry.at, PolicyProblem::unknown(Vocabulary::Matcher, word, KEYS));
                return None;
            }
        };
        match self.scalar(value)? {
            Scalar::Bool(_) => {
                self.expected(value, "a number or a text to compare with");
                None
            }
            bound => Some(FieldTest::Compares(comparison, bound)),
        }
    }

    fn scalars(&mut self, node: &Node) -> Option<Vec<Scalar>> {
        let Value::List(_) = &node.value else {
            self.expected(node, "a list of values");
            return None;
        };
        self.one_or_more(node)?.iter().map(|item| self.scalar(item)).collect()
    }
}
