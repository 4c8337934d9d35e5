use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn session() -> Session {
    Session {
        id: SessionId::new("s1"),
        user_id: UserId::new("u1"),
        idp_id: "idp".into(),
        email: String::new(),
        name: String::new(),
        groups: vec![],
        claims: [].into(),
        issued_at: at(1_000),
        expires_at: at(2_000),
        bound_to: None,
        vouched_until: None,
        proof: None,
    }
}

fn key() -> HandleKey {
    HandleKey::new([7; 32], "authenticate.example.com")
}

fn handle() -> String {
    key().mint(&session(), &["app.example.com".into()], at(1_000)).unwrap().expose().clone()
}

fn payload(token: &str) -> serde_json::Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_handle_names_its_session_on_its_own_host() {
    let verified = key().verify(&handle(), Some("APP.example.com"), at(1_999)).unwrap();
    assert_eq!((verified.session_id.as_str(), verified.user_id.as_str()), ("s1", "u1"));
    assert_eq!(verified.audience, ["app.example.com"]);
    assert!(key().verify(&handle(), None, at(1_000)).is_ok());
}

#[test]
fn the_claims_are_those_that_compatible_software_reads() {
    assert_eq!(
        payload(&handle()),
        serde_json::json!({
            "iss": "authenticate.example.com", "sub": "u1", "aud": ["app.example.com"], "iat": 1_000, "exp": 2_000,
            "jti": "s1", "idp_id": "idp", "databroker_server_version": 0, "databroker_record_version": 0,
        })
    );
}

#[test]
fn a_handle_that_was_shown_before_is_judged_by_time_host_and_every_character_again() {
    let (key, handle) = (key(), handle());
    let app = Some("app.example.com");
    assert_eq!(key.verify(&handle, app, at(1_500)), key.verify(&handle, app, at(1_500)));
    assert!(key.verify(&handle, app, at(1_999)).is_ok());
    assert_eq!(key.verify(&handle, app, at(2_000)), Err(HandleError::Expired));
    assert_eq!(key.verify(&handle, app, at(900)), Err(HandleError::FromTheFuture));
    assert_eq!(key.verify(&handle, Some("other.example.com"), at(1_500)), Err(HandleError::OtherAudience));
    let (signed, signature) = handle.rsplit_once('.').unwrap();
    for other in [format!("{signed}."), format!("{signed}.A{}", &signature[1..]), format!("{handle} ")] {
        assert!(other == handle || key.verify(&other, app, at(1_500)).is_err(), "{other}");
    }
}

#[test]
fn an_expired_a_foreign_and_a_future_handle_are_refused() {
    assert_eq!(key().verify(&handle(), None, at(2_000)), Err(HandleError::Expired));
    assert_eq!(
        key().verify(&handle(), Some("other.example.com"), at(1_500)),
        Err(HandleError::OtherAudience)
    );
    assert_eq!(key().verify(&handle(), None, at(939)), Err(HandleError::FromTheFuture));
    assert!(key().verify(&handle(), None, at(940)).is_ok());
    let other = HandleKey::new([8; 32], "authenticate.example.com");
    assert_eq!(other.verify(&handle(), None, at(1_500)), Err(HandleError::Forged));
}

#[test]
fn no_algorithm_but_ours_is_believed() {
    let body = handle().split('.').nth(1).unwrap().to_owned();
    for alg in ["none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#));
        for signature in ["", handle().split('.').nth(2).unwrap()] {
            let forged = format!("{header}.{body}.{signature}");
            assert!(
                matches!(
                    key().verify(&forged, None, at(1_500)),
                    Err(HandleError::Forged | HandleError::Malformed)
                ),
                "{alg}"
            );
        }
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let secret = EncodingKey::from_secret(&[7; 32]);
        let signed = jsonwebtoken::encode(&Header::new(algorithm), &payload(&handle()), &secret).unwrap();
        assert_eq!(key().verify(&signed, None, at(1_500)), Err(HandleError::Forged));
    }
}

#[test]
fn a_handle_without_an_end_or_an_owner_is_refused() {
    for missing in ["exp", "sub", "jti", "aud", "iat", "idp_id"] {
        let mut claims = payload(&handle());
        claims.as_object_mut().unwrap().remove(missing);
        let secret = EncodingKey::from_secret(&[7; 32]);
        let signed = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert_eq!(key().verify(&signed, None, at(1_500)), Err(HandleError::Malformed), "{missing}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused(text in "\\PC{0,200}") {
        prop_assert!(key().verify(&text, None, at(1_500)).is_err());
    }

    #[test]
    fn a_handle_with_any_changed_character_is_refused(index in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]") {
        let original = handle();
        let mut changed = original.clone();
        let place = index.index(original.len());
        changed.replace_range(place..=place, &with);
        // The last character of the signature has two bits that carry nothing; decoders refuse or ignore them.
        prop_assume!(changed != original && place + 1 != original.len());
        prop_assert!(key().verify(&changed, None, at(1_500)).is_err());
    }
}

#[test]
fn a_bound_handle_says_to_which_key() {
    let bound = Session { bound_to: Some(Thumbprint::of(b"leaf")), ..session() };
    let token = key().mint(&bound, &["a.example".to_owned()], at(1_000)).unwrap();
    assert_eq!(key().verify(token.expose(), None, at(1_000)).unwrap().bound_to, bound.bound_to);
    assert_eq!(payload(token.expose())["cnf"]["x5t#S256"], bound.bound_to.unwrap().as_str());
}
