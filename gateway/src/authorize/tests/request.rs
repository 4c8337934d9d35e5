//! Where a request comes from, and what only other protocols bring.

use super::{
    super::{CheckRequest, Place, RequestFacts},
    alice, allow, asked_by, get, is,
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f laptop";

fn from(place: Place<'_>) -> CheckRequest<'_> {
    CheckRequest { request: RequestFacts { place, ..get("/") }, ..asked_by(None) }
}

#[test]
fn a_network_is_known_by_country_and_number() {
    let here = from(Place { country: Some("CH"), asn: Some(64_500) });
    for (criterion, expected, code) in [
        ("network/country: CH", true, "country"),
        ("network/country: {in: [CH, LI]}", true, "country"),
        ("network/country: {not: CH}", false, "country"),
        ("network/country: {not_in: [US, DE]}", true, "country"),
        ("network/asn: 64500", true, "asn"),
        ("network/asn: [64501, 64500]", true, "asn"),
        ("network/asn: 64501", false, "asn"),
        ("network/asn: {in: [64500]}", true, "asn"),
        ("network/asn: {not_in: [64501, 64502]}", true, "asn"),
        ("network/asn: {not_in: 64500}", false, "asn"),
    ] {
        let reason = format!("{code}-{}", if expected { "ok" } else { "unauthorized" });
        assert_eq!(allow(criterion, &here), is(expected, &reason), "{criterion}");
        let unknown = format!("{code}-unauthorized");
        assert_eq!(allow(criterion, &from(Place::default())), is(false, &unknown), "nowhere: {criterion}");
    }
}

#[test]
fn the_gateways_own_paths_are_told_apart() {
    for (path, expected) in [
        ("/.pomerium", true),
        ("/.pomerium/sign_out", true),
        ("/.well-known/pomerium", true),
        ("/.well-known/pomerium/jwks.json", true),
        ("/.pomeriumx", false),
        ("/x/.pomerium/", false),
        ("/", false),
        ("", false),
    ] {
        let check = CheckRequest { request: get(path), ..asked_by(None) };
        let reason = if expected { "pomerium-route" } else { "non-pomerium-route" };
        assert_eq!(allow("pomerium_routes: true", &check), is(expected, reason), "{path}");
    }
}

#[test]
fn what_asks_for_another_protocol_is_read_and_never_true() {
    let alice = alice();
    let check = asked_by(Some(&alice));
    for (criterion, reason) in [
        ("mcp_tool: search".to_owned(), "mcp-not-a-tool-call"),
        ("mcp_tool: {not: delete}".to_owned(), "mcp-not-a-tool-call"),
        (format!("ssh_publickey: {KEY}"), "ssh-publickey-unauthorized"),
        (format!("ssh_publickey: [{KEY}, {KEY}]"), "ssh-publickey-unauthorized"),
        (format!("ssh_ca: {KEY}"), "ssh-publickey-unauthorized"),
        ("ssh_username: alice".to_owned(), "ssh-username-unauthorized"),
        ("ssh_username: {not: root}".to_owned(), "ssh-username-unauthorized"),
        ("ssh_username_matches_email: true".to_owned(), "ssh-username-unauthorized"),
        ("ssh_username_matches_claim: login".to_owned(), "ssh-username-unauthorized"),
    ] {
        assert_eq!(allow(&criterion, &check), is(false, reason), "{criterion}");
        let of_person = criterion.starts_with("ssh_username_matches");
        let stranger = if of_person { "user-unauthenticated" } else { reason };
        assert_eq!(allow(&criterion, &asked_by(None)), is(false, stranger), "{criterion}");
    }
}
