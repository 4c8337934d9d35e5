use jsonwebtoken::{EncodingKey, Header};
use pomerium_shared::clock::Now;
use serde_json::json;

use super::*;

/// A key, and the document that publishes it.
fn key(id: &str) -> (EncodingKey, JwkSet) {
    let key =
        EncodingKey::from_ec_pem(rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
    let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(id.to_owned());
    (key, JwkSet { keys: vec![jwk] })
}

fn token(key: &EncodingKey, host: &str, expires_in: i64) -> String {
    let claims = json!({
        "iss": host, "aud": host, "email": "alice@corp.example", "exp": Now::read().unix_seconds() + expires_in,
    });
    jsonwebtoken::encode(
        &Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) },
        &claims,
        key,
    )
    .unwrap()
}

#[test]
fn an_assertion_of_the_gateway_is_believed() {
    let (signing, published) = key("one");
    let claims = verify(&token(&signing, APP_HOST, 300), &published).unwrap();
    assert_eq!(text(&claims, "email"), "alice@corp.example");
}

#[test]
fn an_assertion_of_another_key_for_another_app_or_of_yesterday_is_not() {
    let (signing, published) = key("one");
    let (foreign, _) = key("one");
    assert!(verify(&token(&foreign, APP_HOST, 300), &published).is_none());
    assert!(verify(&token(&signing, "other.localhost", 300), &published).is_none());
    assert!(verify(&token(&signing, APP_HOST, -86_400), &published).is_none());
    assert!(verify("eyJhbGciOiJub25lIn0.e30.", &published).is_none());
}

#[test]
fn what_a_request_carries_is_shown_as_text() {
    let mut headers = HeaderMap::new();
    headers.insert("x-evil", HeaderValue::from_static("<script>alert(1)</script>"));
    let claims = Map::from_iter([("email".to_owned(), json!("<script>"))]);
    let page = page("/<script>", &headers, &Ok(claims)).into_string();
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("verified"));
}

#[test]
fn somebody_without_an_assertion_is_a_stranger() {
    let page = page("/", &HeaderMap::new(), &Err(Unknown::Missing)).into_string();
    assert!(page.contains("Hello, stranger") && !page.contains("verified"), "{page}");
}
