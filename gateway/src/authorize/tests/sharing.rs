use std::hint::black_box;

use super::{super::Policy, alice, asked_by, shown};

/// A rule for each person, with what all rules share; more of it than is remembered.
fn many_rules(people: usize, shared: usize) -> String {
    let methods: String =
        (0..shared).map(|number| format!(", {{http_method: {{not: M{number}}}}}")).collect();
    (0..people)
        .map(|number| format!("- allow: {{and: [{{email: u{number}@corp.example}}{methods}]}}\n"))
        .collect()
}

#[test]
fn criteria_that_stand_more_than_once_answer_as_if_each_stood_alone() {
    for shared in [1, 2, 100] {
        let policy = Policy::from_yaml(&many_rules(3, shared));
        let mut session = alice();
        let refused = policy.evaluate(&asked_by(Some(&session))).allow;
        assert_eq!(shown(refused), (false, "email-unauthorized".to_owned()), "{shared}");
        "u2@corp.example".clone_into(&mut session.email);
        let allowed = policy.evaluate(&asked_by(Some(&session))).allow;
        assert_eq!(shown(allowed), (true, "email-ok,http-method-ok".to_owned()), "{shared}");
    }
}

#[test]
fn a_criterion_shared_by_allow_and_deny_counts_in_both() {
    let policy = Policy::from_yaml("allow: {or: [groups: staff]}\ndeny: {not: [groups: staff]}");
    let decision = policy.evaluate(&asked_by(Some(&alice())));
    assert_eq!(shown(decision.allow), (true, "groups-ok".to_owned()));
    assert_eq!(shown(decision.deny), (false, "groups-ok".to_owned()));
}

#[test]
fn a_decision_allocates_nothing() {
    let policy = Policy::from_yaml(&many_rules(100, 3));
    let session = alice();
    let check = asked_by(Some(&session));
    let counted = allocation_counter::measure(|| {
        black_box(policy.evaluate(black_box(&check)));
    });
    assert_eq!(counted.count_total, 0);
}
