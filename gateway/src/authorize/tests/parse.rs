use proptest::prelude::*;

use super::super::{
    PolicyError,
    ppl::{self, CRITERIA_MAX, LIST_LEN_MAX},
};
use crate::yaml::{self, Entry, Node, Position, Value};

fn errors(text: &str) -> Vec<String> {
    let node = yaml::parse(text).unwrap();
    let errors = ppl::parse(&node).unwrap_err();
    errors.iter().map(|PolicyError { at, problem }| format!("{at} {problem}")).collect()
}

/// The one error of a policy that holds this criterion.
fn criterion_error(criterion: &str) -> String {
    let errors = errors(&format!("allow:\n  or:\n  - {criterion}\n"));
    let [only] = errors.as_slice() else { panic!("{criterion}: {errors:#?}") };
    only.split_once(' ').unwrap().1.to_owned()
}

#[test]
fn every_error_is_reported_with_its_place() {
    let text = "\
- alow:
    or: [accept: true]
- allow:
    xor: [accept: true]
    or:
      - emial: alice@example.com
      - email: {iss: x}
      - source_ip: [10.0.0.0/33, 10.0.0.1]
- deny:
    or: []
";
    assert_eq!(
        errors(text),
        [
            "1:3 \"alow\" is not an action: did you mean `allow`?",
            "4:5 \"xor\" is not an operator; known are and, or, not, nor",
            "6:9 \"emial\" is not a criterion: did you mean `email`?",
            "7:17 \"iss\" is not a key of this matcher: did you mean `is`?",
            "8:21 \"10.0.0.0/33\" is not an IP address or network, such as 192.0.2.7 or 10.0.0.0/8",
            "10:9 expected a list of at least one criterion, found an empty list",
        ]
    );
}

#[test]
fn a_word_like_no_other_gets_the_list_of_known_ones() {
    let message = criterion_error("qqqq: 1");
    assert!(message.starts_with("\"qqqq\" is not a criterion; known are accept, "), "{message}");
}

#[test]
fn what_would_match_everybody_by_mistake_does_not_load() {
    for (criterion, message) in [
        ("accept: false", "`accept: false` would mean the same as `accept: true`"),
        ("authenticated_user: false", "`authenticated_user: false` would mean the same"),
        ("email: {}", "expected a text, or a matcher such as `is: TEXT`, found an empty mapping"),
        ("email: {contains: ''}", "`contains` with an empty text would match everything"),
        ("email: {starts_with: ''}", "`starts_with` with an empty text"),
        ("email: {ends_with: ''}", "`ends_with` with an empty text"),
        ("email: {not_in: []}", "expected a list of at least one entry"),
        ("source_ip: []", "expected a list of at least one entry"),
        ("groups: {}", "expected a value, or a matcher such as `has: VALUE`"),
    ] {
        let actual = criterion_error(criterion);
        assert!(actual.starts_with(message), "{criterion}: {actual}");
    }
    for text in ["allow: {and: []}", "allow: {not: []}", "allow: {}", "allow:", "{}", "allow: true", "5"] {
        assert_eq!(errors(text).len(), 1, "{text}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_says_what_belongs_there() {
    for (criterion, message) in [
        ("user: 00123", "expected a text, found a number: put it in quotes"),
        ("email: {in: [true]}", "expected a text, found true or false: put it in quotes"),
        ("email: {in: alice@example.com}", "expected a list of texts, found a text"),
        ("email: [alice@example.com]", "expected a text, found a list"),
        ("email:", "expected a text, found nothing"),
        ("groups: 5", "expected a text, found a number: put it in quotes"),
        ("claim/a:", "expected a text, a number, or true or false, found nothing"),
        ("claim: x", "expected the claim's name after a slash, such as `claim/department`"),
        ("claim/: x", "expected the claim's name after a slash, such as `claim/department`"),
        ("email/x: y", "the criterion `email` takes no path after a slash; only `claim/...` does"),
        ("{email: a, domain: b}", "a criterion is exactly one key with its value"),
        ("accept", "expected a criterion with its value, such as `email: alice@example.com`, found a text"),
    ] {
        let actual = criterion_error(criterion);
        assert!(actual.starts_with(message), "{criterion}: {actual}");
    }
}

#[test]
fn a_long_or_strange_word_is_cut_and_escaped() {
    for criterion in
        [format!("\"x\\n{}\": 1", "ä".repeat(200)), format!("source_ip: \"x\\n{}\"", "ä".repeat(5_000))]
    {
        let message = criterion_error(&criterion);
        let (word, _) = message.split_once("\"... is not ").unwrap();
        assert!(word.starts_with("\"x\\nääää") && word.chars().count() < 70, "{message}");
    }
}

#[test]
fn sizes_are_bounded() {
    let policy = |count| format!("allow:\n  or:\n{}", "  - accept: 1\n".repeat(count));
    assert!(ppl::parse(&yaml::parse(&policy(CRITERIA_MAX)).unwrap()).is_ok());
    assert_eq!(
        errors(&policy(CRITERIA_MAX + 1)),
        ["3:5 the policy has more than 1000 criteria: use `in` with a list"]
    );
    let list = |count| format!("allow: {{or: [email: {{in: [{}]}}]}}", "a,".repeat(count));
    assert!(ppl::parse(&yaml::parse(&list(LIST_LEN_MAX)).unwrap()).is_ok());
    assert_eq!(errors(&list(LIST_LEN_MAX + 1)), ["1:26 the list has more than 10000 entries"]);
    let wrong = format!("allow:\n  or:\n{}", "  - emial: 1\n".repeat(CRITERIA_MAX));
    assert_eq!(errors(&wrong).len(), 100);
}

#[test]
fn a_single_rule_is_a_policy_and_json_is_as_good_as_yaml() {
    let yaml = ppl::parse(&yaml::parse("allow:\n  and:\n    - email: a@b.example\n").unwrap());
    let json = ppl::parse(&yaml::parse(r#"[{"allow":{"and":[{"email":{"is":"a@b.example"}}]}}]"#).unwrap());
    assert_eq!(yaml, json);
    assert!(yaml.is_ok());
}

/// Words that lead deep into the parser, and others.
fn word() -> impl Strategy<Value = String> {
    let structure = ["allow", "deny", "and", "or", "not", "nor", "claim/a", "claim/", "claim/a/b/c/d/e/f"];
    let matchers = [
        "in",
        "not_in",
        "is",
        "not",
        "has",
        "exclude",
        "contains",
        "after",
        "before",
        "timezone",
        "at_most",
        "at_least",
        "approved",
        "type",
        "key",
        "field",
        "exists",
        "<",
        ">=",
        "fingerprint",
        "spki_hash",
        "san_dns",
    ];
    let values = [
        "10.0.0.0/8",
        "::/0",
        "::ffff:1.2.3.4/95",
        "UTC",
        "Europe/Zurich",
        "9AM",
        "12:30 pm",
        "17:30:15.25",
        "mon-fri",
        "fri-mon,wed",
        "2026-03-01",
        "2026-03-01T09:00+01:00",
        "8h",
        "0s",
        "12.5",
        "CH",
        "linux",
        "any",
        "user_id",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAB",
        "AA:BB",
    ];
    let known = prop::sample::select([&structure[..], &matchers, &values, ppl::CRITERIA].concat());
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

fn tree() -> impl Strategy<Value = Node> {
    let at = Position { line: 1, column: 1 };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Float),
        word().prop_map(Value::String),
    ];
    leaf.prop_map(move |value| Node { at, value }).prop_recursive(7, 64, 4, move |inner| {
        let entry = (word(), inner.clone()).prop_map(move |(key, value)| Entry { key, at, value });
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::List),
            prop::collection::vec(entry, 0..4).prop_map(Value::Map),
        ]
        .prop_map(move |value| Node { at, value })
    })
}

/// Trees of the right shape down to the criteria.
fn near_policy() -> impl Strategy<Value = Node> {
    let at = Position { line: 1, column: 1 };
    let node = move |value| Node { at, value };
    let map = move |key: &str, value| node(Value::Map(vec![Entry { key: key.to_owned(), at, value }]));
    let criterion = (word(), tree()).prop_map(move |(key, value)| map(&key, value));
    prop::collection::vec(criterion, 0..4)
        .prop_map(move |criteria| map("allow", map("or", node(Value::List(criteria)))))
}

proptest! {
    #[test]
    fn the_parser_takes_any_tree_without_panicking(tree in prop_oneof![tree(), near_policy()]) {
        match ppl::parse(&tree) {
            Ok(ast) => {
                let criteria = ast.rules.iter().flat_map(|r| &r.blocks).flat_map(|b| &b.groups).map(|g| g.criteria.len());
                prop_assert!(criteria.clone().all(|count| count > 0));
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }
}
