use std::collections::BTreeSet;

use super::{
    super::{Decision, Evaluation, Policy, Reason, Reasons, Verdict},
    alice, asked_by,
};
use crate::session::Session;

fn decide(policy: &str, session: Option<&Session>) -> Decision {
    Policy::from_yaml(policy).evaluate(&asked_by(session))
}

const FORBIDDEN: Verdict = Verdict::Deny { status: 403 };

#[test]
fn deny_beats_allow() {
    let decision =
        decide("{allow: {or: [accept: 1]}, deny: {or: [email: alice@corp.example]}}", Some(&alice()));
    assert!(decision.allow.value);
    assert_eq!(decision.verdict(), FORBIDDEN);
    assert_eq!(decision.visible_reasons().to_string(), "email-ok");
}

#[test]
fn nothing_that_matches_is_a_deny() {
    assert_eq!(decide("allow: {or: [email: bob@corp.example]}", Some(&alice())).verdict(), FORBIDDEN);
    assert_eq!(decide("deny: {or: [email: bob@corp.example]}", Some(&alice())).verdict(), FORBIDDEN);
}

#[test]
fn no_policy_is_a_deny_for_everybody() {
    assert_eq!(Policy::default().evaluate(&asked_by(None)).verdict(), FORBIDDEN);
    assert_eq!(Policy::default().evaluate(&asked_by(Some(&alice()))).verdict(), FORBIDDEN);
}

#[test]
fn a_stranger_signs_in_wherever_the_answer_depended_on_who_it_is() {
    for policy in [
        "allow: {or: [email: alice@corp.example]}",
        "allow: {and: [accept: 1, authenticated_user: 1]}",
        "allow: {not: [email: bob@corp.example]}",
        "allow: {nor: [email: bob@corp.example]}",
        "{allow: {or: [accept: 1]}, deny: {or: [email: bob@corp.example]}}",
        "{allow: {or: [accept: 1]}, deny: {not: [domain: corp.example]}}",
    ] {
        let decision = decide(policy, None);
        assert_eq!(decision.verdict(), Verdict::SignIn, "{policy}");
        assert_eq!(decision.explain(), ["You are not signed in (user-unauthenticated)."], "{policy}");
    }
}

#[test]
fn a_stranger_is_not_asked_to_sign_in_where_that_changes_nothing() {
    assert_eq!(decide("allow: {or: [accept: 1]}", None).verdict(), Verdict::Allow);
    assert_eq!(decide("allow: {or: [reject: 1]}", None).verdict(), FORBIDDEN);
    assert_eq!(decide("allow: {or: [accept: 1, email: alice@corp.example]}", None).verdict(), Verdict::Allow);
}

#[test]
fn a_refusal_names_the_rule() {
    let decision = decide("allow: {or: [{email: bob@corp.example}, {groups: sales}]}", Some(&alice()));
    assert_eq!(
        decision.explain(),
        [
            "Your email is not one that this route's policy allows (email-unauthorized).",
            "You are not in a group that this route's policy allows (groups-unauthorized).",
        ]
    );
    let denied =
        decide("{allow: {or: [accept: 1]}, deny: {or: [email: alice@corp.example]}}", Some(&alice()));
    assert_eq!(denied.explain(), ["Your email is one that this route's policy refuses (email-ok)."]);
    let nothing = Policy::default().evaluate(&asked_by(None));
    assert_eq!(nothing.explain(), ["No rule of this route's policy allows anybody."]);
}

#[test]
fn an_allowed_request_is_explained_as_allowed() {
    let decision = decide("allow: {or: [email: alice@corp.example]}", Some(&alice()));
    assert_eq!(decision.explain(), ["Your email is one that this route's policy allows (email-ok)."]);
}

#[test]
fn each_reason_has_its_own_code_and_sentences() {
    let count = Reason::ALL.len();
    let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(codes.len(), count);
    assert!(Reason::ALL.is_sorted_by_key(|reason| reason.as_str()));
    let sentences: BTreeSet<_> = Reason::ALL
        .iter()
        .flat_map(|reason| [reason.sentence_when_allowed(), reason.sentence_when_refused()])
        .collect();
    assert_eq!(sentences.len(), 2 * count);
}

#[test]
fn a_set_of_reasons_holds_each_once() {
    let reasons: Reasons = [Reason::UserOk, Reason::Accept, Reason::UserOk].into_iter().collect();
    assert_eq!(reasons.iter().collect::<Vec<_>>(), [Reason::Accept, Reason::UserOk]);
    assert_eq!(format!("{reasons} {reasons:?}"), "accept,user-ok {Accept, UserOk}");
    assert!(Reasons::NONE.is_empty() && !reasons.is_empty());
    assert_eq!(Reason::ALL.iter().copied().collect::<Reasons>().iter().count(), Reason::ALL.len());
}

#[test]
fn a_verdict_is_allow_only_if_allow_is_true_and_deny_is_not() {
    for (allow, deny) in [(false, false), (false, true), (true, false), (true, true)] {
        let part = |value| Evaluation { value, reasons: Reasons::NONE };
        let verdict = Decision { allow: part(allow), deny: part(deny) }.verdict();
        assert_eq!(verdict == Verdict::Allow, allow && !deny);
    }
}

fn part(value: bool, reasons: &[Reason]) -> Evaluation {
    Evaluation { value, reasons: reasons.iter().copied().collect() }
}

/// The order of the steps: certificate, person, device, deny, allow.
#[test]
fn the_first_step_that_applies_decides_what_is_answered() {
    use Reason as R;
    let deny = |status| Verdict::Deny { status };
    for (allow, denied, verdict) in [
        (part(true, &[R::Accept]), part(true, &[R::ClientCertificateRequired]), deny(495)),
        (part(false, &[R::UserUnauthenticated]), part(true, &[R::InvalidClientCertificate]), deny(495)),
        (part(true, &[R::Accept]), part(false, &[R::ClientCertificateRequired]), Verdict::Allow),
        (part(true, &[R::UserUnauthenticated]), part(false, &[R::DeviceUnauthenticated]), Verdict::SignIn),
        (part(true, &[R::Accept]), part(false, &[R::UserUnauthenticated]), Verdict::SignIn),
        (part(true, &[R::Accept]), part(false, &[R::DeviceUnauthenticated]), deny(450)),
        (part(false, &[R::DeviceUnauthenticated]), part(false, &[]), deny(450)),
        (part(false, &[R::DeviceUnauthorized]), part(false, &[]), deny(450)),
        (part(true, &[R::Accept]), part(true, &[R::DeviceUnauthorized]), deny(450)),
        (part(true, &[R::Accept]), part(false, &[R::DeviceUnauthorized]), Verdict::Allow),
        (part(false, &[R::ClientCertificateUnauthorized]), part(false, &[]), deny(495)),
        (part(false, &[R::ClientCertificateRequired]), part(false, &[]), deny(495)),
        (part(false, &[R::PostureUnknown]), part(false, &[]), deny(403)),
        (part(false, &[R::DeviceUnauthorized]), part(true, &[R::EmailOk]), deny(403)),
    ] {
        assert_eq!(Decision { allow, deny: denied }.verdict(), verdict, "{allow:?} {denied:?}");
    }
}
