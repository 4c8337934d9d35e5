//! The explanation against the evaluation, and decisions from less than all.

use proptest::prelude::*;

use super::{
    super::{Criterion, Explanation, Outcome, Policy, Verdict},
    alice, asked_by,
    model::{World, blueprint, text},
};

/// A policy with each of its criteria and its outcome.
fn outcomes(explanation: &Explanation<'_>) -> Vec<(String, Outcome)> {
    let criteria = explanation.groups.iter().flat_map(|group| &group.criteria);
    criteria.map(|explained| (explained.criterion.to_string(), explained.outcome())).collect()
}

#[test]
fn a_criterion_without_its_subject_is_skipped() {
    let policy = Policy::from_yaml("allow: {or: [email: bob@corp.example, http_method: GET]}");
    let of = |outcome| {
        [
            ("email is \"bob@corp.example\"".to_owned(), outcome),
            ("http_method is \"GET\"".to_owned(), Outcome::Matched),
        ]
    };
    assert_eq!(outcomes(&policy.explain(&asked_by(None))), of(Outcome::Skipped));
    assert_eq!(outcomes(&policy.explain(&asked_by(Some(&alice())))), of(Outcome::Failed));
}

#[test]
fn what_is_not_known_leaves_open_only_what_depends_on_it() {
    let alice = alice();
    let decided = |text: &str| {
        let policy = Policy::from_yaml(text);
        let is_known = |criterion: &Criterion| !matches!(criterion, Criterion::Claim(..));
        let decision = policy.decide_from_known(&asked_by(Some(&alice)), is_known);
        decision.map(|decision| decision.verdict() == Verdict::Allow)
    };
    assert_eq!(decided("allow: {or: [claim/x: 1]}"), None);
    assert_eq!(decided("allow: {or: [claim/x: 1, accept: 1]}"), Some(true));
    assert_eq!(decided("allow: {and: [claim/x: 1, reject: 1]}"), Some(false));
    assert_eq!(decided("allow: {not: [claim/x: 1]}"), None);
    assert_eq!(decided("{allow: {or: [accept: 1]}, deny: {or: [claim/x: 1]}}"), None);
    assert_eq!(decided("{allow: {or: [accept: 1]}, deny: {nor: [claim/x: 1]}}"), None);
    assert_eq!(decided("{allow: {or: [claim/x: 1]}, deny: {or: [accept: 1]}}"), Some(false));
    // With the claim, the missing device would be among the reasons, and ask for one.
    assert_eq!(decided("allow: {or: [accept: 1], not: [claim/x: 1, device: {approved: true}]}"), None);
}

proptest! {
    #[test]
    fn an_explanation_decides_as_the_evaluation_does(blueprint in blueprint(), number in 0..4_usize) {
        let world = World::of(number);
        let policy = Policy::from_yaml(&text(&blueprint));
        let explanation = policy.explain(&world.check());
        prop_assert_eq!(explanation.decision, policy.evaluate(&world.check()));
        let criteria: usize = blueprint.iter().flatten().flat_map(|(_, groups)| groups).map(|(_, all)| all.len()).sum();
        prop_assert_eq!(outcomes(&explanation).len(), criteria, "every criterion is shown");
    }

    #[test]
    fn what_is_decided_without_a_kind_of_criterion_does_not_depend_on_it(
        blueprint in blueprint(), number in 0..4_usize, hidden in 0_usize..12,
    ) {
        let world = World::of(number);
        let policy = Policy::from_yaml(&text(&blueprint));
        let kind = |criterion: &Criterion| std::mem::discriminant(criterion);
        let hidden = policy.criteria().nth(hidden).map(kind);
        let is_known = |criterion: &Criterion| Some(kind(criterion)) != hidden;
        if let Some(decision) = policy.decide_from_known(&world.check(), is_known) {
            let is_yes = policy.evaluate(&world.check()).verdict() == Verdict::Allow;
            prop_assert_eq!(decision.verdict() == Verdict::Allow, is_yes);
        }
    }
}
