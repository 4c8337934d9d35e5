use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::{
    super::{
        diff::{self, Survey},
        routes::Routes,
    },
    now, people, person, routes,
};
use crate::session::Session;

/// Change, person, route, before and after, of each row.
fn changes_for(old: &str, new: &str, people: &[Session]) -> Vec<[String; 5]> {
    let (old, new) = (routes(old), routes(new));
    let document: Value = serde_json::from_str(&compared(&old, &new, people, true)).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("nobody").to_owned();
    let changes = document["changes"].as_array().unwrap().iter();
    changes
        .map(|change| {
            let answer = |key: &str| text(&change[key]["answer"]);
            let person = text(&change["person"]["email"]);
            [text(&change["change"]), person, text(&change["route"]), answer("before"), answer("after")]
        })
        .collect()
}

fn changes(old: &str, new: &str) -> Vec<String> {
    changes_for(old, new, &people()).iter().map(|change| change.join(" ")).collect()
}

fn compared(old: &Routes, new: &Routes, people: &[Session], is_json: bool) -> String {
    let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let comparison = diff::compare(&Survey { old, new, people, ip, now: now() });
    if is_json { comparison.json() } else { comparison.table() }
}

fn app(rest: &str, policy: &str) -> String {
    format!("- {{from: \"https://app.corp.example\", to: \"http://a:1\", {rest}, policy: [{policy}]}}\n")
}

#[test]
fn the_same_routes_change_nothing() {
    let one = app("name: app", "{allow: {or: [{email: alice@corp.example}]}}");
    assert_eq!(changes(&one, &one), Vec::<String>::new());
    // Another name, another target: the same people reach the same place.
    let other = one.replace("name: app", "name: renamed").replace("a:1", "b:2");
    assert_eq!(changes(&one, &other), Vec::<String>::new());
    let (old, new) = (routes(&one), routes(&other));
    assert_eq!(compared(&old, &new, &people(), false), "4 people, 1 route: nobody's access changes\n");
}

#[test]
fn a_policy_that_changes_names_who_gains_and_who_loses() {
    let old = app("name: app", "{allow: {or: [{email: alice@corp.example}]}}");
    let new = app("name: app", "{allow: {or: [{email: bob@corp.example}]}}");
    assert_eq!(
        changes(&old, &new),
        ["loses alice@corp.example app allow deny", "gains bob@corp.example app deny allow"]
    );
}

#[test]
fn a_route_that_is_opened_to_everybody_names_strangers_too() {
    let old = app("name: app", "{allow: {or: [{authenticated_user: 1}]}}");
    let new = app("name: app", "{allow: {or: [{accept: 1}]}}");
    assert_eq!(changes(&old, &new), ["gains nobody app sign-in allow"]);
}

#[test]
fn routes_that_come_and_go_are_what_they_do_to_people() {
    let open = app("name: app", "{allow: {or: [{groups: sre}]}}");
    let elsewhere = open.replace("app.corp", "new.corp").replace("name: app", "name: new");
    assert_eq!(
        changes(&open, &elsewhere),
        ["gains alice@corp.example new no route allow", "loses alice@corp.example app allow no route"]
    );
}

#[test]
fn a_route_that_takes_over_a_path_is_compared_with_what_took_it_before() {
    let old = app("name: app", "{allow: {or: [{groups: sre}, {email: bob@corp.example}]}}");
    let admin = app("name: admin, prefix: /admin", "{allow: {or: [{groups: sre}]}}");
    assert_eq!(changes(&old, &format!("{admin}{old}")), ["loses bob@corp.example admin allow deny"]);
    // Behind the route that takes everything, it is never reached.
    assert_eq!(changes(&old, &format!("{old}{admin}")), Vec::<String>::new());
}

#[test]
fn a_route_of_a_pattern_is_paired_by_its_name_and_said() {
    let old = app("name: api, regex: \"/v[0-9]/.*\"", "{allow: {or: [{email: alice@corp.example}]}}");
    let new = app("name: api, regex: \"/v[0-9]+/.*\"", "{allow: {or: [{email: bob@corp.example}]}}");
    assert_eq!(changes(&old, &new).len(), 2);
    let text = compared(&routes(&old), &routes(&new), &people(), false);
    assert!(text.contains("note: only a pattern says what the route api takes"), "{text}");
}

/// Nobody knows who has a certificate: somebody who has one and somebody who has none are both asked for.
#[test]
fn where_a_certificate_is_needed_both_who_has_one_and_who_has_none_count() {
    let alice = app("name: app", "{allow: {or: [{email: alice@corp.example}]}}");
    let needed = |routes: &str| format!("{routes}downstream_mtls: {{ca_file: elsewhere.pem}}\n");
    assert_eq!(changes(&alice, &needed(&alice)), ["loses alice@corp.example app allow deny"]);
    assert_eq!(changes(&needed(&alice), &alice), ["gains alice@corp.example app deny allow"]);
    let bob = app("name: app", "{allow: {or: [{email: bob@corp.example}]}}");
    assert_eq!(
        changes(&needed(&alice), &needed(&bob)),
        ["loses alice@corp.example app allow deny", "gains bob@corp.example app deny allow"]
    );
}

#[test]
fn a_name_with_control_characters_stays_on_its_line() {
    let mallory = Session { email: "m\u{1b}[2J\n@corp.example".to_owned(), ..person("m", &[], None) };
    let old = app("name: app", "{allow: {or: [{accept: 1}]}}");
    let new = app("name: app", "{allow: {or: [{domain: {not: corp.example}}]}}");
    let (old, new) = (routes(&old), routes(&new));
    let text = compared(&old, &new, &[mallory], false);
    assert!(text.contains("m\\u{1b}[2J\\n@corp.example"), "{text}");
}
