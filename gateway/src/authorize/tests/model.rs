//! The engine against a naive model that shares nothing with it but the words.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::Policy, alice, asked_by};
use crate::session::Session;

/// A criterion as text, its answer for alice, and its answer for nobody.
type Sample = (&'static str, (bool, &'static str), (bool, &'static str));

const NOBODY: (bool, &str) = (false, "user-unauthenticated");
const SAMPLES: &[Sample] = &[
    ("accept: 1", (true, "accept"), (true, "accept")),
    ("reject: 1", (false, "reject"), (false, "reject")),
    ("authenticated_user: 1", (true, "user-ok"), NOBODY),
    ("email: alice@corp.example", (true, "email-ok"), NOBODY),
    ("email: bob@corp.example", (false, "email-unauthorized"), NOBODY),
    ("domain: corp.example", (true, "domain-ok"), NOBODY),
    ("user: u-bob", (false, "user-unauthorized"), NOBODY),
    ("groups: sre", (true, "groups-ok"), NOBODY),
    ("claim/department: hr", (false, "claim-unauthorized"), NOBODY),
    ("http_method: GET", (true, "http-method-ok"), (true, "http-method-ok")),
    ("http_path: /x", (false, "http-path-unauthorized"), (false, "http-path-unauthorized")),
    ("source_ip: 10.0.0.0/8", (false, "source-ip-unauthorized"), (false, "source-ip-unauthorized")),
];

/// Rules with blocks with groups: action, then operators with the numbers of samples.
type Blueprint = Vec<Vec<(&'static str, Vec<(&'static str, Vec<usize>)>)>>;
type Answer = (bool, BTreeSet<&'static str>);

fn blueprint() -> impl Strategy<Value = Blueprint> {
    let criteria = prop::collection::vec(0..SAMPLES.len(), 1..5);
    let operators = prop::sample::subsequence(vec!["and", "or", "not", "nor"], 1..4);
    let block = operators.prop_flat_map(move |operators| {
        let count = operators.len();
        prop::collection::vec(criteria.clone(), count)
            .prop_map(move |criteria| operators.iter().copied().zip(criteria).collect::<Vec<_>>())
    });
    let rule = prop::sample::subsequence(vec!["allow", "deny"], 1..=2).prop_flat_map(move |actions| {
        let count = actions.len();
        prop::collection::vec(block.clone(), count)
            .prop_map(move |blocks| actions.iter().copied().zip(blocks).collect::<Vec<_>>())
    });
    prop::collection::vec(rule, 0..4)
}

fn text(blueprint: &Blueprint) -> String {
    let mut text = String::from("[]\n");
    for (index, rule) in blueprint.iter().enumerate() {
        if index == 0 {
            text.clear();
        }
        text.push_str("-\n");
        for (action, groups) in rule {
            text.push_str(&format!("  {action}:\n"));
            for (operator, criteria) in groups {
                text.push_str(&format!("    {operator}:\n"));
                for criterion in criteria {
                    text.push_str(&format!("      - {}\n", SAMPLES[*criterion].0));
                }
            }
        }
    }
    text
}

/// Value and reasons of parts, joined: the reasons are those of the parts whose value is the result.
fn joined(value: bool, parts: &[Answer]) -> Answer {
    let reasons = parts.iter().filter(|part| part.0 == value).flat_map(|part| part.1.clone()).collect();
    (value, reasons)
}

fn model(blueprint: &Blueprint, wanted: &str, is_signed_in: bool) -> Answer {
    let answer = |criterion: &usize| {
        let (_, alice, nobody) = SAMPLES[*criterion];
        let (value, reason) = if is_signed_in { alice } else { nobody };
        (value, BTreeSet::from([reason]))
    };
    let mut results = Vec::new();
    for (_, groups) in blueprint.iter().flatten().filter(|(action, _)| *action == wanted) {
        for (operator, criteria) in groups {
            let parts: Vec<Answer> = criteria.iter().map(answer).collect();
            let inverted: Vec<Answer> = parts.iter().map(|(value, why)| (!value, why.clone())).collect();
            results.push(match *operator {
                "and" => joined(!parts.iter().any(|part| !part.0), &parts),
                "or" => joined(parts.iter().any(|part| part.0), &parts),
                "not" => joined(!parts.iter().any(|part| part.0), &inverted),
                _ => joined(parts.iter().any(|part| !part.0), &inverted),
            });
        }
    }
    joined(results.iter().any(|result| result.0), &results)
}

fn engine(policy: &Policy, session: Option<&Session>) -> [Answer; 2] {
    let decision = policy.evaluate(&asked_by(session));
    [decision.allow, decision.deny]
        .map(|part| (part.value, part.reasons.iter().map(|reason| reason.as_str()).collect()))
}

proptest! {
    #[test]
    fn evaluation_equals_the_naive_model(blueprint in blueprint(), is_signed_in: bool) {
        let alice = alice();
        let policy = Policy::from_yaml(&text(&blueprint));
        let expected = ["allow", "deny"].map(|action| model(&blueprint, action, is_signed_in));
        prop_assert_eq!(engine(&policy, is_signed_in.then_some(&alice)), expected);
    }
}
