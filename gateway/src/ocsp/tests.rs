//! Responses made by hand, by the issuer and by others.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SigningKey as _,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::config::Certificate;

const THIS_UPDATE: &str = "20260101000000Z";
const NEXT_UPDATE: &str = "20990101000000Z";
/// ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
const ECDSA: &[u8] = &[OBJECT_ID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const GENERALIZED_TIME: u8 = 0x18;

/// An authority, and whoever it issues certificates to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// What a responder says.
pub(crate) struct Said<'a> {
    state: &'a [u8],
    next_update: Option<&'a str>,
    signer: Option<(&'a KeyPair, &'a CertificateDer<'static>)>,
}

pub(crate) const STANDS_BY_IT: Said<'static> =
    Said { state: &[GOOD, 0], next_update: Some(NEXT_UPDATE), signer: None };

pub(crate) const REVOKES_IT: Said<'static> =
    Said { state: b"\xa1\x11\x18\x0f20260101000000Z", next_update: Some(NEXT_UPDATE), signer: None };

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn issue(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// A certificate for `app.corp.test` with its issuer beside it, which names `responder`.
    pub(crate) fn server(&self, responder: &str) -> Certificate {
        let mut params = CertificateParams::new(["app.corp.test".to_owned()]).unwrap();
        let method = element(OBJECT_ID, &[&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01]]);
        let access = element(SEQUENCE, &[&method, &element(0x86, &[responder.as_bytes()])]);
        let content = element(SEQUENCE, &[&access]);
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)];
        let key = KeyPair::generate().unwrap();
        let chain = vec![self.issue(&params, &key), self.der.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Certificate { chain, key, staple: None }
    }

    pub(crate) fn respond(&self, chain: &[CertificateDer<'_>], said: &Said<'_>) -> Vec<u8> {
        let leaf = CertificateParts::of(&chain[0]).unwrap();
        let name = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf.issuer);
        let hash = |octets: &[u8]| element(OCTET_STRING, &[octets]);
        let algorithm = element(SEQUENCE, &[SHA1, &[NULL, 0]]);
        let id = element(SEQUENCE, &[&algorithm, &hash(name.as_ref()), &hash(&[0; 20]), leaf.serial]);
        let time = |text: &str| element(GENERALIZED_TIME, &[text.as_bytes()]);
        let next = said.next_update.map(|next| element(FIRST, &[&time(next)])).unwrap_or_default();
        let single = element(SEQUENCE, &[&id, said.state, &time(THIS_UPDATE), &next]);
        let responder = element(0xa2, &[&hash(&[0; 20])]);
        let data = element(SEQUENCE, &[&responder, &time(THIS_UPDATE), &element(SEQUENCE, &[&single])]);
        let key = said.signer.map_or_else(|| self.issuer.key(), |(key, _)| key);
        let signature = element(BIT_STRING, &[&[0], &key.sign(&data).unwrap()]);
        let beside = said.signer.map(|(_, der)| element(FIRST, &[&element(SEQUENCE, &[der])]));
        let basic = element(
            SEQUENCE,
            &[&data, &element(SEQUENCE, &[ECDSA]), &signature, &beside.unwrap_or_default()],
        );
        let bytes =
            element(SEQUENCE, &[&element(OBJECT_ID, &[BASIC_RESPONSE]), &element(OCTET_STRING, &[&basic])]);
        element(SEQUENCE, &[&element(ENUMERATED, &[&[0]]), &element(FIRST, &[&bytes])])
    }
}

#[test]
fn what_the_issuer_says_is_taken_and_what_it_does_not_stand_by_is_not() {
    let authority = Authority::new();
    let chain = authority.server("http://ocsp.test/").chain;
    let read = |said: &Said<'_>| read(&authority.respond(&chain, said), &chain);
    let staple = read(&STANDS_BY_IT).unwrap();
    assert_eq!(staple.validity, Validity { not_before: 1_767_225_600, not_after: 4_070_908_800 });
    // Revoked with its time, not known, and good for ever.
    assert_eq!(read(&REVOKES_IT), Err(OcspError::Revoked));
    assert_eq!(read(&Said { state: &[0x82, 0], ..STANDS_BY_IT }), Err(OcspError::Unknown));
    assert_eq!(read(&Said { next_update: None, ..STANDS_BY_IT }), Err(OcspError::Endless));
}

#[test]
fn nobody_else_speaks_for_the_issuer() {
    let authority = Authority::new();
    let chain = authority.server("http://ocsp.test/").chain;
    let by = |key: &KeyPair, der: &CertificateDer<'static>| {
        read(&authority.respond(&chain, &Said { signer: Some((key, der)), ..STANDS_BY_IT }), &chain)
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    assert!(by(&key, &authority.issue(&params, &key)).is_ok(), "the issuer has left it to this key");
    let stranger = params.self_signed(&key).unwrap().der().clone();
    assert_eq!(by(&key, &stranger), Err(OcspError::NotSigned));
    assert_eq!(by(&key, &Authority::new().issue(&params, &key)), Err(OcspError::NotSigned));
    // An app's certificate from the same issuer.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(by(&key, &authority.issue(&params, &key)), Err(OcspError::NotSigned));
    params.extended_key_usages.clear();
    assert_eq!(by(&key, &authority.issue(&params, &key)), Err(OcspError::NotSigned));

    let other = authority.server("http://ocsp.test/").chain;
    let said = authority.respond(&other, &STANDS_BY_IT);
    assert_eq!(read(&said, &chain), Err(OcspError::OtherCertificate));
    let said = authority.respond(&chain, &STANDS_BY_IT);
    assert_eq!(read(&said, &chain[..1]), Err(OcspError::NotSigned), "nobody knows the issuer's key");
}

#[test]
fn what_is_no_response_is_none_however_it_is_cut() {
    let authority = Authority::new();
    let chain = authority.server("http://ocsp.test/").chain;
    let said = authority.respond(&chain, &STANDS_BY_IT);
    for len in 0..said.len() {
        assert!(read(&said[..len], &chain).is_err(), "{len}");
    }
    for at in 0..said.len() {
        let mut other = said.clone();
        other[at] ^= 0x01;
        // Behind the signature, and in what nobody reads, nothing is lost.
        _ = read(&other, &chain);
    }
    // tryLater.
    assert_eq!(read(&element(SEQUENCE, &[&element(ENUMERATED, &[&[3]])]), &chain), Err(OcspError::NoAnswer));
}

#[test]
fn a_certificate_says_whom_to_ask_about_it() {
    let authority = Authority::new();
    let chain = authority.server("http://ocsp.test/here").chain;
    let (url, question) = question(&chain).unwrap();
    assert_eq!(url, "http://ocsp.test/here");
    let leaf = CertificateParts::of(&chain[0]).unwrap();
    assert!(question.ends_with(leaf.serial));
    assert_eq!(super::question(&chain[..1]), None);
}
