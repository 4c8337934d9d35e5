//! External data.

use std::net::IpAddr;

use super::{
    super::{CheckRequest, Records, RequestFacts},
    alice, allow, asked_by, get, is, laptop,
};
use crate::session::Session;

const DATA: &str = "
on-call:
  u-alice: {team: db, teams: [db, web], until: '2026-03-01', level: 3, 'a.b': literal, nested: {team: sre}, gone: ~}
inventory:
  laptop: {owner: alice}
people:
  alice@corp.example: {badge: 7}
addresses:
  192.0.2.7: {site: zurich}
  2001:db8::1: {site: tokyo}
hosts:
  app.corp.example: {frozen: false}
sessions:
  session-1: {score: 0.25}
";

fn records() -> Records {
    Records::from_node(&crate::yaml::parse(DATA).unwrap()).unwrap()
}

#[test]
fn a_field_of_a_record_is_compared_in_each_way() {
    let (records, alice) = (records(), alice());
    let check = CheckRequest { records: Some(&records), ..asked_by(Some(&alice)) };
    for (tests, expected) in [
        ("field: team, is: db", true),
        ("field: team, '=': db", true),
        ("field: team, is: web", false),
        ("field: team, in: [web, db]", true),
        ("field: teams, is: web", true),
        ("field: teams, is: sre", false),
        ("field: team, exists: true", true),
        ("field: team, exists: false", false),
        ("field: missing, exists: true", false),
        ("field: missing, exists: false", true),
        ("field: gone, exists: false", true),
        ("field: until, '>=': '2026-02-28'", true),
        ("field: until, '<': '2026-02-28'", false),
        ("field: level, '>': 2", true),
        ("field: level, '>': 3", false),
        ("field: level, '>=': 3, '<=': 3", true),
        ("field: level, '<': 2.5", false),
        ("field: level, '<': '9'", false),
        ("field: level, is: '3'", false),
        ("field: level, is: 3", true),
        ("field: a.b, is: literal", true),
        ("field: nested.team, is: sre", true),
        ("field: nested, is: sre", false),
        ("field: team.deeper, exists: true", false),
    ] {
        let reason = if expected { "record-ok" } else { "record-unauthorized" };
        let criterion = format!("record: {{type: on-call, {tests}}}");
        assert_eq!(allow(&criterion, &check), is(expected, reason), "{criterion}");
    }
}

#[test]
fn a_record_is_found_by_the_fact_that_the_rule_names() {
    let (records, alice, laptop) = (records(), alice(), laptop());
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    let check = CheckRequest { records: Some(&records), device: Some(&laptop), ..asked_by(Some(&alice)) };
    for criterion in [
        "record: {type: on-call, key: user_id, field: team, is: db}",
        "record: {type: people, key: email, field: badge, is: 7}",
        "record: {type: inventory, key: device_id, field: owner, is: alice}",
        "record: {type: sessions, key: session_id, field: score, '<': 0.5}",
        "record: {type: hosts, key: host, field: frozen, is: false}",
        "record: {type: addresses, key: source_ip, field: site, is: zurich}",
    ] {
        assert_eq!(allow(criterion, &check), is(true, "record-ok"), "{criterion}");
    }
    let from = |source_ip| CheckRequest { request: RequestFacts { source_ip, ..get("/") }, ..check };
    assert!(allow("record: {type: addresses, key: source_ip, field: site, is: tokyo}", &from(v6)).0);
    assert!(allow("record: {type: addresses, key: source_ip, field: site, is: zurich}", &from(mapped)).0);
}

#[test]
fn data_that_is_not_there_satisfies_nothing() {
    let (records, alice) = (records(), alice());
    let nobodys = Session { email: String::new(), ..alice.clone() };
    let none = asked_by(Some(&alice));
    let some = CheckRequest { records: Some(&records), ..none };
    for (criterion, check) in [
        ("record: {type: on-call, field: team, exists: false}", none),
        ("record: {type: no-such-type, field: team, exists: false}", some),
        (
            "record: {type: people, key: email, field: badge, exists: false}",
            CheckRequest { session: Some(&nobodys), ..some },
        ),
        ("record: {type: inventory, key: device_id, field: owner, exists: false}", some),
    ] {
        assert_eq!(allow(criterion, &check), is(false, "record-unauthorized"), "{criterion}");
    }
    let stranger = CheckRequest { session: None, ..some };
    let of_person = "record: {type: on-call, field: team, exists: false}";
    assert_eq!(allow(of_person, &stranger), is(false, "user-unauthenticated"));
    let of_host = "record: {type: hosts, key: host, field: frozen, is: false}";
    assert_eq!(allow(of_host, &stranger), is(true, "record-ok"));
}

#[test]
fn records_of_another_shape_are_refused_with_their_place() {
    for (text, message) in [
        ("- a", "1:1: expected types of records, each with its records by id, found a list"),
        ("a:\n  - b", "2:3: expected records by id, found a list"),
        ("a:\n  b: 5", "2:6: expected a record: fields with values, found a number"),
    ] {
        let error = Records::from_node(&crate::yaml::parse(text).unwrap()).unwrap_err();
        assert_eq!(format!("{}: {error}", error.at), message);
    }
}
