use aws_lc_rs::{agreement, error::Unspecified};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

/// The pair of RFC 7748, 6.1.
fn alice() -> (PrivateKey, PublicKey) {
    let bytes = |text: &str| <[u8; 32]>::try_from(STANDARD.decode(text).unwrap()).unwrap();
    (
        PrivateKey::from_random(bytes("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=")),
        PublicKey::new(bytes("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")).unwrap(),
    )
}

fn enrolment() -> Enrolment {
    Enrolment {
        id: "p1".to_owned(),
        name: "phone".parse().unwrap(),
        address_v4: "100.96.0.7".parse().unwrap(),
        address_v6: "fd5a:1f3c:8b0e:0:8000::7".parse().unwrap(),
        preshared_key: PresharedKey::new([7; 32]),
        gateway_public_key: alice().1,
        endpoint: "auth.corp.example:51820".parse().unwrap(),
        dns: vec!["100.64.0.1".parse().unwrap(), "fd00::53".parse().unwrap()],
        allowed_ips: vec!["100.64.0.0/11".parse().unwrap(), "fd5a:1f3c:8b0e::/65".parse().unwrap()],
    }
}

#[test]
fn a_public_key_follows_from_the_private_one() {
    let (private, public) = alice();
    assert_eq!(private.public_key(), public);
    assert_eq!(format!("{private:?} {:?}", PresharedKey::new([7; 32])), "[secret] [secret]");
}

#[test]
fn points_that_agree_with_everybody_are_no_keys() {
    let agrees = |bytes: [u8; 32]| {
        let private =
            agreement::PrivateKey::from_private_key(&agreement::X25519, alice().0.expose()).unwrap();
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, bytes);
        agreement::agree(&private, peer, Unspecified, |_| Ok(()))
    };
    let mut refused = vec![[0; 32]];
    for hex in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ] {
        let bytes: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        refused.push(bytes.try_into().unwrap());
    }
    for bytes in refused {
        assert_eq!(agrees(bytes), Err(Unspecified), "{bytes:?}");
        assert_eq!(PublicKey::new(bytes), Err(BadKey::LowOrder), "{bytes:?}");
    }
}

#[test]
fn a_point_has_one_name() {
    let mut high_bit = *alice().1.as_bytes();
    high_bit[31] |= 0x80;
    let mut prime = [0xff; 32];
    (prime[0], prime[31]) = (0xed, 0x7f);
    for bytes in [high_bit, prime, [0xff; 32]] {
        assert_eq!(PublicKey::new(bytes), Err(BadKey::NotCanonical));
    }
    let text = alice().1.to_string();
    for wrong in ["", "AAAA", &text[..43], &format!("{text} "), &text.replace('=', "")] {
        assert_eq!(wrong.parse::<PublicKey>(), Err(BadKey::Text), "{wrong}");
    }
}

#[test]
fn a_name_looks_like_itself() {
    for good in ["phone", "Ada's router", "Büro 3", "電話", &"x".repeat(64)] {
        assert_eq!(good.parse::<PeerName>().unwrap().as_str(), good);
    }
    assert_eq!(" phone ".parse::<PeerName>().unwrap().as_str(), "phone");
    for bad in
        ["", "  ", "a\nPostUp = id", "a\u{1b}[2J", "a\u{202e}b", "a\u{2028}b", "\u{feff}a", &"x".repeat(65)]
    {
        assert_eq!(bad.parse::<PeerName>(), Err(PeerNameError), "{bad:?}");
    }
}

#[test]
fn a_file_has_what_wg_quick_reads() {
    let (private, public) = alice();
    let expected = format!(
        "# phone\n[Interface]\nPrivateKey = {}\nAddress = 100.96.0.7/32, fd5a:1f3c:8b0e:0:8000::7/128\n\
         DNS = 100.64.0.1, fd00::53\n\n[Peer]\nPublicKey = {public}\nPresharedKey = {}\nEndpoint = auth.corp.example:51820\n\
         AllowedIPs = 100.64.0.0/11, fd5a:1f3c:8b0e::/65\nPersistentKeepalive = 25\n",
        STANDARD.encode(private.expose()),
        STANDARD.encode([7; 32]),
    );
    assert_eq!(wg_quick(&private, &enrolment()), expected);
}

#[test]
fn an_answer_that_would_write_lines_of_its_own_is_none() {
    let good = serde_json::to_value(enrolment()).unwrap();
    assert_eq!(serde_json::from_value::<Enrolment>(good.clone()).unwrap(), enrolment());
    for (field, value) in [
        ("name", "phone\nPostUp = id"),
        ("endpoint", "auth.corp.example:51820\nPostUp = id"),
        ("address_v4", "100.64.0.1\nPostUp = id"),
        ("gateway_public_key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ] {
        let mut bad = good.clone();
        bad[field] = value.into();
        assert!(serde_json::from_value::<Enrolment>(bad).is_err(), "{field}");
    }
    for list in ["dns", "allowed_ips"] {
        let mut bad = good.clone();
        bad[list] = vec!["100.64.0.1/32\nPostUp = id"].into();
        assert!(serde_json::from_value::<Enrolment>(bad).is_err(), "{list}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_key_or_refused(text in "\\PC{0,60}") {
        if let Ok(key) = text.parse::<PublicKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn the_public_key_of_any_private_one_is_a_key(bytes: [u8; 32]) {
        let public = PrivateKey::from_random(bytes).public_key();
        prop_assert_eq!(PublicKey::new(*public.as_bytes()), Ok(public));
    }
}
