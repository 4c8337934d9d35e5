use super::{super::Policy, alice, asked_by, shown};

/// True for alice, with reason `email-ok`.
const TRUE: &str = "email: alice@corp.example";
/// False for alice, with reason `domain-unauthorized`.
const FALSE: &str = "domain: other.example";
/// True for everybody, with reason `accept`.
const ACCEPT: &str = "accept: true";
/// False for everybody, with reason `reject`.
const REJECT: &str = "reject: true";

fn allow(operator: &str, criteria: &[&str]) -> (bool, String) {
    let criteria: String = criteria.iter().map(|criterion| format!("\n      - {criterion}")).collect();
    let policy = Policy::from_yaml(&format!("- allow:\n    {operator}:{criteria}\n"));
    shown(policy.evaluate(&asked_by(Some(&alice()))).allow)
}

#[test]
fn each_operator_joins_values_and_reasons_by_its_table() {
    let table: &[(&str, &[&str], bool, &str)] = &[
        ("and", &[TRUE], true, "email-ok"),
        ("and", &[FALSE], false, "domain-unauthorized"),
        ("and", &[TRUE, ACCEPT], true, "accept,email-ok"),
        ("and", &[TRUE, FALSE], false, "domain-unauthorized"),
        ("and", &[FALSE, TRUE], false, "domain-unauthorized"),
        ("and", &[FALSE, REJECT], false, "domain-unauthorized,reject"),
        ("or", &[TRUE], true, "email-ok"),
        ("or", &[FALSE], false, "domain-unauthorized"),
        ("or", &[TRUE, ACCEPT], true, "accept,email-ok"),
        ("or", &[TRUE, FALSE], true, "email-ok"),
        ("or", &[FALSE, TRUE], true, "email-ok"),
        ("or", &[FALSE, REJECT], false, "domain-unauthorized,reject"),
        ("not", &[TRUE], false, "email-ok"),
        ("not", &[FALSE], true, "domain-unauthorized"),
        ("not", &[TRUE, ACCEPT], false, "accept,email-ok"),
        ("not", &[TRUE, FALSE], false, "email-ok"),
        ("not", &[FALSE, TRUE], false, "email-ok"),
        ("not", &[FALSE, REJECT], true, "domain-unauthorized,reject"),
        ("nor", &[TRUE], false, "email-ok"),
        ("nor", &[FALSE], true, "domain-unauthorized"),
        ("nor", &[TRUE, ACCEPT], false, "accept,email-ok"),
        ("nor", &[TRUE, FALSE], true, "domain-unauthorized"),
        ("nor", &[FALSE, TRUE], true, "domain-unauthorized"),
        ("nor", &[FALSE, REJECT], true, "domain-unauthorized,reject"),
    ];
    for (operator, criteria, value, reasons) in table {
        assert_eq!(allow(operator, criteria), (*value, (*reasons).to_owned()), "{operator} {criteria:?}");
    }
}

#[test]
fn several_operators_of_a_block_are_joined_by_or() {
    let policy =
        Policy::from_yaml("allow: {and: [accept: true, reject: true], or: [email: alice@corp.example]}");
    let decision = policy.evaluate(&asked_by(Some(&alice())));
    assert_eq!(shown(decision.allow), (true, "email-ok".to_owned()));
}

#[test]
fn several_rules_with_the_same_action_are_joined_by_or() {
    let policy = Policy::from_yaml(
        "- {allow: {and: [reject: 1]}, deny: {or: [user: nobody]}}\n- allow: {or: [accept: 1]}\n- deny: {and: [reject: 1]}",
    );
    let decision = policy.evaluate(&asked_by(Some(&alice())));
    assert_eq!(shown(decision.allow), (true, "accept".to_owned()));
    assert_eq!(shown(decision.deny), (false, "reject,user-unauthorized".to_owned()));
}

#[test]
fn a_policy_without_rules_allows_and_denies_nothing() {
    for text in ["", "[]", "~"] {
        let decision = Policy::from_yaml(text).evaluate(&asked_by(Some(&alice())));
        assert_eq!(shown(decision.allow), (false, String::new()), "{text:?}");
        assert_eq!(shown(decision.deny), (false, String::new()), "{text:?}");
    }
}
