//! The policy language as text: YAML nodes in, a typed tree or every error out.
//!
//! What a tree means is not known here, only what may be written. Whatever could be true for everybody by mistake
//! (an empty list, an empty matcher, `accept: false`) does not load.

mod calendar;
mod certificate;
mod criterion;
mod device;
mod error;
mod fields;
mod matcher;
mod network;
mod record;

pub use criterion::CRITERIA;
pub use error::{Found, PolicyError, PolicyProblem, Vocabulary};

use super::criterion::Criterion;
use crate::yaml::{Entry, Node, Value};

/// Criteria of one policy at most: far more than people can survey, few enough to evaluate on every request.
pub const CRITERIA_MAX: usize = 1_000;
/// Entries of one list at most.
pub const LIST_LEN_MAX: usize = 10_000;
/// Errors of one policy at most; whoever has more sees the rest after the next try.
const ERRORS_MAX: usize = 100;

const ACTIONS: &[&str] = &["allow", "deny"];
const OPERATORS: &[&str] = &["and", "or", "not", "nor"];

/// A whole policy, in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ast {
    /// The rules; none means that nobody is allowed.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rule {
    /// Its blocks, with at least one.
    pub blocks: Vec<Block>,
}

/// `allow` or `deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Lets in, unless something denies.
    Allow,
    /// Keeps out, whatever allows.
    Deny,
}

/// What one action of a rule depends on; its groups are joined by OR.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// What the block does when it is true.
    pub action: Action,
    /// One for each operator, at least one.
    pub groups: Vec<Group>,
}

/// An operator over criteria.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// How the criteria are joined.
    pub operator: Operator,
    /// At least one.
    pub criteria: Vec<Criterion>,
}

/// How criteria are joined. `Not` and `Nor` are the reverse of what their names suggest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// All are true.
    And,
    /// At least one is true.
    Or,
    /// None is true.
    Not,
    /// At least one is false.
    Nor,
}

impl Action {
    /// The word of the language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl Operator {
    /// The word of the language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Nor => "nor",
        }
    }
}

/// Reads a policy: a rule or a list of rules; nothing at all is a policy without rules.
///
/// # Errors
/// Everything that is wrong with it (the first hundred), each with its place.
pub fn parse(node: &Node) -> Result<Ast, Vec<PolicyError>> {
    let mut reader = Reader::default();
    let rules = match &node.value {
        Value::Null => Vec::new(),
        Value::List(rules) => reader.within(node, rules).iter().map(|rule| reader.rule(rule)).collect(),
        _ => vec![reader.rule(node)],
    };
    if reader.errors.is_empty() { Ok(Ast { rules }) } else { Err(reader.errors) }
}

/// Collects errors while reading; what it returns counts only if there is none.
#[derive(Debug, Default)]
struct Reader {
    errors: Vec<PolicyError>,
    criteria: usize,
}

impl Reader {
    fn fail(&mut self, at: crate::yaml::Position, problem: PolicyProblem) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(PolicyError { at, problem });
        }
    }

    fn expected(&mut self, node: &Node, expected: &'static str) {
        self.fail(node.at, PolicyProblem::Expected { expected, found: Found::of(&node.value) });
    }

    /// The items of a list, or none and an error when they are too many.
    fn within<'a>(&mut self, list: &Node, items: &'a [Node]) -> &'a [Node] {
        if items.len() > LIST_LEN_MAX {
            self.fail(list.at, PolicyProblem::ListTooLong);
            return &[];
        }
        items
    }

    fn entries<'a>(&mut self, node: &'a Node, expected: &'static str) -> &'a [Entry] {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => entries,
            _ => {
                self.expected(node, expected);
                &[]
            }
        }
    }

    fn rule(&mut self, node: &Node) -> Rule {
        let mut blocks = Vec::new();
        for entry in self.entries(node, "a rule: `allow` or `deny` with a block") {
            let action = match entry.key.as_str() {
                "allow" => Action::Allow,
                "deny" => Action::Deny,
                word => {
                    self.fail(entry.at, PolicyProblem::unknown(Vocabulary::Action, word, ACTIONS));
                    continue;
                }
            };
            blocks.push(Block { action, groups: self.groups(&entry.value) });
        }
        Rule { blocks }
    }

    fn groups(&mut self, node: &Node) -> Vec<Group> {
        let mut groups = Vec::new();
        for entry in self.entries(node, "a block: `and`, `or`, `not` or `nor` with a list of criteria") {
            let operator = match entry.key.as_str() {
                "and" => Operator::And,
                "or" => Operator::Or,
                "not" => Operator::Not,
                "nor" => Operator::Nor,
                word => {
                    self.fail(entry.at, PolicyProblem::unknown(Vocabulary::Operator, word, OPERATORS));
                    continue;
                }
            };
            groups.push(Group { operator, criteria: self.criteria(&entry.value) });
        }
        groups
    }

    fn criteria(&mut self, node: &Node) -> Vec<Criterion> {
        let items = match &node.value {
            Value::List(items) if !items.is_empty() => items,
            _ => {
                self.expected(node, "a list of at least one criterion");
                return Vec::new();
            }
        };
        let before = self.criteria;
        self.criteria = before.saturating_add(items.len());
        if self.criteria > CRITERIA_MAX {
            if before <= CRITERIA_MAX {
                self.fail(node.at, PolicyProblem::TooManyCriteria);
            }
            return Vec::new();
        }
        items.iter().filter_map(|item| self.criterion(item)).collect()
    }

    fn criterion(&mut self, node: &Node) -> Option<Criterion> {
        match &node.value {
            Value::Map(entries) => match entries.as_slice() {
                [entry] => self.named_criterion(entry),
                [] => {
                    self.expected(node, "a criterion with its value");
                    None
                }
                [_, second, ..] => {
                    self.fail(second.at, PolicyProblem::SeveralCriteria);
                    None
                }
            },
            _ => {
                self.expected(node, "a criterion with its value, such as `email: alice@example.com`");
                None
            }
        }
    }
}
