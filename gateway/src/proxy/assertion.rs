//! `X-Pomerium-Jwt-Assertion`: what the app behind may believe about the person, signed as it is in the second of the request.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::{digest, hkdf};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::{
    SecretKey,
    elliptic_curve::sec1::ToSec1Point as _,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding},
};
use pomerium_shared::clock::Now;
use serde_json::{Value, json};

use crate::{
    config::IssuerFormat,
    session::{Session, SessionId},
};

/// The header that carries the assertion.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-pomerium-jwt-assertion");

/// Seconds for which an assertion is valid: long enough for clocks that differ, short enough to be no credential.
const LIFETIME_SECONDS: i64 = 300;

/// Signs assertions and publishes the keys that verify them.
pub(crate) struct Signer {
    key: EncodingKey,
    key_id: String,
    jwks: String,
    issuer: IssuerFormat,
    claims: Vec<(HeaderName, String)>,
    recent: Mutex<Recent>,
}

/// Assertions kept at most; more people than that in one second are signed for each time.
const RECENT_MAX: usize = 10_000;

/// What was signed in one second. A page is many requests at once, which all say the same of the same person; signing costs
/// more than all else that a request needs here.
#[derive(Default)]
struct Recent {
    second: i64,
    /// By host and session.
    signed: HashMap<String, HashMap<SessionId, (Session, HeaderValue)>>,
    count: usize,
}

impl Recent {
    /// The assertion of this very session, if it was signed in this second.
    fn get(&self, host: &str, session: &Session, second: i64) -> Option<HeaderValue> {
        let (said_of, token) = self.signed.get(host)?.get(&session.id)?;
        (self.second == second && said_of == session).then(|| token.clone())
    }

    fn keep(&mut self, host: &str, session: &Session, token: &HeaderValue, second: i64) {
        if self.second != second {
            *self = Self { second, ..Self::default() };
        }
        if self.count < RECENT_MAX {
            self.count += 1;
            let of_host = self.signed.entry(host.to_owned()).or_default();
            of_host.insert(session.id.clone(), (session.clone(), token.clone()));
        }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Why a signing key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    /// Not PEM, or not a P-256 key.
    #[error("signing_key must be a P-256 private key in PKCS#8 or SEC 1 PEM form")]
    NotP256,
}

impl Signer {
    /// A signer from the configured keys (the first signs, all are published), or from the shared secret where
    /// none is configured: HKDF-SHA256 with the info `derived-jwt-signing-key`.
    pub(crate) fn new(
        signing_keys: &[&str],
        shared_secret: &[u8; 32],
        issuer: IssuerFormat,
        claims: Vec<(HeaderName, String)>,
    ) -> Result<Self, SignerError> {
        let mut keys = signing_keys.iter().map(|pem| parse_key(pem)).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            keys.push(derive_key(shared_secret)?);
        }
        let first = keys.first().ok_or(SignerError::NotP256)?;
        let pem = first.to_pkcs8_pem(LineEnding::LF).map_err(|_| SignerError::NotP256)?;
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| SignerError::NotP256)?;
        let public: Vec<Value> = keys.iter().map(public_jwk).collect();
        let key_id = thumbprint(first);
        let jwks = json!({ "keys": public }).to_string();
        Ok(Self { key, key_id, jwks, issuer, claims, recent: Mutex::default() })
    }

    /// The JWKS document (RFC 7517) that apps verify assertions with.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// Signs what `session` is for the app on `host`; somebody without a session is signed as nobody.
    pub(crate) fn sign(&self, session: Option<&Session>, host: &str, now: Now) -> Option<HeaderValue> {
        let second = now.unix_seconds();
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = session
            && let Some(token) = recent().get(host, session, second)
        {
            return Some(token);
        }
        let token = self.sign_anew(session, host, second)?;
        if let Some(session) = session {
            recent().keep(host, session, &token, second);
        }
        Some(token)
    }

    fn sign_anew(&self, session: Option<&Session>, host: &str, second: i64) -> Option<HeaderValue> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = assertion_claims(session, host, self.issuer, &self.claims, second);
        let token = jsonwebtoken::encode(&header, &claims, &self.key).ok()?;
        HeaderValue::from_str(&token).ok()
    }
}

/// The claims of an assertion; all of the fixed ones are always there.
fn assertion_claims(
    session: Option<&Session>,
    host: &str,
    issuer: IssuerFormat,
    extra: &[(HeaderName, String)],
    issued_at: i64,
) -> serde_json::Map<String, Value> {
    let iss = match issuer {
        IssuerFormat::HostOnly => host.to_owned(),
        IssuerFormat::Uri => format!("https://{host}/"),
    };
    let user = session.map_or("", |s| s.user_id.as_str());
    let fixed = [
        ("iss", json!(iss)),
        ("aud", json!(host)),
        ("jti", json!(uuid::Uuid::new_v4().to_string())),
        ("iat", json!(issued_at)),
        ("exp", json!(issued_at + LIFETIME_SECONDS)),
        ("sub", json!(user)),
        ("user", json!(user)),
        ("email", json!(session.map_or("", |s| s.email.as_str()))),
        ("groups", json!(session.map_or(&[][..], |s| s.groups.as_slice()))),
        ("sid", json!(session.map_or("", |s| s.id.as_str()))),
        ("name", json!(session.map_or("", |s| s.name.as_str()))),
    ];
    let mut all: serde_json::Map<String, Value> =
        fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for (_, claim) in extra {
        if !all.contains_key(claim)
            && let Some(value) = session.and_then(|s| claim_text(s, claim))
        {
            all.insert(claim.clone(), Value::String(value));
        }
    }
    all
}

/// Sets each configured claim header, empty where the claim is missing, so that none can be forged.
pub(crate) fn set_claim_headers(
    headers: &mut HeaderMap,
    session: Option<&Session>,
    claims: &[(HeaderName, String)],
) {
    for (name, claim) in claims {
        let text = session.and_then(|s| claim_text(s, claim)).unwrap_or_default();
        let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        headers.insert(name, value);
    }
}

/// A claim's values, joined by commas.
pub(super) fn claim_text(session: &Session, claim: &str) -> Option<String> {
    let values = match claim {
        "email" => return Some(session.email.clone()),
        "name" => return Some(session.name.clone()),
        "groups" => return Some(session.groups.join(",")),
        "user" | "sub" => return Some(session.user_id.as_str().to_owned()),
        other => session.claims.get(other)?,
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(values.iter().map(text).collect::<Vec<_>>().join(","))
}

fn parse_key(pem: &str) -> Result<SecretKey, SignerError> {
    SecretKey::from_pkcs8_pem(pem)
        .or_else(|_| SecretKey::from_sec1_pem(pem))
        .map_err(|_| SignerError::NotP256)
}

/// Reads 40 bytes of HKDF output as a number, modulo n−1, plus 1: the compatible way to a P-256 scalar.
fn derive_key(shared_secret: &[u8]) -> Result<SecretKey, SignerError> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            40
        }
    }
    let mut okm = [0_u8; 40];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(shared_secret)
        .expand(&[b"derived-jwt-signing-key"], Length)
        .and_then(|expanded| expanded.fill(&mut okm))
        .map_err(|_| SignerError::NotP256)?;
    SecretKey::from_slice(&scalar_from(&okm)).map_err(|_| SignerError::NotP256)
}

/// n−1 of P-256, big endian.
const ORDER_MINUS_ONE: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x50,
];

/// `OS2IP(okm) mod (n−1) + 1`, by shifting in one bit at a time.
fn scalar_from(okm: &[u8; 40]) -> [u8; 32] {
    let mut rest = [0_u8; 33];
    for byte in okm {
        for bit in (0..8).rev() {
            let mut carry = (byte >> bit) & 1;
            for digit in rest.iter_mut().rev() {
                let next = *digit >> 7;
                *digit = (*digit << 1) | carry;
                carry = next;
            }
            if rest[0] != 0 || rest[1..] >= ORDER_MINUS_ONE[..] {
                subtract_order(&mut rest);
            }
        }
    }
    let mut scalar = [0_u8; 32];
    scalar.copy_from_slice(&rest[1..]);
    for digit in scalar.iter_mut().rev() {
        let (sum, overflow) = digit.overflowing_add(1);
        *digit = sum;
        if !overflow {
            break;
        }
    }
    scalar
}

fn subtract_order(rest: &mut [u8; 33]) {
    let mut borrow = false;
    for (index, digit) in rest.iter_mut().enumerate().rev() {
        let order = if index == 0 { 0 } else { ORDER_MINUS_ONE[index - 1] };
        let (first, under) = digit.overflowing_sub(order);
        let (second, under_again) = first.overflowing_sub(u8::from(borrow));
        *digit = second;
        borrow = under || under_again;
    }
}

fn coordinates(key: &SecretKey) -> (String, String) {
    let point = key.public_key().to_sec1_point(false);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let bytes = point.as_bytes();
    (encode(&bytes[1..33]), encode(&bytes[33..65]))
}

fn public_jwk(key: &SecretKey) -> Value {
    let (x, y) = coordinates(key);
    json!({ "use": "sig", "kty": "EC", "kid": thumbprint(key), "crv": "P-256", "alg": "ES256", "x": x, "y": y })
}

/// The JWK thumbprint (RFC 7638) as lower-case hex.
fn thumbprint(key: &SecretKey) -> String {
    let (x, y) = coordinates(key);
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    digest::digest(&digest::SHA256, canonical.as_bytes())
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};

    use super::*;

    #[test]
    fn the_derived_key_is_the_compatible_one() {
        let key = derive_key(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ01234567890+/AAAA=").unwrap();
        let hex: String = key.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "a81906cd82a27d3b7fdf1a17578693c67eea93085d3cbd82c32275d3c4321bfd");
    }

    #[test]
    fn an_app_can_verify_the_assertion_with_the_published_keys() {
        let signer = Signer::new(&[], &[7; 32], IssuerFormat::HostOnly, vec![]).unwrap();
        let now = Now::read();
        let token = signer.sign(None, "app.example", now).unwrap();
        let keys: JwkSet = serde_json::from_str(signer.jwks()).unwrap();
        let header = jsonwebtoken::decode_header(token.to_str().unwrap()).unwrap();
        let key = DecodingKey::from_jwk(keys.find(header.kid.as_deref().unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["app.example"]);
        validation.set_issuer(&["app.example"]);
        let claims =
            jsonwebtoken::decode::<Value>(token.to_str().unwrap(), &key, &validation).unwrap().claims;
        assert_eq!((&claims["email"], &claims["groups"]), (&json!(""), &json!([])));
    }

    #[test]
    fn a_second_has_one_assertion_for_each_host_and_each_state_of_a_session() {
        let signer = Signer::new(&[], &[7; 32], IssuerFormat::HostOnly, vec![]).unwrap();
        let now = Now::read();
        let session = Session {
            id: SessionId::new("s"),
            user_id: crate::session::UserId::new("alice"),
            idp_id: String::new(),
            email: String::new(),
            name: String::new(),
            groups: vec!["staff".to_owned()],
            claims: [].into(),
            issued_at: now.wall,
            expires_at: now.wall,
            bound_to: None,
            vouched_until: None,
            proof: None,
        };
        let sign = |session: &Session, host, now| signer.sign(Some(session), host, now).unwrap();
        let first = sign(&session, "a.example", now);
        assert_eq!(first, sign(&session, "a.example", now));
        assert_ne!(first, sign(&session, "b.example", now), "an app's assertion is for that app");
        let left = Session { groups: vec![], ..session.clone() };
        assert_ne!(first, sign(&left, "a.example", now), "what a person is no more is not said again");
        let later = Now { wall: now.wall + std::time::Duration::from_secs(1), ..now };
        assert_ne!(first, sign(&session, "a.example", later));
        assert_ne!(signer.sign(None, "a.example", now), signer.sign(None, "a.example", now));
    }
}
