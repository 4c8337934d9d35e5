//! Session tokens as a forger makes them: parts of a real one, changed and signed again.

use anyhow::Context as _;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// What a token says, without looking at its signature.
///
/// # Errors
/// It is no JWT.
pub fn claims(token: &str) -> anyhow::Result<Value> {
    let payload = token.split('.').nth(1).context("a token has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// A token with these claims, signed with `key` (HS256).
#[must_use]
pub fn signed(claims: &Value, key: &[u8]) -> String {
    let message = message(&json!({"alg": "HS256", "typ": "JWT"}), claims);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token with these claims that says it needs no signature.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    format!("{}.", message(&json!({"alg": "none", "typ": "JWT"}), claims))
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}
