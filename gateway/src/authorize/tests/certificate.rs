//! Client certificates, against certificates that another program made.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};
use sha2::{Digest as _, Sha256};

use super::{
    super::{CERTIFICATE_REQUIRED, CheckRequest, Policy, PresentedCertificate, RequestFacts, Verdict},
    alice, allow, asked_by, get, is,
};

/// A leaf in DER, and its public key.
fn made() -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["laptop.corp.example".to_owned()]).unwrap();
    params.subject_alt_names.extend([
        SanType::DnsName("backup.corp.example".try_into().unwrap()),
        SanType::Rfc822Name("alice@corp.example".try_into().unwrap()),
        SanType::URI("spiffe://corp.example/alice".try_into().unwrap()),
    ]);
    (params.self_signed(&key).unwrap().der().to_vec(), key.subject_public_key_info())
}

fn shown(certificate: &PresentedCertificate) -> CheckRequest<'_> {
    CheckRequest { request: RequestFacts { certificate: Some(certificate), ..get("/") }, ..asked_by(None) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_client_certificate_is_known_by_hashes_and_names() {
    let (leaf, public_key) = made();
    let fingerprint = hex(&Sha256::digest(&leaf));
    let with_colons: Vec<_> = Sha256::digest(&leaf).iter().map(|byte| format!("{byte:02X}")).collect();
    let key_hash = STANDARD.encode(Sha256::digest(&public_key));
    let other = "ab".repeat(32);
    let certificate = PresentedCertificate { leaf, is_valid: true };
    for (matcher, expected) in [
        (format!("{{fingerprint: '{fingerprint}'}}"), true),
        (format!("{{fingerprint: '{}'}}", with_colons.join(":")), true),
        (format!("{{fingerprint: [{other}, '{fingerprint}']}}"), true),
        (format!("{{fingerprint: {other}}}"), false),
        (format!("{{spki_hash: '{key_hash}'}}"), true),
        (format!("{{spki_hash: '{key_hash}', fingerprint: {other}}}"), false),
        (format!("[{{fingerprint: {other}}}, {{spki_hash: '{key_hash}'}}]"), true),
        ("{san_dns: backup.corp.example}".to_owned(), true),
        ("{san_dns: {ends_with: .corp.example, starts_with: laptop}}".to_owned(), true),
        ("{san_dns: {ends_with: .corp.example, not: laptop.corp.example}}".to_owned(), false),
        ("{san_dns: {not: evil.example}}".to_owned(), true),
        ("{san_dns: alice@corp.example}".to_owned(), false),
        (
            "{san_email: alice@corp.example, san_uri: {starts_with: 'spiffe://corp.example/'}}".to_owned(),
            true,
        ),
        ("{san_email: bob@corp.example}".to_owned(), false),
    ] {
        let reason = if expected { "client-certificate-ok" } else { "client-certificate-unauthorized" };
        let criterion = format!("client_certificate: {matcher}");
        assert_eq!(allow(&criterion, &shown(&certificate)), is(expected, reason), "{criterion}");
    }
}

#[test]
fn no_certificate_and_one_that_is_not_valid_are_told_apart() {
    let (leaf, _) = made();
    let valid = PresentedCertificate { leaf, is_valid: true };
    let invalid = PresentedCertificate { is_valid: false, ..valid.clone() };
    let alice = alice();
    let nothing = asked_by(Some(&alice));
    let named = "client_certificate: {san_email: alice@corp.example}";
    assert_eq!(allow(named, &nothing), is(false, "client-certificate-required"));
    assert_eq!(allow(named, &shown(&invalid)), is(false, "invalid-client-certificate"));
    assert_eq!(allow(named, &shown(&valid)), is(true, "client-certificate-ok"));
    let invalid_criterion = "invalid_client_certificate: true";
    assert_eq!(allow(invalid_criterion, &nothing), is(true, "client-certificate-required"));
    assert_eq!(allow(invalid_criterion, &shown(&invalid)), is(true, "invalid-client-certificate"));
    assert_eq!(allow(invalid_criterion, &shown(&valid)), is(false, "valid-client-certificate"));
}

#[test]
fn names_of_a_certificate_without_any_match_nothing() {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
    let certificate = PresentedCertificate { leaf, is_valid: true };
    for kind in ["san_dns", "san_email", "san_uri"] {
        let criterion = format!("client_certificate: {{{kind}: {{not: x}}}}");
        assert!(!allow(&criterion, &shown(&certificate)).0, "{criterion}");
    }
}

/// The address is in the certificate, but in a place that is not a subject's alternative name.
#[test]
fn an_address_elsewhere_in_the_certificate_is_not_a_name() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "alice@corp.example");
    let other = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], {
        let mut names = vec![0x30, 20, 0x81, 18];
        names.extend(b"alice@corp.example");
        names
    });
    params.custom_extensions.push(other);
    let certificate =
        PresentedCertificate { leaf: params.self_signed(&key).unwrap().der().to_vec(), is_valid: true };
    assert!(!allow("client_certificate: {san_email: alice@corp.example}", &shown(&certificate)).0);
}

#[test]
fn where_an_authority_is_needed_a_certificate_from_it_goes_before_every_rule() {
    let (leaf, _) = made();
    let valid = PresentedCertificate { leaf, is_valid: true };
    let invalid = PresentedCertificate { is_valid: false, ..valid.clone() };
    let held = |denies| {
        let mut policy = Policy::from_yaml("allow: {or: [{accept: true}]}");
        policy.hold_to_client_authority(denies);
        [asked_by(None), shown(&invalid), shown(&valid)].map(|check| policy.evaluate(&check).verdict())
    };
    let refused = Verdict::Deny { status: CERTIFICATE_REQUIRED };
    assert_eq!(held(true), [refused, refused, Verdict::Allow]);
    assert_eq!(held(false), [Verdict::Allow; 3]);
    // Nobody is asked to sign in who could not go on afterwards.
    let mut policy = Policy::from_yaml("allow: {or: [{authenticated_user: true}]}");
    policy.hold_to_client_authority(true);
    assert_eq!(policy.evaluate(&asked_by(None)).verdict(), refused);
    assert_eq!(policy.evaluate(&shown(&valid)).verdict(), Verdict::SignIn);
    let explained = policy.explain(&asked_by(None));
    assert!(explained.groups.iter().any(|group| group.label == "downstream_mtls.or"), "{explained:?}");
}

const EACH_NAME: [&str; 3] = [
    "client_certificate: {san_email: {contains: '@'}}",
    "client_certificate: {san_dns: {not: x}}",
    "client_certificate: {spki_hash: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='}",
];

proptest! {
    #[test]
    fn no_bytes_panic(leaf in prop::collection::vec(any::<u8>(), 0..300)) {
        let certificate = PresentedCertificate { leaf, is_valid: true };
        for criterion in EACH_NAME {
            prop_assert!(!allow(criterion, &shown(&certificate)).0);
        }
    }

    #[test]
    fn a_broken_certificate_never_panics(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (mut leaf, _) = made();
        let index = at.index(leaf.len());
        leaf[index] = byte;
        leaf.truncate(cut.index(leaf.len() * 4).max(1));
        let certificate = PresentedCertificate { leaf, is_valid: true };
        for criterion in EACH_NAME {
            let _ = allow(criterion, &shown(&certificate));
        }
    }
}
