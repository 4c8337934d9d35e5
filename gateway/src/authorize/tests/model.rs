//! The engine against a naive model that shares nothing with it but the words.

use std::{collections::BTreeSet, time::Duration};

use pomerium_shared::clock::Now;
use proptest::prelude::*;

use super::{
    super::{CheckRequest, Place, Policy, PresentedCertificate, Records, RequestFacts, Verdict},
    alice, asked_by, get, laptop, now,
};
use crate::{
    device::{Device, Thumbprint},
    session::Session,
};

/// A criterion as text, and its answer with its reason in each of the worlds: for nobody, for alice without a device,
/// for alice on a laptop that is in order, and for her on one that is not.
type Sample = (&'static str, [&'static str; 4]);

const SAMPLES: &[Sample] = &[
    ("accept: 1", ["+accept"; 4]),
    ("reject: 1", ["-reject"; 4]),
    ("authenticated_user: 1", ["-user-unauthenticated", "+user-ok", "+user-ok", "+user-ok"]),
    ("email: alice@corp.example", ["-user-unauthenticated", "+email-ok", "+email-ok", "+email-ok"]),
    (
        "email: bob@corp.example",
        ["-user-unauthenticated", "-email-unauthorized", "-email-unauthorized", "-email-unauthorized"],
    ),
    ("domain: corp.example", ["-user-unauthenticated", "+domain-ok", "+domain-ok", "+domain-ok"]),
    (
        "user: u-bob",
        ["-user-unauthenticated", "-user-unauthorized", "-user-unauthorized", "-user-unauthorized"],
    ),
    ("groups: sre", ["-user-unauthenticated", "+groups-ok", "+groups-ok", "+groups-ok"]),
    (
        "claim/department: hr",
        ["-user-unauthenticated", "-claim-unauthorized", "-claim-unauthorized", "-claim-unauthorized"],
    ),
    ("http_method: GET", ["+http-method-ok"; 4]),
    ("http_path: /x", ["-http-path-unauthorized"; 4]),
    ("source_ip: 10.0.0.0/8", ["-source-ip-unauthorized"; 4]),
    ("cors_preflight: 1", ["-non-cors-request"; 4]),
    ("pomerium_routes: 1", ["-non-pomerium-route"; 4]),
    ("network/country: CH", ["-country-unauthorized", "+country-ok", "+country-ok", "-country-unauthorized"]),
    (
        "network/asn: {not_in: 64500}",
        ["-asn-unauthorized", "-asn-unauthorized", "-asn-unauthorized", "+asn-ok"],
    ),
    ("date: {after: 2027-01-01}", ["+date-ok"; 4]),
    ("day_of_week: mon-thu", ["-day-of-week-unauthorized"; 4]),
    ("time_of_day: {timezone: UTC, after: 8AM}", ["+time-of-day-ok"; 4]),
    (
        "session/age: {at_most: 1h}",
        ["-user-unauthenticated", "+session-age-ok", "+session-age-ok", "-session-age-unauthorized"],
    ),
    (
        "session/bound: 1",
        [
            "-user-unauthenticated",
            "-session-bound-unauthorized",
            "+session-bound-ok",
            "-session-bound-unauthorized",
        ],
    ),
    (
        "auth/method: otp",
        [
            "-user-unauthenticated",
            "-auth-method-unauthorized",
            "+auth-method-ok",
            "-auth-method-unauthorized",
        ],
    ),
    (
        "device: {approved: true}",
        ["-user-unauthenticated", "-device-unauthenticated", "+device-ok", "-device-unauthorized"],
    ),
    (
        "posture/firewall: 1",
        [
            "-user-unauthenticated",
            "-posture-unknown",
            "+posture-firewall-ok",
            "-posture-firewall-unauthorized",
        ],
    ),
    (
        "posture/age: {at_most: 1h}",
        ["-user-unauthenticated", "-posture-unknown", "+posture-age-ok", "-posture-age-unauthorized"],
    ),
    (
        "client_certificate: {fingerprint: '0000000000000000000000000000000000000000000000000000000000000000'}",
        [
            "-client-certificate-required",
            "-client-certificate-unauthorized",
            "-client-certificate-unauthorized",
            "-invalid-client-certificate",
        ],
    ),
    (
        "invalid_client_certificate: 1",
        [
            "+client-certificate-required",
            "-valid-client-certificate",
            "-valid-client-certificate",
            "+invalid-client-certificate",
        ],
    ),
    (
        "record: {type: on-call, field: team, is: db}",
        ["-user-unauthenticated", "+record-ok", "+record-ok", "+record-ok"],
    ),
    ("mcp_tool: search", ["-mcp-not-a-tool-call"; 4]),
    ("ssh_username: alice", ["-ssh-username-unauthorized"; 4]),
];

/// The facts of one of the worlds.
pub(super) struct World {
    pub(super) session: Option<Session>,
    device: Option<Device>,
    certificate: Option<PresentedCertificate>,
    place: Place<'static>,
    pub(super) records: Records,
}

impl World {
    pub(super) fn of(number: usize) -> Self {
        let mut session = alice();
        let mut device = laptop();
        let certificate = |is_valid| Some(PresentedCertificate { leaf: vec![0x30, 0], is_valid });
        let place = Place { country: Some("CH"), asn: Some(64_500) };
        let records = crate::yaml::parse("on-call: {u-alice: {team: db}}").unwrap();
        let records = Records::from_node(&records).unwrap();
        match number {
            0 => Self { session: None, device: None, certificate: None, place: Place::default(), records },
            1 => {
                Self { session: Some(session), device: None, certificate: certificate(true), place, records }
            }
            2 => {
                session.bound_to = Some(Thumbprint::of(b"key"));
                session.claims.insert("amr".to_owned(), vec!["otp".into()]);
                Self {
                    session: Some(session),
                    device: Some(device),
                    certificate: certificate(true),
                    place,
                    records,
                }
            }
            _ => {
                session.issued_at = now().wall - Duration::from_secs(7200);
                device.is_approved = false;
                let (report, received_at) = device.posture.as_mut().unwrap();
                report.firewall = Some(false);
                *received_at = now().wall + Duration::from_secs(1);
                let place = Place { country: Some("LI"), asn: Some(64_501) };
                Self {
                    session: Some(session),
                    device: Some(device),
                    certificate: certificate(false),
                    place,
                    records,
                }
            }
        }
    }

    pub(super) fn check(&self) -> CheckRequest<'_> {
        let request =
            RequestFacts { certificate: self.certificate.as_ref(), place: self.place, ..get("/docs") };
        let device = self.device.as_ref();
        CheckRequest { request, device, records: Some(&self.records), ..asked_by(self.session.as_ref()) }
    }
}

/// Rules with blocks with groups: action, then operators with the numbers of samples.
pub(super) type Blueprint = Vec<Vec<(&'static str, Vec<(&'static str, Vec<usize>)>)>>;
type Answer = (bool, BTreeSet<&'static str>);

pub(super) fn blueprint() -> impl Strategy<Value = Blueprint> {
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

pub(super) fn text(blueprint: &Blueprint) -> String {
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

fn model(blueprint: &Blueprint, wanted: &str, world: usize) -> Answer {
    let answer = |criterion: &usize| {
        let text = SAMPLES[*criterion].1[world];
        (text.starts_with('+'), BTreeSet::from([&text[1..]]))
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

/// What follows from both answers, step by step.
fn verdict(allow: &Answer, deny: &Answer) -> Verdict {
    let no_certificate = ["client-certificate-required", "invalid-client-certificate"];
    if deny.0 && no_certificate.iter().any(|code| deny.1.contains(code)) {
        return Verdict::Deny { status: 495 };
    }
    let either = |code| allow.1.contains(code) || deny.1.contains(code);
    if either("user-unauthenticated") {
        return Verdict::SignIn;
    }
    if either("device-unauthenticated") {
        return Verdict::Deny { status: 450 };
    }
    if allow.0 && !deny.0 {
        return Verdict::Allow;
    }
    let seen = if deny.0 { &deny.1 } else { &allow.1 };
    let status = if seen.contains("device-unauthorized") {
        450
    } else if seen
        .iter()
        .any(|code| no_certificate.contains(code) || *code == "client-certificate-unauthorized")
    {
        495
    } else {
        403
    };
    Verdict::Deny { status }
}

#[test]
fn every_sample_answers_as_the_model_says_in_each_world() {
    for (criterion, answers) in SAMPLES {
        for (number, expected) in answers.iter().enumerate() {
            let world = World::of(number);
            let (value, reasons) = super::allow(criterion, &world.check());
            let sign = if value { '+' } else { '-' };
            assert_eq!(format!("{sign}{reasons}"), *expected, "{criterion} in world {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn evaluation_equals_the_naive_model(blueprint in blueprint(), number in 0..4_usize) {
        let world = World::of(number);
        let policy = Policy::from_yaml(&text(&blueprint));
        let decision = policy.evaluate(&world.check());
        let actual = [decision.allow, decision.deny]
            .map(|part| (part.value, part.reasons.iter().map(|reason| reason.as_str()).collect()));
        let expected = ["allow", "deny"].map(|action| model(&blueprint, action, number));
        prop_assert_eq!(&actual, &expected);
        prop_assert_eq!(decision.verdict(), verdict(&expected[0], &expected[1]));
    }

    /// Whatever is said to help is said to somebody who is refused; and an open door needs no help.
    #[test]
    fn remedies_are_for_the_refused_alone(blueprint in blueprint(), number in 0..4_usize) {
        let world = World::of(number);
        let policy = Policy::from_yaml(&text(&blueprint));
        if policy.evaluate(&world.check()).verdict() == Verdict::Allow {
            prop_assert!(policy.remedies(&world.check()).is_empty());
        }
    }

    /// Zurich's clock by arithmetic: one hour ahead of UTC, two between the last Sundays of March and October 2026.
    #[test]
    fn the_wall_clock_equals_the_naive_one(
        second in 1_767_225_600..1_798_761_600_i64,
        after in 0..1440_i64,
        before in 0..1440_i64,
        first in 0..7_usize,
        last in 0..7_usize,
    ) {
        prop_assume!(after != before);
        let offset = if (1_774_746_000..1_792_890_000).contains(&second) { 7200 } else { 3600 };
        let local = second + offset;
        let minute = local.rem_euclid(86_400) / 60;
        // 1970 began on a Thursday.
        let day = usize::try_from(local.div_euclid(86_400) + 3).unwrap() % 7;
        let in_time = if after < before { (after..before).contains(&minute) } else { minute >= after || minute < before };
        let in_days = if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last };
        let words = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let times = format!(
            "time_of_day: {{timezone: Europe/Zurich, after: '{:02}:{:02}', before: '{:02}:{:02}'}}",
            after / 60, after % 60, before / 60, before % 60
        );
        let days = format!("day_of_week: {{is: {}-{}, timezone: Europe/Zurich}}", words[first], words[last]);
        let check = asked_by(None);
        let wall = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(second).unwrap());
        let check = CheckRequest { now: Now { wall, ..check.now }, ..check };
        prop_assert_eq!(super::allow(&times, &check).0, in_time);
        prop_assert_eq!(super::allow(&days, &check).0, in_days);
    }

    #[test]
    fn versions_compare_as_lists_of_numbers(
        reported in prop::collection::vec(0..4_u64, 1..5),
        wanted in prop::collection::vec(0..4_u64, 1..5),
    ) {
        let text = |parts: &[u64]| parts.iter().map(u64::to_string).collect::<Vec<_>>().join(".");
        let padded = |parts: &[u64]| [parts, &[0; 5]].concat()[..5].to_vec();
        let mut device = laptop();
        device.posture.as_mut().unwrap().0.os_version = text(&reported);
        let alice = alice();
        let check = CheckRequest { device: Some(&device), ..asked_by(Some(&alice)) };
        let criterion = format!("posture/os_version: {{at_least: '{}'}}", text(&wanted));
        prop_assert_eq!(super::allow(&criterion, &check).0, padded(&reported) >= padded(&wanted));
    }
}
