//! What may be wrong with a policy, in words for the person who wrote it.

use std::fmt;

use super::{CRITERIA_MAX, LIST_LEN_MAX};
use crate::yaml::{Position, Value};

/// Characters of a person's word that a message repeats.
const SHOWN_LEN_MAX: usize = 60;
/// Below this likeness (0 to 1) a known word is no help: `emial` means `email`, but `xor` does not mean `nor`.
const LIKENESS_MIN: f64 = 0.8;

/// One thing that is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PolicyError {
    /// Where it is in the file.
    pub at: Position,
    /// What it is. (No source: the two are one sentence.)
    pub problem: PolicyProblem,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// Another kind of value.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What belongs here.
        expected: &'static str,
        /// What is here.
        found: Found,
    },
    /// A value that YAML does not read as a text.
    #[error("expected a text, found {found}: put it in quotes")]
    ExpectedText {
        /// What is here.
        found: Found,
    },
    /// No word of the language.
    #[error("{} is not {vocabulary}{}", Word(.word), Hint { nearest: *.nearest, known })]
    Unknown {
        /// What was expected.
        vocabulary: Vocabulary,
        /// The word.
        word: String,
        /// The known word that it resembles.
        nearest: Option<&'static str>,
        /// All known words.
        known: &'static [&'static str],
    },
    /// Two criteria in one list item.
    #[error("a criterion is exactly one key with its value: begin a list item (`- `) for each")]
    SeveralCriteria,
    /// `email/x`.
    #[error("the criterion `{criterion}` takes no path after a slash; only `claim/...` does")]
    UnexpectedPath {
        /// Its name.
        criterion: &'static str,
    },
    /// `claim` without a path.
    #[error("expected the claim's name after a slash, such as `claim/department`")]
    ClaimWithoutPath,
    /// `accept: false`.
    #[error(
        "`{criterion}: false` would mean the same as `{criterion}: true`: write `true`, or remove the criterion"
    )]
    FalseFlag {
        /// Its name.
        criterion: &'static str,
    },
    /// `contains: ""`.
    #[error("`{matcher}` with an empty text would match everything")]
    EmptyText {
        /// The matcher's key.
        matcher: &'static str,
    },
    /// `in: []`.
    #[error("expected a list of at least one entry")]
    EmptyList,
    /// A text that does not say what it should.
    #[error("{} is not {expected}", Word(.text))]
    Malformed {
        /// What is here.
        text: String,
        /// What belongs here.
        expected: &'static str,
    },
    /// A key that must be there.
    #[error("{name} is missing here")]
    Missing {
        /// The key.
        name: &'static str,
    },
    /// `after` that is not before `before`.
    #[error("no moment is after the first and before the second")]
    EmptyRange,
    /// More than [`LIST_LEN_MAX`] entries.
    #[error("the list has more than {LIST_LEN_MAX} entries")]
    ListTooLong,
    /// More than [`CRITERIA_MAX`] criteria.
    #[error("the policy has more than {CRITERIA_MAX} criteria: use `in` with a list")]
    TooManyCriteria,
}

impl PolicyProblem {
    pub(super) fn unknown(vocabulary: Vocabulary, word: &str, known: &'static [&'static str]) -> Self {
        let word: String = word.chars().take(SHOWN_LEN_MAX + 1).collect();
        let lower = word.to_lowercase();
        let likeness = |known: &str| strsim::jaro_winkler(&lower, known);
        let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let nearest = best.filter(|known| likeness(known) >= LIKENESS_MIN);
        Self::Unknown { vocabulary, word, nearest, known }
    }

    pub(super) fn malformed(text: &str, expected: &'static str) -> Self {
        Self::Malformed { text: text.chars().take(SHOWN_LEN_MAX + 1).collect(), expected }
    }
}

/// Which words were expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    /// `allow` and `deny`.
    Action,
    /// `and` and its kin.
    Operator,
    /// `email` and its kin.
    Criterion,
    /// The keys of a string or list matcher.
    Matcher,
}

impl fmt::Display for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Action => "an action",
            Self::Operator => "an operator",
            Self::Criterion => "a criterion",
            Self::Matcher => "a key of this matcher",
        })
    }
}

/// What stands where something else was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found(&'static str);

impl Found {
    pub(super) fn of(value: &Value) -> Self {
        Self(match value {
            Value::List(items) if items.is_empty() => "an empty list",
            Value::Map(entries) if entries.is_empty() => "an empty mapping",
            other => other.kind(),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A person's word in a message: quoted, escaped and not too long.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_LEN_MAX) {
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

struct Hint<'a> {
    nearest: Option<&'static str>,
    known: &'a [&'static str],
}

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nearest {
            Some(word) => write!(f, ": did you mean `{word}`?"),
            None => write!(f, "; known are {}", self.known.join(", ")),
        }
    }
}
