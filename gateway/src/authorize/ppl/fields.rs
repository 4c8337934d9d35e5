//! How the parts of a value are read: keys of a mapping, one or more of something, texts with a meaning.

use super::{PolicyProblem, Reader, Vocabulary};
use crate::yaml::{Node, Value};

impl Reader {
    /// The values of a mapping by `keys`; any other key is an error.
    pub(super) fn fields<'a, const N: usize>(
        &mut self,
        node: &'a Node,
        keys: &'static [&'static str; N],
        expected: &'static str,
    ) -> Option<[Option<&'a Node>; N]> {
        let entries = self.entries(node, expected);
        let mut values = [None; N];
        let mut is_known = !entries.is_empty();
        for entry in entries {
            match keys.iter().position(|key| *key == entry.key) {
                Some(index) => values[index] = Some(&entry.value),
                None => {
                    let problem = PolicyProblem::unknown(Vocabulary::Matcher, &entry.key, keys);
                    self.fail(entry.at, problem);
                    is_known = false;
                }
            }
        }
        is_known.then_some(values)
    }

    /// What must be there; `name` is what the message calls it.
    pub(super) fn required<T>(&mut self, node: &Node, field: Option<T>, name: &'static str) -> Option<T> {
        if field.is_none() {
            self.missing(node, name);
        }
        field
    }

    pub(super) fn missing(&mut self, node: &Node, name: &'static str) {
        self.fail(node.at, PolicyProblem::Missing { name });
    }

    /// What may be left out: `None` only after an error.
    #[expect(clippy::option_option, reason = "the outer says whether it could be read, as everywhere here")]
    pub(super) fn optional<T>(
        &mut self,
        field: Option<&Node>,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<Option<T>> {
        match field {
            Some(node) => read(self, node).map(Some),
            None => Some(None),
        }
    }

    /// A text that means something.
    pub(super) fn parsed<T>(
        &mut self,
        node: &Node,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(node)?;
        let value = parse(text);
        if value.is_none() {
            self.fail(node.at, PolicyProblem::malformed(text, expected));
        }
        value
    }

    /// One value, or a list of at least one.
    pub(super) fn one_or_more<'a>(&mut self, node: &'a Node) -> Option<&'a [Node]> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.fail(node.at, PolicyProblem::EmptyList);
                None
            }
            Value::List(items) => Some(self.within(node, items)).filter(|items| !items.is_empty()),
            _ => Some(std::slice::from_ref(node)),
        }
    }
}
