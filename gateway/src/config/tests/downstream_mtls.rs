//! Whose certificates clients show, and what is refused before anybody relies on it.

use std::time::SystemTime;

use super::*;
use crate::{
    authorize::{Situation, Verdict},
    client_authority::tests::Authority,
};

/// A folder as the other tests have it, with an authority, what it revoked, and a certificate of a client.
fn with_authority(rest: &str, pairs: &[(&str, &str)]) -> (Result<Loaded, ConfigErrors>, Authority) {
    let (dir, env, corp) = (folder(), environment(pairs), Authority::new("corp"));
    let file = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    file("ca.pem", corp.certificate.pem());
    file("crl.pem", corp.revoke(&[8]).pem().unwrap());
    file("client.pem", corp.issue(|_| {}).certificate.pem());
    (parse(&minimal(rest), "pomerium.yaml", &|name| env.get(name).cloned(), dir.path()), corp)
}

fn mtls(block: &str) -> String {
    format!("downstream_mtls: {{{block}}}\n{}", route("to: http://10.0.0.5\n"))
}

/// What the first route says to a signed-out stranger without a certificate.
fn to_a_stranger(loaded: &Loaded) -> Verdict {
    let stranger = Situation::of_stranger(pomerium_shared::clock::Now::read());
    loaded.settings.routes[0].policy.evaluate(&stranger.check(None)).verdict()
}

fn now() -> SystemTime {
    pomerium_shared::clock::Now::read().wall
}

#[test]
fn the_block_says_who_issues_certificates_and_what_they_must_be() {
    let block = "ca_file: ca.pem, crl_file: crl.pem, match_subject_alt_names: [{email: '.*@corp[.]example'}]";
    let (loaded, corp) = with_authority(&mtls(block), &[]);
    let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.settings.downstream_mtls.enforcement, Enforcement::PolicyWithDefaultDeny);
    let authority = loaded.settings.downstream_mtls.authority.as_ref().unwrap();
    let is_valid = |leaf: &crate::client_authority::tests::Leaf, others: &[_]| {
        authority.verify(leaf.certificate.der(), others, now()).is_ok()
    };
    let with_serial = |serial: u64| corp.issue(|params| params.serial_number = Some(serial.into()));
    assert!(is_valid(&with_serial(7), &[]) && !is_valid(&with_serial(8), &[]), "8 is revoked");
    assert!(!is_valid(&corp.issue(|params| params.subject_alt_names.clear()), &[]));
    let middle = corp.below("middle");
    assert!(!is_valid(&middle.issue(|_| {}), &[middle.certificate.der().clone()]), "one step is the default");
    for file in ["ca.pem", "crl.pem"] {
        assert!(loaded.files.iter().any(|watched| watched.ends_with(file)), "{file} is not watched");
    }
}

#[test]
fn a_route_refuses_strangers_unless_its_policy_alone_is_to_say() {
    let refused = Verdict::Deny { status: crate::authorize::CERTIFICATE_REQUIRED };
    for (enforcement, expected) in [
        ("", refused),
        (", enforcement: policy_with_default_deny", refused),
        (", enforcement: reject_connection", refused),
        (", enforcement: POLICY", Verdict::SignIn),
    ] {
        let (loaded, _) = with_authority(&mtls(&format!("ca_file: ca.pem{enforcement}")), &[]);
        assert_eq!(to_a_stranger(&loaded.unwrap()), expected, "{enforcement}");
    }
    let without = good(&route("to: http://10.0.0.5\n"));
    assert_eq!(to_a_stranger(&without), Verdict::SignIn);
    assert!(without.settings.client_authorities().is_empty());
}

#[test]
fn a_route_may_have_an_authority_of_its_own() {
    let own = route("to: http://10.0.0.5\n  tls_downstream_client_ca_file: ca.pem\n");
    let (loaded, corp) = with_authority(&own, &[]);
    let settings = loaded.unwrap().settings;
    assert!(settings.downstream_mtls.authority.is_none());
    let [authority] = &settings.client_authorities()[..] else { panic!("one authority") };
    assert!(authority.verify(corp.issue(|_| {}).certificate.der(), &[], now()).is_ok());
    // What the block asks of certificates it asks of all.
    let block = "downstream_mtls: {crl_file: crl.pem, enforcement: policy}\n";
    let (loaded, corp) = with_authority(&format!("{block}{own}"), &[]);
    let loaded = loaded.unwrap();
    assert_eq!(to_a_stranger(&loaded), Verdict::SignIn);
    let authority = loaded.settings.routes[0].client_authority.as_ref().unwrap();
    let revoked = corp.issue(|params| params.serial_number = Some(8_u64.into()));
    assert!(authority.verify(revoked.certificate.der(), &[], now()).is_err());
}

#[test]
fn names_of_certificates_count_where_an_authority_stands_for_them() {
    let named =
        "to: http://10.0.0.5\n  policy: {allow: {or: [{client_certificate: {san_email: a@corp.example}}]}}\n";
    let routes = format!("routes:\n- from: https://app.corp.example\n  {named}");
    let (loaded, _) = with_authority(&format!("downstream_mtls: {{ca_file: ca.pem}}\n{routes}"), &[]);
    assert!(loaded.is_ok());
    assert!(errors(&routes).contains("prove nothing without an authority: set `downstream_mtls`"));
}

#[test]
fn the_environment_may_set_each_key_of_the_block() {
    let plain = route("to: http://10.0.0.5\n");
    let (loaded, _) = with_authority(&plain, &[("DOWNSTREAM_MTLS_CA_FILE", "ca.pem")]);
    assert_eq!(loaded.unwrap().settings.client_authorities().len(), 1);
    let pairs =
        [("DOWNSTREAM_MTLS_ENFORCEMENT", "reject_connection"), ("DOWNSTREAM_MTLS_MAX_VERIFY_DEPTH", "0")];
    let (loaded, _) = with_authority(&mtls("ca_file: ca.pem, enforcement: policy"), &pairs);
    assert_eq!(loaded.unwrap().settings.downstream_mtls.enforcement, Enforcement::RejectConnection);
    let inline = STANDARD.encode(Authority::new("other").certificate.pem());
    let (loaded, corp) = with_authority(&mtls("ca_file: ca.pem"), &[("DOWNSTREAM_MTLS_CA", &inline)]);
    let authority = loaded.unwrap().settings.downstream_mtls.authority.unwrap();
    assert!(
        authority.verify(corp.issue(|_| {}).certificate.der(), &[], now()).is_err(),
        "the file's is replaced"
    );
    let names =
        [("DOWNSTREAM_MTLS_MATCH_SUBJECT_ALT_NAMES", "[{dns: '('}]"), ("DOWNSTREAM_MTLS_CA_FILE", "ca.pem")];
    let said = with_authority(&plain, &names).0.unwrap_err().to_string();
    assert!(said.contains("environment variable DOWNSTREAM_MTLS_MATCH_SUBJECT_ALT_NAMES"), "{said}");
}

#[test]
fn what_would_ask_nothing_of_anybody_is_refused() {
    for (block, expected) in [
        ("", "downstream_mtls: names no authority for clients' certificates: set ca or ca_file"),
        ("enforcement: reject_connection", "names no authority"),
        ("ca_file: none.pem", "downstream_mtls.ca_file: cannot read"),
        ("ca_file: key.pem", "downstream_mtls.ca_file: holds no certificate in PEM"),
        ("ca_file: client.pem", "downstream_mtls.ca_file: certificate 1 (counted from 1) is no authority's"),
        ("ca: '%'", "downstream_mtls.ca: expected PEM"),
        ("ca_file: ca.pem, crl_file: ca.pem", "downstream_mtls.crl_file: holds no revocation list in PEM"),
        ("ca_file: ca.pem, crl_file: none.pem", "downstream_mtls.crl_file: cannot read"),
        ("ca_file: ca.pem, enforcement: maybe", "downstream_mtls.enforcement: expected one of policy,"),
        ("ca_file: ca.pem, max_verify_depth: -1", "max_verify_depth: expected how many authorities"),
        ("ca_file: ca.pem, max_verify_depth: one", "max_verify_depth: expected a whole number"),
        ("ca_file: ca.pem, match_subject_alt_names: []", "match_subject_alt_names: expected a list such as"),
        (
            "ca_file: ca.pem, match_subject_alt_names: {dns: a}",
            "match_subject_alt_names: expected a list such as",
        ),
        (
            "ca_file: ca.pem, match_subject_alt_names: [{}]",
            "match_subject_alt_names[0]: expected one of dns,",
        ),
        (
            "ca_file: ca.pem, match_subject_alt_names: [{dns: a, uri: b}]",
            "match_subject_alt_names[0]: expected one of dns,",
        ),
        (
            "ca_file: ca.pem, match_subject_alt_names: [{mail: a}]",
            "match_subject_alt_names[0].mail: unknown key",
        ),
        ("ca_file: ca.pem, match_subject_alt_names: [{dns: '('}]", "[0].dns: this is no valid expression"),
        ("ca_file: ca.pem, ca_files: x", "downstream_mtls.ca_files: unknown key; did you mean \"ca_file\"?"),
    ] {
        let said = with_authority(&mtls(block), &[]).0.expect_err(block).to_string();
        assert!(said.contains(expected), "{block}\n{said}");
    }
    let said = with_authority("downstream_mtls: ca.pem\n", &[]).0.unwrap_err().to_string();
    assert!(said.contains("downstream_mtls: expected a mapping"), "{said}");
}

#[test]
fn tools_know_that_a_certificate_is_needed_without_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pomerium.yaml");
    std::fs::write(&file, minimal(&mtls("ca_file: nowhere.pem, crl_file: nowhere.pem"))).unwrap();
    let access = access(&file, &|_| None, dir.path()).unwrap_or_else(|errors| panic!("{errors}"));
    let stranger = Situation::of_stranger(pomerium_shared::clock::Now::read());
    let verdict = access.routes[0].policy.evaluate(&stranger.check(None)).verdict();
    assert_eq!(verdict, Verdict::Deny { status: crate::authorize::CERTIFICATE_REQUIRED });
}

#[test]
fn every_key_of_the_block_is_on_the_page() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md")).unwrap();
    let words = ["policy_with_default_deny", "policy", "reject_connection"];
    let kinds = super::super::downstream_mtls::KINDS.map(|(name, _)| name);
    for word in super::super::downstream_mtls::KEYS.into_iter().chain(kinds).chain(words) {
        assert!(page.contains(&format!("`{word}`")), "docs/policy.md does not name {word}");
    }
}
