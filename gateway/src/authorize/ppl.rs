//! Reads the policy language (PPL) from YAML: every mistake is found, each with its place.

use ipnet::IpNet;

use super::{
    criterion::Criterion,
    matcher::{ListMatcher, ListTest, StringMatcher, StringTest},
    policy::{Block, Operator, Policy},
};
use crate::yaml::{Entry, Node, Position, Value};

/// Criteria in one policy at most.
const CRITERIA_MAX: usize = 1000;

/// Values in one list at most.
const LIST_LEN_MAX: usize = 10_000;

/// Criteria that this gateway evaluates.
const BUILT: [&str; 12] = [
    "accept", "authenticated_user", "claim", "cors_preflight", "domain", "email", "groups", "http_method", "http_path",
    "reject", "source_ip", "user",
];

/// Criteria of the language that are not evaluated here yet.
const NOT_BUILT: [&str; 16] = [
    "client_certificate", "date", "day_of_week", "device", "invalid_client_certificate", "mcp_tool", "pomerium_routes",
    "record", "ssh_ca", "ssh_publickey", "ssh_username", "ssh_username_matches_claim", "ssh_username_matches_email",
    "time_of_day", "posture", "session",
];

/// What is wrong with a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PolicyError {
    /// Where.
    pub at: Position,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A node of the wrong kind.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A word that the language does not have.
    #[error("unknown {what} \"{word}\"; {hint}")]
    Unknown {
        /// Action, operator, criterion or matcher.
        what: &'static str,
        /// What was written.
        word: String,
        /// The nearest word, or all of them.
        hint: String,
    },
    /// A criterion of the language that this gateway cannot evaluate.
    #[error("the criterion \"{0}\" is known but not built yet in this gateway, so the policy is refused")]
    NotBuilt(String),
    /// Neither an address nor a network.
    #[error("\"{0}\" is neither an IP address nor a network such as 10.0.0.0/8")]
    BadNetwork(String),
    /// More than the gateway takes.
    #[error("too many: at most {0} are allowed")]
    TooMany(usize),
}

/// Reads a policy.
///
/// # Errors
/// All mistakes, in the order of the text.
pub fn parse(node: &Node) -> Result<Policy, Vec<PolicyError>> {
    let mut reader = Reader { errors: Vec::new(), criteria: 0 };
    let mut policy = Policy::default();
    match &node.value {
        Value::List(rules) => rules.iter().for_each(|rule| reader.rule(rule, &mut policy)),
        Value::Map(_) => reader.rule(node, &mut policy),
        _ => reader.expected(node.at, "a rule or a list of rules"),
    }
    if reader.errors.is_empty() { Ok(policy) } else { Err(reader.errors) }
}

struct Reader {
    errors: Vec<PolicyError>,
    criteria: usize,
}

impl Reader {
    fn fail(&mut self, at: Position, problem: Problem) {
        self.errors.push(PolicyError { at, problem });
    }

    fn expected(&mut self, at: Position, what: &'static str) {
        self.fail(at, Problem::Expected(what));
    }

    fn unknown(&mut self, at: Position, what: &'static str, word: &str, known: &[&str]) {
        let nearest = known.iter().map(|k| (strsim::damerau_levenshtein(word, k), *k)).min();
        let hint = match nearest {
            Some((distance, word)) if distance <= 3 => format!("did you mean \"{word}\"?"),
            _ => format!("expected one of {}", known.join(", ")),
        };
        self.fail(at, Problem::Unknown { what, word: word.to_owned(), hint });
    }

    fn rule(&mut self, node: &Node, policy: &mut Policy) {
        let Value::Map(actions) = &node.value else {
            return self.expected(node.at, "a rule: a map with `allow` or `deny`");
        };
        if actions.is_empty() {
            self.expected(node.at, "`allow` or `deny`");
        }
        for action in actions {
            match action.key.as_str() {
                "allow" => self.action(&action.value, &mut policy.allow),
                "deny" => self.action(&action.value, &mut policy.deny),
                word => self.unknown(action.at, "action", word, &["allow", "deny"]),
            }
        }
    }

    fn action(&mut self, node: &Node, blocks: &mut Vec<Block>) {
        let Value::Map(operators) = &node.value else {
            return self.expected(node.at, "a map with `and`, `or`, `not` or `nor`");
        };
        if operators.is_empty() {
            self.expected(node.at, "`and`, `or`, `not` or `nor`");
        }
        for entry in operators {
            let operator = match entry.key.as_str() {
                "and" => Operator::And,
                "or" => Operator::Or,
                "not" => Operator::Not,
                "nor" => Operator::Nor,
                word => {
                    self.unknown(entry.at, "operator", word, &["and", "or", "not", "nor"]);
                    continue;
                }
            };
            let Value::List(items) = &entry.value.value else {
                self.expected(entry.value.at, "a list of criteria");
                continue;
            };
            if items.is_empty() {
                self.expected(entry.value.at, "at least one criterion");
            }
            let criteria = items.iter().filter_map(|item| self.criterion(item)).collect();
            blocks.push(Block { operator, criteria });
        }
    }

    fn criterion(&mut self, node: &Node) -> Option<Criterion> {
        let Value::Map(entries) = &node.value else {
            self.expected(node.at, "a criterion: a map with one key");
            return None;
        };
        let [Entry { key, at, value }] = entries.as_slice() else {
            self.expected(node.at, "exactly one criterion in each item");
            return None;
        };
        self.criteria += 1;
        if self.criteria > CRITERIA_MAX {
            self.fail(*at, Problem::TooMany(CRITERIA_MAX));
            return None;
        }
        let (name, path) = key.split_once('/').unwrap_or((key.as_str(), ""));
        if !path.is_empty() && name != "claim" && BUILT.contains(&name) {
            self.expected(*at, "no path behind this criterion");
            return None;
        }
        match name {
            "accept" => Some(Criterion::Accept),
            "reject" => Some(Criterion::Reject),
            "authenticated_user" => Some(Criterion::AuthenticatedUser),
            "cors_preflight" => Some(Criterion::CorsPreflight),
            "claim" if path.is_empty() => {
                self.expected(*at, "the claim's name: claim/<name>");
                None
            }
            "claim" => Some(Criterion::Claim { path: path.to_owned(), matcher: self.list_matcher(value)? }),
            "domain" => self.string_matcher(value).map(Criterion::Domain),
            "email" => self.string_matcher(value).map(Criterion::Email),
            "groups" => self.list_matcher(value).map(Criterion::Groups),
            "http_method" => self.string_matcher(value).map(Criterion::HttpMethod),
            "http_path" => self.string_matcher(value).map(Criterion::HttpPath),
            "source_ip" => self.networks(value).map(Criterion::SourceIp),
            "user" => self.string_matcher(value).map(Criterion::User),
            name if NOT_BUILT.contains(&name) => {
                self.fail(*at, Problem::NotBuilt(name.to_owned()));
                None
            }
            word => {
                self.unknown(*at, "criterion", word, &BUILT);
                None
            }
        }
    }

    fn string_matcher(&mut self, node: &Node) -> Option<StringMatcher> {
        const WORDS: [&str; 7] = ["is", "not", "contains", "starts_with", "ends_with", "in", "not_in"];
        let Value::Map(entries) = &node.value else {
            return Some(StringMatcher(vec![StringTest::Is(self.scalar(node)?)]));
        };
        if entries.is_empty() {
            self.expected(node.at, "a text or a matcher such as `is`");
            return None;
        }
        let mut tests = Vec::new();
        for Entry { key, at, value } in entries {
            tests.push(match key.as_str() {
                "is" => StringTest::Is(self.scalar(value)?),
                "not" => StringTest::Not(self.scalar(value)?),
                "contains" => StringTest::Contains(self.scalar(value)?),
                "starts_with" => StringTest::StartsWith(self.scalar(value)?),
                "ends_with" => StringTest::EndsWith(self.scalar(value)?),
                "in" => StringTest::In(self.scalars(value)?),
                "not_in" => StringTest::NotIn(self.scalars(value)?),
                word => {
                    self.unknown(*at, "matcher", word, &WORDS);
                    return None;
                }
            });
        }
        Some(StringMatcher(tests))
    }

    fn list_matcher(&mut self, node: &Node) -> Option<ListMatcher> {
        let Value::Map(entries) = &node.value else {
            return Some(ListMatcher(vec![ListTest::Has(self.scalar(node)?)]));
        };
        if entries.is_empty() {
            self.expected(node.at, "a text or a matcher such as `has`");
            return None;
        }
        let mut tests = Vec::new();
        for Entry { key, at, value } in entries {
            tests.push(match key.as_str() {
                "has" => ListTest::Has(self.scalar(value)?),
                "is" => ListTest::Is(self.scalar(value)?),
                "exclude" => ListTest::Exclude(self.scalar(value)?),
                word => {
                    self.unknown(*at, "matcher", word, &["has", "is", "exclude"]);
                    return None;
                }
            });
        }
        Some(ListMatcher(tests))
    }

    fn networks(&mut self, node: &Node) -> Option<Vec<IpNet>> {
        let texts = match &node.value {
            Value::List(_) => self.scalars(node)?,
            _ => vec![self.scalar(node)?],
        };
        let mut networks = Vec::new();
        for text in texts {
            match text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network),
                Err(_) => {
                    self.fail(node.at, Problem::BadNetwork(text));
                    return None;
                }
            }
        }
        Some(networks)
    }

    fn scalars(&mut self, node: &Node) -> Option<Vec<String>> {
        let Value::List(items) = &node.value else {
            self.expected(node.at, "a list of texts");
            return None;
        };
        if items.len() > LIST_LEN_MAX {
            self.fail(node.at, Problem::TooMany(LIST_LEN_MAX));
            return None;
        }
        items.iter().map(|item| self.scalar(item)).collect()
    }

    fn scalar(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.expected(node.at, "a text");
                None
            }
        }
    }
}
