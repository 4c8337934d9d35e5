use aws_lc_rs::{
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair},
};
use ciborium::Value;
use proptest::prelude::*;

use super::{
    soft::{Given, SoftAuthenticator, number, octets, text},
    *,
};

const ORIGIN: &str = "https://authenticate.example.com";
const CHALLENGE: &[u8] = b"thirty-two octets of a challenge";

fn us() -> RelyingParty {
    RelyingParty::of(&ORIGIN.parse().unwrap()).unwrap()
}

fn authenticator() -> SoftAuthenticator {
    SoftAuthenticator::new("authenticate.example.com", ORIGIN)
}

fn registered(soft: &SoftAuthenticator) -> Result<Credential, WebauthnError> {
    let (client_data, object) = soft.create(CHALLENGE);
    us().register(CHALLENGE, Attestation { client_data: &client_data, object: &object })
}

fn proven(credential: &Credential, given: &Given, challenge: &[u8]) -> Result<u32, WebauthnError> {
    let Given { client_data, authenticator_data, signature } = given;
    us().authenticate(challenge, credential, Assertion { client_data, authenticator_data, signature })
}

#[test]
fn a_credential_is_made_and_proves_itself() {
    let mut soft = authenticator();
    let credential = registered(&soft).unwrap();
    assert_eq!((&credential.id, credential.sign_count), (&soft.id, 1));
    assert_eq!(credential.cose_key, soft.cose_key());
    soft.sign_count = 7;
    let given = soft.get(b"another");
    assert_eq!(challenge_of(&given.client_data).unwrap(), b"another");
    assert_eq!(proven(&credential, &given, b"another"), Ok(7));
}

#[test]
fn a_host_without_a_name_has_no_credentials() {
    assert_eq!(RelyingParty::of(&"https://192.0.2.1/".parse().unwrap()), None);
    assert_eq!(us().id(), "authenticate.example.com");
}

#[test]
fn an_answer_to_another_challenge_ceremony_or_site_is_refused() {
    let credential = registered(&authenticator()).unwrap();
    let refused = |change: fn(&mut SoftAuthenticator)| {
        let mut soft = authenticator();
        change(&mut soft);
        let registration = registered(&soft).unwrap_err();
        let proof = proven(&credential, &soft.get(CHALLENGE), CHALLENGE).unwrap_err();
        assert_eq!(registration, proof);
        proof
    };
    assert_eq!(refused(|soft| soft.origin = "https://evil.example".into()), WebauthnError::Origin);
    assert_eq!(refused(|soft| soft.origin = "http://authenticate.example.com".into()), WebauthnError::Origin);
    assert_eq!(refused(|soft| soft.is_framed = true), WebauthnError::Origin);
    assert_eq!(refused(|soft| soft.relying_party = "example.com".into()), WebauthnError::RelyingParty);
    assert_eq!(refused(|soft| soft.flags = 0), WebauthnError::UserAbsent);
    assert_eq!(refused(|soft| soft.flags = 0x11), WebauthnError::AuthenticatorData);

    let soft = authenticator();
    assert_eq!(proven(&credential, &soft.get(b"yesterday's"), CHALLENGE), Err(WebauthnError::Challenge));
    let created = Given { client_data: soft.create(CHALLENGE).0, ..soft.get(CHALLENGE) };
    assert_eq!(proven(&credential, &created, CHALLENGE), Err(WebauthnError::Ceremony));
}

#[test]
fn another_persons_key_and_a_changed_answer_do_not_hold() {
    let soft = authenticator();
    let credential = Credential { sign_count: 0, ..registered(&soft).unwrap() };
    let mallory = authenticator();
    assert_eq!(proven(&credential, &mallory.get(CHALLENGE), CHALLENGE), Err(WebauthnError::Signature));
    let mut given = soft.get(CHALLENGE);
    // The count, which is signed.
    given.authenticator_data[36] ^= 1;
    assert_eq!(proven(&credential, &given, CHALLENGE), Err(WebauthnError::Signature));
}

#[test]
fn a_count_that_does_not_grow_is_a_copy() {
    let mut soft = authenticator();
    for (known, said, expected) in [
        (0, 0, Ok(0)),
        (0, 1, Ok(1)),
        (5, 6, Ok(6)),
        (5, 5, Err(WebauthnError::Counter)),
        (5, 4, Err(WebauthnError::Counter)),
        (5, 0, Err(WebauthnError::Counter)),
        (u32::MAX, 0, Err(WebauthnError::Counter)),
    ] {
        soft.sign_count = said;
        let credential = Credential { sign_count: known, ..registered(&soft).unwrap() };
        assert_eq!(proven(&credential, &soft.get(CHALLENGE), CHALLENGE), expected, "{known} then {said}");
    }
}

#[test]
fn an_attestation_is_none_or_by_the_new_key() {
    let soft = authenticator();
    let register = |(client_data, object): (Vec<u8>, Vec<u8>)| {
        us().register(CHALLENGE, Attestation { client_data: &client_data, object: &object })
    };
    assert!(register(soft.create_self_attested(CHALLENGE, -7)).is_ok());
    let refused = |made| register(made).unwrap_err();
    assert_eq!(refused(soft.create_self_attested(CHALLENGE, -257)), WebauthnError::Attestation);
    let statement = |format: &'static str, fields: Vec<(Value, Value)>| {
        soft.create_attested(CHALLENGE, move |_| (format, Value::Map(fields)))
    };
    let signature = |octets: Vec<u8>| vec![(text("alg"), number(-7)), (text("sig"), Value::Bytes(octets))];
    assert_eq!(refused(statement("packed", signature(vec![1; 70]))), WebauthnError::Signature);
    let mut certified = signature(vec![1; 70]);
    certified.push((text("x5c"), Value::Array(vec![])));
    assert_eq!(refused(statement("packed", certified)), WebauthnError::Attestation);
    assert_eq!(refused(statement("none", signature(vec![]))), WebauthnError::Attestation);
    assert_eq!(refused(statement("tpm", vec![])), WebauthnError::Attestation);
}

#[test]
fn keys_of_the_three_algorithms_verify_and_others_are_refused() {
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed_key =
        [(1, number(1)), (3, number(-8)), (-1, number(6))].map(|(label, value)| (number(label), value));
    let x = (number(-2), Value::Bytes(ed.public_key().as_ref().to_vec()));
    let parse = |fields: &[(Value, Value)]| cose::PublicKey::parse(&octets(&Value::Map(fields.to_vec())));
    let key = parse(&[&ed_key[..], std::slice::from_ref(&x)].concat()).unwrap();
    assert_eq!(key.verify(b"m", ed.sign(b"m").as_ref()), Ok(()));
    assert_eq!(key.verify(b"n", ed.sign(b"m").as_ref()), Err(WebauthnError::Signature));

    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let mut signature = vec![0; rsa.public_modulus_len()];
    let random = aws_lc_rs::rand::SystemRandom::new();
    rsa.sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &random, b"m", &mut signature).unwrap();
    let octets_of = |number: &[u8]| Value::Bytes(number.to_vec());
    let modulus = rsa.public_key().modulus().big_endian_without_leading_zero().to_vec();
    let exponent = rsa.public_key().exponent().big_endian_without_leading_zero().to_vec();
    let rsa_key = |n: &[u8], e: &[u8]| {
        parse(&[
            (number(1), number(3)),
            (number(3), number(-257)),
            (number(-1), octets_of(n)),
            (number(-2), octets_of(e)),
        ])
    };
    assert_eq!(rsa_key(&modulus, &exponent).unwrap().verify(b"m", &signature), Ok(()));
    assert_eq!(rsa_key(&modulus[..128], &exponent), Err(WebauthnError::Key));
    assert_eq!(rsa_key(&modulus, &[1; 5]), Err(WebauthnError::Key));

    // Twice the same label, a point that is not on the curve, an algorithm of another kind of key.
    assert_eq!(parse(&[&ed_key[..], &[x.clone(), x.clone()]].concat()), Err(WebauthnError::Key));
    let point = [
        (1, number(2)),
        (3, number(-7)),
        (-1, number(1)),
        (-2, octets_of(&[1; 32])),
        (-3, octets_of(&[1; 32])),
    ];
    assert_eq!(parse(&point.map(|(label, value)| (number(label), value))), Err(WebauthnError::Key));
    let mixed = [(number(1), number(1)), (number(3), number(-7)), (number(-1), number(6)), x];
    assert_eq!(parse(&mixed), Err(WebauthnError::Key));
}

proptest! {
    #[test]
    fn no_octets_make_a_panic_or_a_credential(a in any::<Vec<u8>>(), b in any::<Vec<u8>>(), c in any::<Vec<u8>>()) {
        let soft = authenticator();
        let (client_data, _) = soft.create(CHALLENGE);
        for client_data in [&a, &client_data] {
            let made = us().register(CHALLENGE, Attestation { client_data, object: &b });
            prop_assert!(made.is_err());
        }
        let credential = Credential { id: a.clone(), cose_key: soft.cose_key(), sign_count: 0 };
        let given = soft.get(CHALLENGE);
        let assertion =
            Assertion { client_data: &given.client_data, authenticator_data: &b, signature: &c };
        prop_assert!(us().authenticate(CHALLENGE, &credential, assertion).is_err());
        let _any = challenge_of(&a);
        let _any = cose::PublicKey::parse(&b);
    }

    #[test]
    fn a_registration_with_a_changed_octet_never_panics(
        place in any::<prop::sample::Index>(), with in 1_u8.., cut in any::<prop::sample::Index>(),
    ) {
        let (client_data, mut object) = authenticator().create(CHALLENGE);
        let at = place.index(object.len());
        object[at] ^= with;
        let _any = us().register(CHALLENGE, Attestation { client_data: &client_data, object: &object });
        object[at] ^= with;
        object.truncate(cut.index(object.len()));
        let made = us().register(CHALLENGE, Attestation { client_data: &client_data, object: &object });
        prop_assert!(made.is_err());
    }

    #[test]
    fn a_proof_with_a_changed_octet_is_refused(place in any::<prop::sample::Index>(), with in 1_u8..) {
        let soft = authenticator();
        let credential = Credential { sign_count: 0, ..registered(&soft).unwrap() };
        let mut given = soft.get(CHALLENGE);
        let at = place.index(given.client_data.len());
        given.client_data[at] ^= with;
        prop_assert!(proven(&credential, &given, CHALLENGE).is_err());
        given.client_data[at] ^= with;
        let at = place.index(given.authenticator_data.len());
        given.authenticator_data[at] ^= with;
        prop_assert!(proven(&credential, &given, CHALLENGE).is_err());
    }
}
