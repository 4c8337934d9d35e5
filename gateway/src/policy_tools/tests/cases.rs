use proptest::prelude::*;

use super::{super::cases, now, routes};

const ROUTES: &str = r#"
- name: app
  from: https://app.corp.example
  to: http://a:1
  policy:
    - allow: {and: [{domain: corp.example}, {http_method: GET}]}
    - deny: {or: [{claim/suspended: true}, {source_ip: 203.0.113.0/24}]}
- name: mtls
  from: https://mtls.corp.example
  to: http://a:1
  policy:
    - allow: {and: [{accept: 1}, {network/country: CH}, {time_of_day: {timezone: UTC, after: 9AM, before: 5PM}}]}
    - deny: {or: [{invalid_client_certificate: 1}]}
"#;

/// What running one case says: `None` when it passes.
fn failure(case: &str) -> Option<String> {
    let cases = cases::parse(&format!("- {{route: app, {case}}}"), "cases.yaml")
        .unwrap_or_else(|said| panic!("{said:?}"));
    let (text, failed) = cases::run(&cases, &routes(ROUTES), "cases.yaml", now());
    (failed > 0).then_some(text)
}

fn mistakes(text: &str) -> Vec<String> {
    cases::parse(text, "cases.yaml")
        .map(|_| Vec::new())
        .unwrap_or_else(|said| said.iter().map(ToString::to_string).collect())
}

#[test]
fn a_case_passes_when_the_answer_and_its_reasons_are_as_expected() {
    for case in [
        "email: a@corp.example, expect: allow",
        "email: a@corp.example, expect: allow, reasons: [domain-ok, http-method-ok]",
        "user: a@corp.example, expect: allow",
        "email: a@corp.example, method: POST, expect: deny, reasons: http-method-unauthorized",
        "email: a@corp.example, claims: {suspended: true}, expect: deny, reasons: [claim-ok]",
        "email: a@corp.example, claims: {suspended: [false, true]}, expect: deny",
        "email: a@corp.example, claims: {suspended: \"true\"}, expect: allow",
        "email: a@corp.example, ip: 203.0.113.9, expect: deny",
        "email: a@corp.example, signed_in_at: 2025-12-31T00:00:00Z, bound: true, expect: allow",
        "email: a@corp.example, device: {id: d, kind: webauthn_enclave, approved: true}, posture: {os: linux}, expect: allow",
        "expect: sign-in, reasons: [user-unauthenticated]",
    ] {
        assert_eq!(failure(case), None, "{case}");
    }
}

#[test]
fn a_case_says_where_when_and_with_what_certificate() {
    let run = |case: &str| {
        let text = format!("- {{route: mtls, country: CH, {case}}}");
        let cases = cases::parse(&text, "cases.yaml").unwrap_or_else(|said| panic!("{said:?}"));
        cases::run(&cases, &routes(ROUTES), "cases.yaml", now())
    };
    for case in [
        "certificate: valid, expect: allow",
        "certificate: invalid, expect: deny, reasons: [invalid-client-certificate]",
        "expect: deny, reasons: [client-certificate-required]",
        "certificate: valid, time: 2026-11-23T17:00:00Z, expect: deny, reasons: [time-of-day-unauthorized]",
        "certificate: valid, time: 2026-11-23T17:00:00+01:00, expect: allow",
    ] {
        let (text, failed) = run(case);
        assert_eq!(failed, 0, "{text}");
    }
}

#[test]
fn a_case_fails_when_they_are_not_and_says_how_it_came() {
    for (case, why) in [
        ("email: a@corp.example, expect: deny", "expected deny, got allow (domain-ok,http-method-ok)"),
        ("email: b@other.example, expect: allow", "expected allow, got deny (domain-unauthorized)"),
        ("expect: deny", "expected deny, got sign-in (source-ip-unauthorized,user-unauthenticated)"),
        ("expect: deny", "claim/suspended has true: skipped (user-unauthenticated)"),
        (
            "email: a@corp.example, expect: allow, reasons: [email-ok]",
            "expected allow (email-ok), got allow (domain-ok,http-method-ok)",
        ),
        ("route: nowhere, name: lost, expect: deny", "there is no route of the name or id \"nowhere\""),
    ] {
        let case = case.strip_prefix("route: nowhere, ").map_or_else(
            || failure(case),
            |rest| {
                let cases = cases::parse(&format!("- {{route: nowhere, {rest}}}"), "cases.yaml").unwrap();
                Some(cases::run(&cases, &routes(ROUTES), "cases.yaml", now()).0)
            },
        );
        let text = case.unwrap();
        assert!(text.contains(why) && text.contains("FAILED") && text.contains("(cases.yaml:1:3)"), "{text}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    assert_eq!(mistakes("[]"), ["cases.yaml:1:1: expected a list of cases"]);
    assert_eq!(mistakes("route: app"), ["cases.yaml:1:1: expected a list of cases"]);
    assert_eq!(mistakes("- 1"), ["cases.yaml:1:3: expected a mapping of keys to values, found a number"]);
    assert!(mistakes("- [")[0].starts_with("cases.yaml:"), "{:?}", mistakes("- ["));
    let text = "\
- name: x
  rout: app
  expect: maybe
  ip: here
  time: 9 o'clock
  claims: {address: {country: CH}}
  reasons: [emial-ok]
  groups: [1]
  bound: 1
  asn: -1
  certificate: mine
  device: {kind: toaster}
  posture: {os: linux, fire: true}
";
    assert_eq!(
        mistakes(text),
        [
            "cases.yaml:2:3: rout: unknown key; did you mean \"route\"?",
            "cases.yaml:1:3: route: is missing",
            "cases.yaml:5:9: time: expected a time with its zone, like 2026-11-23T09:00:00Z",
            "cases.yaml:13:12: posture: unknown field `fire`, expected one of `os`, `os_version`, `client_version`, \
             `hostname`, `disk_encryption`, `firewall`, `screen_lock`",
            "cases.yaml:12:18: device.kind: expected client_key, webauthn_any or webauthn_enclave",
            "cases.yaml:3:11: expect: expected allow, deny or sign-in",
            "cases.yaml:8:12: groups: expected a text, found a number",
            "cases.yaml:6:21: claims.address: expected a value or a list of values; write a nested claim as outer.inner",
            "cases.yaml:9:10: bound: expected true or false, found a number",
            "cases.yaml:4:7: ip: expected an address, like 192.0.2.7 or 2001:db8::7",
            "cases.yaml:10:8: asn: expected the number of an autonomous system",
            "cases.yaml:11:16: certificate: expected valid or invalid",
            "cases.yaml:7:13: reasons: unknown reason code; did you mean \"email-ok\"?",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-z0-9:{}\\[\\], \n\"']{0,200}") {
        let _ = cases::parse(&text, "cases.yaml");
    }

    #[test]
    fn no_value_of_a_key_makes_a_case_of_nonsense(key in prop::sample::select(vec!["time", "ip", "expect", "posture", "device", "claims", "groups", "bound"]), value in "[a-z0-9{}\\[\\]:, ]{1,20}") {
        // Whatever is read is a whole case; whatever is not is said with its line.
        let text = format!("- route: app\n  expect: allow\n  email: a@b.example\n  {key}: {value}\n");
        match cases::parse(&text, "cases.yaml") {
            Ok(cases) => prop_assert_eq!(cases.len(), 1),
            Err(said) => prop_assert!(said.iter().all(|diagnostic| diagnostic.at.is_some())),
        }
    }
}
