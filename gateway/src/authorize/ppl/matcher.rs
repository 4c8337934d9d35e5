//! Matchers as they are written.

use super::{PolicyProblem, Reader, Vocabulary};
use crate::{
    authorize::matcher::{ListMatcher, ListTest, Scalar, StringMatcher, StringTest, TextSet},
    yaml::{Entry, Node, Value},
};

const STRING_KEYS: &[&str] = &["is", "not", "contains", "starts_with", "ends_with", "in", "not_in"];
const LIST_KEYS: &[&str] = &["has", "is", "exclude"];

impl Reader {
    /// A text that must be equal, or a mapping of tests.
    pub(super) fn string_matcher(&mut self, node: &Node) -> Option<StringMatcher> {
        let Value::Map(_) = &node.value else {
            let text = self.text(node)?;
            return Some(StringMatcher::one(StringTest::Is(text.to_owned())));
        };
        let entries = self.entries(node, "a text, or a matcher such as `is: TEXT`");
        let tests: Vec<_> = entries.iter().filter_map(|entry| self.string_test(entry)).collect();
        (!tests.is_empty()).then_some(StringMatcher { tests })
    }

    fn string_test(&mut self, entry: &Entry) -> Option<StringTest> {
        let value = &entry.value;
        match entry.key.as_str() {
            "is" => self.text(value).map(|text| StringTest::Is(text.to_owned())),
            "not" => self.text(value).map(|text| StringTest::Not(text.to_owned())),
            "contains" => self.part("contains", value).map(StringTest::Contains),
            "starts_with" => self.part("starts_with", value).map(StringTest::StartsWith),
            "ends_with" => self.part("ends_with", value).map(StringTest::EndsWith),
            "in" => self.texts(value).map(StringTest::In),
            "not_in" => self.texts(value).map(StringTest::NotIn),
            word => {
                self.fail(entry.at, PolicyProblem::unknown(Vocabulary::Matcher, word, STRING_KEYS));
                None
            }
        }
    }

    /// A text. A number is none: YAML has already lost its leading zeros.
    pub(super) fn text<'a>(&mut self, node: &'a Node) -> Option<&'a str> {
        match &node.value {
            Value::String(text) => return Some(text),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                self.fail(node.at, PolicyProblem::ExpectedText { found: super::Found::of(&node.value) });
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.expected(node, "a text"),
        }
        None
    }

    fn part(&mut self, matcher: &'static str, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if text.is_empty() {
            self.fail(node.at, PolicyProblem::EmptyText { matcher });
            return None;
        }
        Some(text.to_owned())
    }

    fn texts(&mut self, node: &Node) -> Option<TextSet> {
        let Value::List(items) = &node.value else {
            self.expected(node, "a list of texts");
            return None;
        };
        if items.is_empty() {
            self.fail(node.at, PolicyProblem::EmptyList);
            return None;
        }
        let items = self.within(node, items);
        Some(TextSet::new(items.iter().filter_map(|item| self.text(item)).map(str::to_owned).collect()))
    }

    /// A value that the list must have, or a mapping of tests.
    pub(super) fn list_matcher(&mut self, node: &Node) -> Option<ListMatcher> {
        self.list_matcher_of(node, Self::scalar)
    }

    /// The same, where the list holds nothing but texts.
    pub(super) fn text_list_matcher(&mut self, node: &Node) -> Option<ListMatcher> {
        self.list_matcher_of(node, |reader, node| Some(Scalar::Text(reader.text(node)?.to_owned())))
    }

    fn list_matcher_of(
        &mut self,
        node: &Node,
        mut scalar: impl FnMut(&mut Self, &Node) -> Option<Scalar>,
    ) -> Option<ListMatcher> {
        let Value::Map(_) = &node.value else {
            return Some(ListMatcher::one(ListTest::Has(scalar(self, node)?)));
        };
        let mut tests = Vec::new();
        for entry in self.entries(node, "a value, or a matcher such as `has: VALUE`") {
            let test = match entry.key.as_str() {
                "has" => ListTest::Has,
                "is" => ListTest::Is,
                "exclude" => ListTest::Exclude,
                word => {
                    self.fail(entry.at, PolicyProblem::unknown(Vocabulary::Matcher, word, LIST_KEYS));
                    continue;
                }
            };
            tests.extend(scalar(self, &entry.value).map(test));
        }
        (!tests.is_empty()).then_some(ListMatcher { tests })
    }

    pub(super) fn scalar(&mut self, node: &Node) -> Option<Scalar> {
        match &node.value {
            Value::String(text) => Some(Scalar::Text(text.clone())),
            Value::Bool(value) => Some(Scalar::Bool(*value)),
            Value::Integer(value) => Some(Scalar::Integer(*value)),
            Value::Float(value) => Some(Scalar::Float(*value)),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.expected(node, "a text, a number, or true or false");
                None
            }
        }
    }
}
