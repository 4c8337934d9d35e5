//! What a browser carries to a program that asked for proof: a code instead of the token, worth something once, for a minute,
//! and only to the process that knows the verifier (RFC 7636).

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    AuthRequest, Authenticate, Holder, cookies, ticket,
    token_endpoint::{Form, Issued, TokenRefusal},
};
use crate::secret::Secret;

/// The parameter of a program's question where to sign in, and of the URLs that follow from it.
pub(super) const CODE_CHALLENGE: &str = "pomerium_code_challenge";
/// The parameter by which the program's listener gets the code.
pub(super) const CODE: &str = "pomerium_code";
/// Says in the answer to the question that nothing but a code will come; gateways that know no codes do not say it.
pub(super) const HAND_OVER_FIELD: &str = "pomerium-hand-over";
pub(super) const GRANT_TYPE: &str = "authorization_code";

/// From the browser's arrival at the program to the program's question for the token.
const LIFE: Duration = Duration::from_secs(60);
/// Octets of an encoded SHA-256.
const CHALLENGE_LEN: usize = 43;

/// SHA-256 of a verifier, base64url without padding (RFC 7636, 4.2); the plain method is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct CodeChallenge(String);

impl CodeChallenge {
    /// The challenge of a program that named one.
    ///
    /// # Errors
    /// [`NoChallenge`] for what no SHA-256 looks like: it must not fall back to a hand-over of the token.
    pub(super) fn of_parameter(text: Option<&str>) -> Result<Option<Self>, NoChallenge> {
        let Some(text) = text else { return Ok(None) };
        let is_digest = text.len() == CHALLENGE_LEN && URL_SAFE_NO_PAD.decode(text).is_ok();
        if is_digest { Ok(Some(Self(text.to_owned()))) } else { Err(NoChallenge) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn is_met_by(&self, verifier: &str) -> bool {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        digest.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

/// What was named as a challenge is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoChallenge;

/// What a code stands for.
#[derive(Serialize, Deserialize)]
struct HandOver {
    handle: String,
    challenge: CodeChallenge,
}

impl Authenticate {
    /// A code for this handle; `None` without randomness.
    pub(super) fn code_for(
        &self,
        handle: &Secret<String>,
        challenge: CodeChallenge,
        now: SystemTime,
    ) -> Option<String> {
        let hand_over = HandOver { handle: handle.expose().clone(), challenge };
        ticket::seal(self.config.shared_secret.expose(), CODE, hand_over, now + LIFE)
    }

    /// The token for a code, to whoever proves to have asked for it. A wrong proof uses the code up as a right one does:
    /// somebody else has it.
    pub(super) async fn redeem(
        &self,
        req: &AuthRequest<'_>,
        form: &Form,
        now: SystemTime,
    ) -> Result<Issued, TokenRefusal> {
        const STALE: &str = "the code is unknown, used or too old: begin again";
        let code = form.one("code").ok_or(TokenRefusal::request("code is missing"))?;
        let verifier = form.one("code_verifier").ok_or(TokenRefusal::request("code_verifier is missing"))?;
        let opened = ticket::open(self.config.shared_secret.expose(), CODE, code, now);
        let (HandOver { handle, challenge }, end) = opened.ok_or(TokenRefusal::grant(STALE))?;
        let name = format!("code:{}", cookies::fingerprint(code));
        if !self.store.claim_once(&name, end, now).await? {
            tracing::warn!("a code of a sign-in was shown again: somebody may have copied it");
            return Err(TokenRefusal::grant(STALE));
        }
        if !challenge.is_met_by(verifier) {
            tracing::warn!(
                "a code of a sign-in was shown by a process that did not ask for it: the code is void"
            );
            return Err(TokenRefusal::grant("the code was given to another process"));
        }
        let holder = Holder::Connection(req.key);
        let found = self.session_of_token(&handle, req.url.host_str(), holder, now).await?;
        let session = found.map_err(|error| {
            tracing::debug!(%error, "a code of a sign-in stands for nothing any more");
            TokenRefusal::grant("the session of this code has ended, or is for another host or device")
        })?;
        Ok(Issued { token: Secret::new(handle), session })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_challenge_is_met_by_its_verifier_alone() {
        // RFC 7636, appendix B.
        let challenge = Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let challenge = CodeChallenge::of_parameter(challenge).unwrap().unwrap();
        assert!(challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        for other in ["", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK", challenge.as_str()] {
            assert!(!challenge.is_met_by(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_digest_is_no_challenge(text in ".{0,60}") {
            let is_digest = URL_SAFE_NO_PAD.decode(&text).is_ok_and(|octets| octets.len() == 32);
            prop_assert_eq!(CodeChallenge::of_parameter(Some(&text)).is_ok(), is_digest);
        }
    }
}
