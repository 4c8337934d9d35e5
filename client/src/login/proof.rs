//! Proof that who asks for the token is who asked for the sign-in (RFC 7636): the gateway is told a digest beforehand and the
//! secret afterwards, each over TLS, and the browser carries neither. What it carries is worth nothing to whoever copies it.

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;

use super::LoginError;
use crate::token::Token;

/// Where a code is traded for the token.
pub(crate) const TOKEN_PATH: &str = "/.pomerium/api/v1/token";

/// A secret of this one sign-in. `Debug` shows nothing of it.
pub(crate) struct Verifier(String);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl Verifier {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut secret = [0_u8; 32];
        rand::fill(&mut secret).map_err(|_| std::io::Error::other("no random numbers"))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(secret)))
    }

    /// What the gateway is told when it is asked where to sign in: base64url of the SHA-256.
    pub(crate) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.0.as_bytes()))
    }

    /// The form that trades the code for the token.
    pub(super) fn form(&self, code: &str) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("code_verifier", &self.0)
            .finish()
    }
}

/// The token in the gateway's answer to that form.
pub(super) fn token_in(response: &Response<Bytes>) -> Result<Token, LoginError> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
    }
    if response.status() != StatusCode::OK {
        return Err(LoginError::CodeRefused);
    }
    let answer: Answer = serde_json::from_slice(response.body()).map_err(|_| LoginError::CodeRefused)?;
    Token::parse(&answer.access_token).map_err(|_| LoginError::CodeRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_digest_of_the_verifier_and_the_verifier_does_not_show() {
        // RFC 7636, appendix B.
        let verifier = Verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(format!("{verifier:?}"), "Verifier(..)");
        let form = verifier.form("a&b");
        assert!(form.contains("&code=a%26b&") && form.ends_with(&verifier.0), "{form}");
        assert_ne!(Verifier::new().unwrap().challenge(), Verifier::new().unwrap().challenge());
    }

    #[test]
    fn only_a_good_answer_has_a_token() {
        let answer = |status: u16, body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            token_in(&Response::builder().status(status).body(body).unwrap())
        };
        assert_eq!(answer(200, r#"{"access_token":"a.b.c"}"#).unwrap().expose(), "a.b.c");
        for (status, body) in [
            (400, r#"{"access_token":"a.b.c"}"#),
            (200, r#"{"access_token":"a b"}"#),
            (200, "{}"),
            (200, ""),
            (302, ""),
        ] {
            assert!(matches!(answer(status, body), Err(LoginError::CodeRefused)), "{status} {body}");
        }
    }
}
