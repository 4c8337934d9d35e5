//! Chains that another program made, good and bad.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

use super::*;

/// An authority with its key.
pub(crate) struct Authority {
    pub(crate) certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::made(name, |params, key| params.self_signed(key).unwrap())
    }

    /// An authority that this one vouches for.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self::made(name, |params, key| params.signed_by(key, &self.issuer).unwrap())
    }

    fn made(name: &str, sign: impl FnOnce(&CertificateParams, &KeyPair) -> rcgen::Certificate) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self::of(params, sign)
    }

    fn of(
        params: CertificateParams,
        sign: impl FnOnce(&CertificateParams, &KeyPair) -> rcgen::Certificate,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = sign(&params, &key);
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A client's certificate for `alice@corp.example`, with changes.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name("alice@corp.example".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(7_u64));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// A revocation list with these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64]) -> rcgen::CertificateRevocationList {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            // Long past, for some: an old list still counts.
            next_update: date_time_ymd(2026, 1, 2),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }

    fn trusted(&self, constraints: Constraints) -> ClientAuthority {
        ClientAuthority::new(&[self.certificate.der().clone()], constraints).unwrap()
    }
}

const DIRECTLY: Option<usize> = Some(1);

/// Noon of a day.
fn at(year: i32, month: u8, day: u8) -> SystemTime {
    let midnight: SystemTime = date_time_ymd(year, month, day).into();
    midnight + Duration::from_secs(12 * 3600)
}

fn now() -> SystemTime {
    at(2026, 6, 1)
}

fn judge(authority: &ClientAuthority, leaf: &Leaf, others: &[&Authority]) -> Result<(), InvalidCertificate> {
    let others: Vec<_> = others.iter().map(|other| other.certificate.der().clone()).collect();
    authority.verify(leaf.certificate.der(), &others, now()).map(|_| ())
}

fn named(rules: &[(NameKind, &str)]) -> Constraints {
    let rules = rules.iter().map(|(kind, expression)| NameRule::new(*kind, expression).unwrap());
    Constraints::new(rules.collect(), DIRECTLY)
}

#[test]
fn a_certificate_from_the_authority_is_valid_until_it_expires() {
    let corp = Authority::new("corp");
    let leaf = corp.issue(|params| {
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 7, 1);
    });
    let trusted = corp.trusted(Constraints::new(Vec::new(), DIRECTLY));
    let end = trusted.verify(leaf.certificate.der(), &[], now()).unwrap();
    let midnight: SystemTime = date_time_ymd(2026, 7, 1).into();
    assert_eq!(end, midnight + Duration::from_secs(1));
    let on = |time| trusted.verify(leaf.certificate.der(), &[], time);
    assert_eq!(on(midnight), Ok(end), "its last second");
    assert!(matches!(on(end), Err(InvalidCertificate::Chain(webpki::Error::CertExpired { .. }))));
    let early = on(at(2025, 12, 31));
    assert!(matches!(early, Err(InvalidCertificate::Chain(webpki::Error::CertNotValidYet { .. }))));
}

#[test]
fn an_authority_that_has_expired_vouches_for_nobody() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2026, 5, 1);
    let old = Authority::of(params, |params, key| params.self_signed(key).unwrap());
    let trusted = old.trusted(Constraints::new(Vec::new(), DIRECTLY));
    let leaf = old.issue(|_| {});
    assert!(trusted.verify(leaf.certificate.der(), &[], at(2026, 4, 1)).is_ok());
    assert!(trusted.verify(leaf.certificate.der(), &[], at(2026, 5, 2)).is_err());
}

#[test]
fn another_authority_of_the_same_name_is_another() {
    let (corp, impostor) = (Authority::new("corp"), Authority::new("corp"));
    let trusted = corp.trusted(Constraints::default());
    assert_eq!(judge(&trusted, &corp.issue(|_| {}), &[]), Ok(()));
    let forged = impostor.issue(|_| {});
    assert!(judge(&trusted, &forged, &[]).is_err());
    // What it sends along vouches for nothing that it did not sign.
    assert!(judge(&trusted, &forged, &[&corp]).is_err());
    assert!(judge(&trusted, &forged, &[&impostor, &corp]).is_err());
}

/// The hole of some products: a good certificate stands second, and the first, of whom the key was proved, is anybody's.
#[test]
fn only_the_leaf_is_judged_whatever_stands_behind_it() {
    let corp = Authority::new("corp");
    let trusted = corp.trusted(Constraints::default());
    let alice = corp.issue(|_| {});
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mallory = params.self_signed(&key).unwrap();
    let others = [alice.certificate.der().clone(), corp.certificate.der().clone()];
    assert!(trusted.verify(mallory.der(), &others, now()).is_err());
    // Nor does a client's certificate make others: it is no authority's.
    let signer = Issuer::new(CertificateParams::default(), alice.key);
    let made = params.signed_by(&key, &signer).unwrap();
    assert!(trusted.verify(made.der(), &others, now()).is_err());
}

#[test]
fn a_chain_may_be_as_long_as_the_operator_says() {
    let root = Authority::new("root");
    let middle = root.below("middle");
    let low = middle.below("low");
    let (direct, second, third) = (root.issue(|_| {}), middle.issue(|_| {}), low.issue(|_| {}));
    for (depth_max, expected) in [
        (Some(1), [true, false, false]),
        (Some(2), [true, true, false]),
        (Some(3), [true, true, true]),
        (None, [true, true, true]),
    ] {
        let trusted = root.trusted(Constraints::new(Vec::new(), depth_max));
        let valid = [
            judge(&trusted, &direct, &[]).is_ok(),
            judge(&trusted, &second, &[&middle]).is_ok(),
            judge(&trusted, &third, &[&middle, &low]).is_ok(),
        ];
        assert_eq!(valid, expected, "{depth_max:?}");
    }
    let trusted = root.trusted(Constraints::default());
    assert!(judge(&trusted, &third, &[&low]).is_err(), "a link is missing");
    // What is trusted itself is the end of the chain.
    let trusted = middle.trusted(Constraints::new(Vec::new(), DIRECTLY));
    assert_eq!(judge(&trusted, &second, &[]), Ok(()));
}

#[test]
fn what_a_list_revokes_is_refused_however_old_the_list_is() {
    let (corp, other) = (Authority::new("corp"), Authority::new("other"));
    let middle = corp.below("middle");
    let (revoked, kept) = (
        corp.issue(|_| {}),
        corp.issue(|params| {
            params.serial_number = Some(SerialNumber::from(8_u64));
        }),
    );
    let with = |lists: &[rcgen::CertificateRevocationList]| {
        let lists: Vec<_> = lists.iter().map(|list| list.der().clone()).collect();
        corp.trusted(Constraints::new(Vec::new(), Some(2)).revoke(&lists).unwrap())
    };
    let is_revoked = |result| result == Err(InvalidCertificate::Chain(webpki::Error::CertRevoked));
    let trusted = with(&[corp.revoke(&[7])]);
    assert!(is_revoked(judge(&trusted, &revoked, &[])));
    assert_eq!(judge(&trusted, &kept, &[]), Ok(()));
    // The number is the other authority's, or the list is of one that vouches for nobody here.
    assert_eq!(judge(&with(&[other.revoke(&[7])]), &revoked, &[]), Ok(()));
    assert_eq!(judge(&trusted, &middle.issue(|_| {}), &[&middle]), Ok(()));
    // Each list counts, not only the first.
    assert!(is_revoked(judge(&with(&[corp.revoke(&[1]), corp.revoke(&[7])]), &revoked, &[])));
    // Neither does a list count that somebody else made in the name of the authority.
    let forged = Authority::new("corp").revoke(&[]);
    assert!(judge(&with(&[forged]), &revoked, &[]).is_err());
}

#[test]
fn an_authority_in_the_middle_that_is_revoked_vouches_for_nobody() {
    let corp = Authority::new("corp");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serial_number = Some(SerialNumber::from(9_u64));
    let middle = Authority::of(params, |params, key| params.signed_by(key, &corp.issuer).unwrap());
    let leaf = middle.issue(|_| {});
    let constraints = || Constraints::new(Vec::new(), None);
    assert_eq!(judge(&corp.trusted(constraints()), &leaf, &[&middle]), Ok(()));
    let revoked = constraints().revoke(&[corp.revoke(&[9]).der().clone()]).unwrap();
    assert!(judge(&corp.trusted(revoked), &leaf, &[&middle]).is_err());
}

#[test]
fn a_certificate_must_be_for_clients() {
    let corp = Authority::new("corp");
    let trusted = corp.trusted(Constraints::default());
    let of = |purposes: Vec<ExtendedKeyUsagePurpose>| {
        judge(&trusted, &corp.issue(|params| params.extended_key_usages = purposes), &[])
    };
    assert_eq!(of(vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]), Ok(()));
    assert_eq!(of(Vec::new()), Err(InvalidCertificate::Purpose));
    for other in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any] {
        assert!(matches!(of(vec![other]), Err(InvalidCertificate::Chain(_))));
    }
    let authority = corp.below("clients");
    let leaf = Leaf { certificate: authority.certificate, key: KeyPair::generate().unwrap() };
    assert!(judge(&trusted, &leaf, &[]).is_err(), "an authority is no client");
}

#[test]
fn any_name_may_match_as_a_whole() {
    let corp = Authority::new("corp");
    let leaf = corp.issue(|params| {
        params.subject_alt_names.extend([
            SanType::DnsName("laptop.corp.example".try_into().unwrap()),
            SanType::URI("spiffe://corp.example/alice".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 7].into()),
            SanType::IpAddress("2001:db8::7".parse().unwrap()),
            SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "alice@ad.example".into())),
            SanType::OtherName((vec![1, 2, 3], "bob@ad.example".into())),
        ]);
    });
    use NameKind::{Dns, Email, IpAddress, Uri, UserPrincipalName};
    for (rules, expected) in [
        (&[][..], true),
        (&[(Email, "alice@corp[.]example")], true),
        (&[(Email, ".*@corp[.]example")], true),
        (&[(Email, "alice")], false),
        (&[(Email, "alice@corp[.]exampl|bob")], false),
        (&[(Email, "x|alice@corp[.]example")], true),
        (&[(Email, "laptop.*")], false),
        (&[(Dns, "laptop[.]corp[.]example")], true),
        (&[(Dns, "alice@corp[.]example")], false),
        (&[(Uri, "spiffe://corp[.]example/.+")], true),
        (&[(IpAddress, "192[.]0[.]2[.][0-9]+")], true),
        (&[(IpAddress, "2001:db8::7")], true),
        (&[(UserPrincipalName, "alice@ad[.]example")], true),
        (&[(UserPrincipalName, "bob@ad[.]example")], false),
        (&[(Email, "bob@corp[.]example"), (Dns, "laptop[.].*")], true),
        (&[(Email, "bob@corp[.]example"), (Dns, "desk[.].*")], false),
    ] {
        let expected = if expected { Ok(()) } else { Err(InvalidCertificate::Name) };
        assert_eq!(judge(&corp.trusted(named(rules)), &leaf, &[]), expected, "{rules:?}");
    }
    let nameless = corp.issue(|params| params.subject_alt_names.clear());
    let refused = judge(&corp.trusted(named(&[(Email, ".*")])), &nameless, &[]);
    assert_eq!(refused, Err(InvalidCertificate::Name));
}

#[test]
fn an_expression_that_would_leave_its_bounds_is_none() {
    for text in ["a)|(?:b", "(", "(((a{100}){100}){100}){100}"] {
        assert!(NameRule::new(NameKind::Dns, text).is_err(), "{text}");
    }
}

#[test]
fn who_is_no_authority_cannot_be_trusted_as_one() {
    let corp = Authority::new("corp");
    let leaf = corp.issue(|_| {});
    let trust = |roots: &[CertificateDer<'_>]| ClientAuthority::new(roots, Constraints::default());
    let roots = [corp.certificate.der().clone(), leaf.certificate.der().clone()];
    assert!(matches!(trust(&roots), Err(ClientAuthorityError::NoAuthority { index: 2 })));
    let nonsense = [CertificateDer::from(vec![0x30, 0])];
    assert!(matches!(trust(&nonsense), Err(ClientAuthorityError::Certificate { index: 1, .. })));
    let list = [CertificateRevocationListDer::from(vec![0x30, 0])];
    let refused = Constraints::default().revoke(&list);
    assert!(matches!(refused, Err(ClientAuthorityError::Revocations { index: 1, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_certificate_that_was_changed_is_refused(at: prop::sample::Index, change in 1..=255_u8) {
        let corp = Authority::new("corp");
        let trusted = corp.trusted(Constraints::default());
        let mut bytes = corp.issue(|_| {}).certificate.der().to_vec();
        let index = at.index(bytes.len());
        bytes[index] ^= change;
        prop_assert!(trusted.verify(&CertificateDer::from(bytes), &[], now()).is_err());
    }

    #[test]
    fn no_bytes_panic(
        leaf in prop::collection::vec(any::<u8>(), 0..300), other in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let trusted = Authority::new("corp").trusted(Constraints::default());
        prop_assert!(trusted.verify(&leaf.into(), &[other.into()], now()).is_err());
    }
}
