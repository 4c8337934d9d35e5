//! What must never load, and what must never count: policies and claims as an attacker, or a tired person, writes them.

use serde_json::{Value as Json, json};

use super::{super::ppl, alice, allow, asked_by};
use crate::{session::Session, yaml};

fn load_error(text: &str) -> String {
    match yaml::parse(text) {
        Err(error) => format!("{}: {error}", error.at().map_or_else(|| "-".to_owned(), |at| at.to_string())),
        Ok(node) => match ppl::parse(&node) {
            Err(errors) => format!("{}: {}", errors[0].at, errors[0]),
            Ok(_) => panic!("it loads: {}", &text[..text.len().min(200)]),
        },
    }
}

fn criterion_error(criterion: &str) -> String {
    load_error(&format!("allow:\n  or:\n  - {criterion}\n"))
}

#[test]
fn ten_megabytes_and_two_hundred_levels_do_not_load() {
    let long = format!("allow:\n  or:\n{}", "  - email: alice@corp.example\n".repeat(350_000));
    assert_eq!(load_error(&long), "-: the text is larger than 10 MiB");
    let many = format!("allow:\n  or:\n{}", "  - email: a@b\n".repeat(600_000));
    assert!(load_error(&many).ends_with("there are more than 1000000 values"));
    let deep = format!("allow:\n  or:\n  - email: {}x{}\n", "[".repeat(200), "]".repeat(200));
    assert_eq!(load_error(&deep), "3:72: lists and mappings are nested more than 64 deep");
    let nested = format!("{}{}", "{allow: ".repeat(200), "}".repeat(200));
    assert!(load_error(&nested).ends_with("lists and mappings are nested more than 64 deep"));
    let blocks = "allow: {or: [or: [email: a@b.example]]}";
    assert!(load_error(blocks).starts_with("1:14: \"or\" is not a criterion"), "{}", load_error(blocks));
}

/// There is no regular expression in the language: what looks like one is compared as it stands.
#[test]
fn a_pattern_is_a_text_like_any_other() {
    let bomb = "(a+)+$";
    let session = Session { email: "a".repeat(50_000) + "!", ..alice() };
    assert!(!allow(&format!("email: '{bomb}'"), &asked_by(Some(&session))).0);
    assert!(!allow("email: '.*'", &asked_by(Some(&session))).0);
    assert!(
        criterion_error(&format!("email: {{regex: '{bomb}'}}")).starts_with("3:13: \"regex\" is not a key")
    );
    assert!(criterion_error(&format!("email: {{matches: '{bomb}'}}")).contains("\"matches\" is not a key"));
}

/// A criterion, and how the message about it begins: place, what is wrong, what belongs there.
const WRONG: &[(&str, &str)] = &[
    ("date: 2026-03-01", "3:11: expected a mapping such as `after: 2026-03-01`, found a text"),
    (
        "date: {after: soon}",
        "3:19: \"soon\" is not a date or a moment, such as 2026-03-01 or 2026-03-01T09:00:00Z",
    ),
    ("date: {after: 2026-02-30}", "3:19: \"2026-02-30\" is not a date"),
    ("date: {after: 20260301}", "3:19: expected a text, found a number: put it in quotes"),
    (
        "date: {after: '2026-03-01T09:00[Europe/Zurich]'}",
        "3:19: \"2026-03-01T09:00[Europe/Zurich]\" is not a date",
    ),
    (
        "date: {after: 2026-03-02, before: 2026-03-01}",
        "3:11: no moment is after the first and before the second",
    ),
    ("date: {after: 2026-03-01, before: 2026-03-01}", "3:11: no moment is after the first"),
    ("date: {timezone: UTC}", "3:11: `after` or `before` is missing here"),
    ("day_of_week: monday", "3:18: \"monday\" is not days of the week, such as mon-fri"),
    ("day_of_week: mon..fri", "3:18: \"mon..fri\" is not days of the week"),
    ("day_of_week: ''", "3:18: \"\" is not days of the week"),
    ("day_of_week: {is: mon}", "3:18: `timezone` is missing here"),
    ("time_of_day: {after: 9AM}", "3:18: `timezone` is missing here"),
    ("time_of_day: {timezone: UTC}", "3:18: `after` or `before` is missing here"),
    (
        "time_of_day: {timezone: Mars/Olympus, after: 9AM}",
        "3:29: \"Mars/Olympus\" is not a time zone by its name",
    ),
    (
        "time_of_day: {timezone: /etc/passwd, after: 9AM}",
        "3:29: \"/etc/passwd\" is not a time zone by its name",
    ),
    (
        "time_of_day: {timezone: Etc/Unknown, after: 9AM}",
        "3:29: \"Etc/Unknown\" is not a time zone by its name",
    ),
    ("time_of_day: {timezone: UTC, after: 25:00}", "3:41: \"25:00\" is not a time of day"),
    ("time_of_day: {timezone: UTC, after: 13PM}", "3:41: \"13PM\" is not a time of day"),
    ("time_of_day: {timezone: UTC, after: 0AM}", "3:41: \"0AM\" is not a time of day"),
    ("time_of_day: {timezone: UTC, after: 9}", "3:41: expected a text, found a number"),
    ("time_of_day: {timezone: UTC, after: '9'}", "3:41: \"9\" is not a time of day"),
    ("time_of_day: {timezone: UTC, after: '12:30.5'}", "3:41: \"12:30.5\" is not a time of day"),
    ("time_of_day: {timezone: UTC, after: 9AM, before: '09:00'}", "3:18: no moment is after the first"),
    (
        "time_of_day: {timezone: UTC, afer: 9AM}",
        "3:34: \"afer\" is not a key of this matcher: did you mean `after`?",
    ),
    ("session/age: 8h", "3:18: expected a mapping such as `at_most: 8h`, found a text"),
    ("session/age: {at_most: 8}", "3:28: expected a text, found a number"),
    ("session/age: {at_most: 0s}", "3:28: \"0s\" is not a duration above zero with its unit"),
    ("session/age: {at_most: -1h}", "3:28: \"-1h\" is not a duration above zero"),
    ("session/bound: false", "3:20: `session/bound: false` would mean the same"),
    ("posture/firewall: false", "3:23: `posture/firewall: false` would mean the same"),
    ("posture/os: darwin", "3:17: \"darwin\" is not an operating system: linux, macos or windows"),
    ("posture/os: {not_in: [Windows]}", "3:17: \"Windows\" is not an operating system"),
    ("posture/os_version: {at_least: 12.10}", "3:36: expected a text, found a number: put it in quotes"),
    ("posture/os_version: {at_least: v12}", "3:36: \"v12\" is not a version"),
    ("posture/oss: linux", "3:5: \"posture/oss\" is not a criterion: did you mean `posture/os`?"),
    ("posture: linux", "3:5: \"posture\" is not a criterion"),
    ("network/country: ch", "3:22: \"ch\" is not a country by its two letters"),
    ("network/country: {not_in: [Switzerland]}", "3:22: \"Switzerland\" is not a country"),
    ("network/asn: AS64500", "3:18: expected the number of an autonomous system"),
    ("network/asn: -1", "3:18: expected the number of an autonomous system"),
    ("network/asn: {in: [1], not_in: [2]}", "3:18: expected either `in` or `not_in`, found a mapping"),
    ("auth/method: 5", "3:18: expected a text, found a number"),
    ("device: {}", "3:13: expected a mapping such as `approved: true`, found an empty mapping"),
    ("device: {approved: yes}", "3:24: expected true or false, found a text"),
    ("device: {type: tpm}", "3:20: \"tpm\" is not a type of device: any or enclave_only"),
    ("device: {is: ''}", "3:18: \"\" is not a device's id"),
    (
        "client_certificate: {}",
        "3:25: expected a mapping such as `fingerprint: TEXT`, found an empty mapping",
    ),
    ("client_certificate: []", "3:25: expected a list of at least one entry"),
    ("client_certificate: {fingerprint: abc}", "3:39: \"abc\" is not the SHA-256 of a certificate"),
    ("client_certificate: {fingerprint: []}", "3:39: expected a list of at least one entry"),
    ("client_certificate: {spki_hash: abc}", "3:37: \"abc\" is not the SHA-256 of a public key in Base64"),
    ("client_certificate: {san: x}", "3:26: \"san\" is not a key of this matcher"),
    ("record: {type: t, field: f}", "3:13: a test, such as `is` or `exists` is missing here"),
    ("record: {field: f, is: x}", "3:13: `type` is missing here"),
    ("record: {type: t, is: x}", "3:13: `field` is missing here"),
    ("record: {type: t, field: f, key: user, is: x}", "3:38: \"user\" is not one of user_id, email"),
    ("record: {type: t, field: f, '<': true}", "3:38: expected a number or a text to compare with"),
    ("record: {type: t, field: f, in: x}", "3:37: expected a list of values, found a text"),
    ("record: {type: t, field: f, operator: is}", "3:33: \"operator\" is not a key of this matcher"),
    ("ssh_publickey: AAAA", "3:20: \"AAAA\" is not a public key of SSH"),
    (
        "ssh_publickey: ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAAB",
        "3:20: \"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAAB\" is not a public key",
    ),
    ("ssh_username_matches_claim: ''", "3:33: \"\" is not a claim's name"),
    ("ssh_username_matches_email: false", "3:33: `ssh_username_matches_email: false` would mean the same"),
    ("date/x: {after: 2026-03-01}", "3:5: the criterion `date` takes no path after a slash"),
];

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_belongs_there() {
    for (criterion, message) in WRONG {
        let actual = criterion_error(criterion);
        assert!(actual.starts_with(message), "{criterion}\n  {actual}\n  {message}");
    }
}

/// Claims that are not what the rule means, each a way in that somebody has found somewhere.
#[test]
fn claims_that_only_look_right_allow_nobody() {
    let deep = (0..120).fold(json!("ops"), |inner, _| json!({ "department": inner }));
    let huge = Json::from("ops ".repeat(1_000_000));
    let many: Vec<Json> = (0..100_000).map(Json::from).collect();
    let strange: Vec<(&str, Vec<Json>)> = vec![
        ("department", vec![json!(["ops"])]),
        ("department", vec![json!({ "ops": true })]),
        ("department", vec![deep]),
        ("department", vec![huge]),
        ("department", many),
        ("department", vec![json!(" ops")]),
        ("department", vec![json!("OPS")]),
        ("department", vec![json!("ops\0")]),
        ("department", vec![json!("оps")]),
        ("department", vec![json!(null), json!(true), json!(0)]),
        ("department", vec![]),
        ("Department", vec![json!("ops")]),
        ("department ", vec![json!("ops")]),
        ("department\u{200b}", vec![json!("ops")]),
        ("dеpartment", vec![json!("ops")]),
        ("user.department", vec![json!("ops")]),
        ("department.0", vec![json!("ops")]),
    ];
    for (claim, values) in strange {
        let session = Session { claims: [(claim.to_owned(), values)].into(), groups: vec![], ..alice() };
        for criterion in
            ["claim/department: ops", "claim/department: {is: ops}", "groups: ops", "auth/method: ops"]
        {
            let result = allow(criterion, &asked_by(Some(&session)));
            assert!(!result.0, "{criterion} {claim:?}");
        }
    }
}

#[test]
fn numbers_and_truths_in_claims_are_not_texts() {
    for value in [json!(1), json!(1.0), json!(true), json!("true"), json!(u64::MAX), json!(1e300)] {
        let session = Session { claims: [("x".to_owned(), vec![value.clone()])].into(), ..alice() };
        let check = asked_by(Some(&session));
        assert_eq!(allow("claim/x: true", &check).0, value == json!(true), "{value}");
        assert!(!allow("claim/x: '1'", &check).0, "{value}");
        assert_eq!(allow("claim/x: 1", &check).0, value == json!(1) || value == json!(1.0), "{value}");
    }
}

/// A claim that a provider lets people choose must not pass for what the gateway itself knows.
#[test]
fn claims_named_like_facts_of_the_gateway_are_only_claims() {
    let facts =
        ["email", "groups", "user", "sub", "device", "approved", "session/bound", "network/country", "amr "];
    let claims = facts.map(|fact| (fact.to_owned(), vec![json!("sales"), json!(true), json!("CH")])).into();
    let session = Session { claims, ..alice() };
    for criterion in [
        "groups: sales",
        "email: sales",
        "user: sales",
        "device: {approved: true}",
        "session/bound: true",
        "network/country: CH",
        "auth/method: sales",
    ] {
        assert!(!allow(criterion, &asked_by(Some(&session))).0, "{criterion}");
    }
}
