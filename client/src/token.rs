//! The session token that the gateway gave: carried, never believed. Only the gateway can verify it.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::Deserialize;

/// Bytes of a token at most: more would not fit a request's head.
pub(crate) const TOKEN_LEN_MAX: usize = 8 * 1024;

/// A JWT as the gateway issued it. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

/// The text is no token: empty, too long, or with characters that no JWT has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected a JWT of at most {TOKEN_LEN_MAX} bytes")]
pub(crate) struct TokenError;

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    email: Option<String>,
    sub: Option<String>,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: Option<String>,
}

impl Token {
    /// A token of a text around which white space is dropped.
    ///
    /// # Errors
    /// [`TokenError`] for what cannot stand in a header as a JWT.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let is_jwt = !text.is_empty()
            && text.len() <= TOKEN_LEN_MAX
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'='));
        if is_jwt { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }

    /// The token itself, for the cache file and `auth`.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `Authorization: Pomerium <jwt>`, marked as sensitive.
    pub(crate) fn authorization(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Pomerium {}", self.0))
            .expect("a token has only characters that a header may have");
        value.set_sensitive(true);
        value
    }

    /// When the token says that it ends; `None` when it does not say.
    pub(crate) fn expires(&self) -> Option<SystemTime> {
        let seconds = self.claims()?.exp?;
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        UNIX_EPOCH.checked_add(since)
    }

    /// Whether the token says that it has ended.
    pub(crate) fn is_expired(&self, wall: SystemTime) -> bool {
        self.expires().is_some_and(|end| end <= wall)
    }

    /// Who the token says the person is: the email, or else the subject.
    pub(crate) fn person(&self) -> Option<String> {
        let claims = self.claims()?;
        claims.email.or(claims.sub).map(|name| name.chars().filter(|c| !c.is_control()).collect())
    }

    /// The device key that the token says it is bound to (`cnf`, RFC 8705, 3.1).
    pub(crate) fn bound_to(&self) -> Option<String> {
        self.claims()?.cnf?.certificate
    }

    fn claims(&self) -> Option<Claims> {
        let payload = self.0.split('.').nth(1)?;
        let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An unsigned token that ends at the given second.
    pub(crate) fn token_until(exp: i64) -> Token {
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"email":"alice@corp.example"}}"#));
        Token::parse(&format!("e30.{payload}.c2ln")).unwrap()
    }

    /// The same, of a session that is bound to some device.
    pub(crate) fn bound_until(exp: i64) -> Token {
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp},"cnf":{{"x5t#S256":"abc"}}}}"#));
        Token::parse(&format!("e30.{payload}.c2ln")).unwrap()
    }

    #[test]
    fn the_end_of_a_token_is_read_and_believed_by_nobody_else() {
        let token = token_until(1_700_000_000);
        let end = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(token.expires(), Some(end));
        assert!(token.is_expired(end));
        assert!(!token.is_expired(end - Duration::from_secs(1)));
        assert_eq!(token.person().as_deref(), Some("alice@corp.example"));
    }

    #[test]
    fn the_key_of_a_bound_token_is_read() {
        let bound =
            |claims: &str| Token::parse(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))).unwrap();
        assert_eq!(bound(r#"{"cnf":{"x5t#S256":"abc"}}"#).bound_to().as_deref(), Some("abc"));
        assert_eq!(bound(r#"{"cnf":{"jkt":"abc"}}"#).bound_to(), None);
        assert_eq!(token_until(1).bound_to(), None);
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", token_until(1)), "Token(..)");
        assert!(!format!("{:?}", token_until(1).authorization()).contains("e30"));
    }

    #[test]
    fn what_could_break_a_header_is_no_token() {
        for text in ["", " ", "a b", "a\r\nX: y", "a;b", &"a".repeat(TOKEN_LEN_MAX + 1)] {
            assert_eq!(Token::parse(text), Err(TokenError));
        }
    }

    proptest! {
        #[test]
        fn any_text_that_is_a_token_can_be_sent_and_read(text in ".{0,200}") {
            if let Ok(token) = Token::parse(&text) {
                prop_assert!(token.authorization().is_sensitive());
                let _may_be_none = token.expires();
            }
        }
    }
}
