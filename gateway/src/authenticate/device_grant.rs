//! Sign-in for a device without a browser (RFC 8628): the gateway itself is the authorization server, so that it works
//! with every identity provider. The person signs in as always, on another machine, and says yes to the code.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    AuthRequest, Authenticate, cookies, pages,
    sign_in::bad_request,
    sign_out::is_same_origin,
    store_failed,
    token_endpoint::{Form, Issued, TokenRefusal},
};
use crate::{
    session::{Session, demand::SignInDemand},
    store::{DeviceCode, DevicePoll, StoreError},
};

pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Where a person types the code, on the sign-in host.
pub(super) const DEVICE_PATH: &str = "/.pomerium/device";
const USER_CODE: &str = "user_code";

/// For a person to fetch another machine, sign in and type eight letters.
const LIFE: Duration = Duration::from_secs(600);
/// Between two questions of the device.
const INTERVAL: Duration = Duration::from_secs(5);
/// Letters that no two of which look or sound alike, and that make no words (RFC 8628, 6.1).
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a user code: 34 bits, of which a person may try ten in ten minutes.
const USER_CODE_LEN: usize = 8;
/// Codes that one person may try in [`LIFE`].
const TRIES_MAX: u32 = 10;

impl Authenticate {
    /// Begins a sign-in for a device that speaks to `host`.
    pub(super) async fn begin_device(
        &self,
        host: &str,
        now: SystemTime,
    ) -> Result<Response<Bytes>, TokenRefusal> {
        let device_code = cookies::random_text()?;
        let user_code = random_user_code()?;
        let code = DeviceCode {
            code_hash: hash_of(&device_code),
            user_code: user_code.clone(),
            host: host.to_owned(),
            expires_at: now + LIFE,
            interval: INTERVAL,
        };
        if !self.store.add_device_code(&code, now).await? {
            return Err(TokenRefusal::Busy("too many devices are signing in: try again in some minutes"));
        }
        let mut page = self.config.authenticate_url.clone();
        page.set_path(DEVICE_PATH);
        let mut whole = page.clone();
        whole.query_pairs_mut().append_pair(USER_CODE, &user_code);
        Ok(pages::json(&json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page.as_str(),
            "verification_uri_complete": whole.as_str(),
            "expires_in": LIFE.as_secs(),
            "interval": INTERVAL.as_secs(),
        })))
    }

    /// What a device that asks for its token gets.
    pub(super) async fn device_token(&self, form: &Form, now: SystemTime) -> Result<Issued, TokenRefusal> {
        let wait = |error, why| TokenRefusal::Invalid { error, why };
        let code = form.one("device_code").ok_or(TokenRefusal::request("device_code is missing"))?;
        match self.store.poll_device_code(&hash_of(code), now).await? {
            DevicePoll::Gone => {
                Err(wait("expired_token", "the code is unknown, used or too old: begin again"))
            }
            DevicePoll::Pending => Err(wait("authorization_pending", "nobody has confirmed the code yet")),
            DevicePoll::TooFast => Err(wait("slow_down", "ask less often")),
            DevicePoll::Denied => Err(wait("access_denied", "the person said no")),
            DevicePoll::Approved(id, host) => {
                let session = self.store.session(&id).await?.filter(|session| session.is_valid_at(now));
                let session =
                    session.ok_or_else(|| wait("access_denied", "the person has signed out meanwhile"))?;
                let token = self.program_token(&session, &[host], now);
                Ok(Issued { token: token.ok_or(TokenRefusal::Busy("no token can be made"))?, session })
            }
        }
    }

    /// Where the person types or confirms the code; they sign in first.
    pub(super) async fn device_page(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        match self.sign_in_host_session(req, now).await {
            Ok(Some(session)) => {
                let given = req.url.query_pairs().find(|(name, _)| name == USER_CODE);
                let code = given.and_then(|(_, text)| user_code_of(&text)).unwrap_or_default();
                pages::device(&session, &code)
            }
            Ok(None) => self
                .sign_in_response(req.url, req.headers, &SignInDemand::default(), now)
                .unwrap_or_else(|error| store_failed(&error)),
            Err(error) => store_failed(&error),
        }
    }

    /// The person's answer. Only our own form counts, and only a few tries.
    pub(super) async fn decide_device(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        if !is_same_origin(req) {
            return bad_request("This form was not sent from here.");
        }
        let session = match self.sign_in_host_session(req, now).await {
            Ok(Some(session)) => session,
            Ok(None) => return pages::problem(StatusCode::UNAUTHORIZED, "Sign in first."),
            Err(error) => return store_failed(&error),
        };
        match self.may_try(&session, now).await {
            Ok(true) => {}
            Ok(false) => {
                return pages::problem(
                    StatusCode::TOO_MANY_REQUESTS,
                    "You have tried too many codes. Wait ten minutes.",
                );
            }
            Err(error) => return store_failed(&error),
        }
        let form = Form::of(&req.form);
        let Some(code) = form.one(USER_CODE).and_then(user_code_of) else {
            return bad_request("This is no code. It has eight letters, like BCDF-GHJK.");
        };
        let approved = match form.one("answer") {
            Some("yes") => Some(&session.id),
            Some("no") => None,
            _ => return bad_request("Say yes or no."),
        };
        match self.store.decide_device_code(&code, approved, now).await {
            Ok(true) => {
                tracing::info!(session = %session.id, approved = approved.is_some(), "somebody answered a device");
                pages::device_done(approved.is_some())
            }
            Ok(false) => bad_request("No device waits with this code any more. Begin again on the device."),
            Err(error) => store_failed(&error),
        }
    }

    /// Takes one of the person's tries.
    async fn may_try(&self, session: &Session, now: SystemTime) -> Result<bool, StoreError> {
        for number in 0..TRIES_MAX {
            let place = format!("device-try:{}:{number}", session.id);
            if self.store.claim_once(&place, now + LIFE, now).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn hash_of(code: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(code))
}

/// Eight letters, evenly drawn, as `BCDF-GHJK`.
fn random_user_code() -> Result<String, TokenRefusal> {
    // Of 256 values the last 16 would make some letters likelier.
    const EVEN: u8 = 240;
    let mut letters = String::new();
    while letters.len() < USER_CODE_LEN {
        let mut octets = [0_u8; 16];
        rand::fill(&mut octets).map_err(|_| TokenRefusal::Busy("no randomness"))?;
        let drawn = octets.into_iter().filter(|octet| *octet < EVEN);
        letters.extend(drawn.map(|octet| char::from(ALPHABET[usize::from(octet % 20)])));
    }
    letters.truncate(USER_CODE_LEN);
    letters.insert(USER_CODE_LEN / 2, '-');
    Ok(letters)
}

/// The code that somebody typed, in any case and with any spaces and dashes; `None` if it is none.
fn user_code_of(text: &str) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let mut letters: String =
        text.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| c.to_ascii_uppercase()).collect();
    if letters.len() != USER_CODE_LEN || !letters.bytes().all(|letter| ALPHABET.contains(&letter)) {
        return None;
    }
    letters.insert(USER_CODE_LEN / 2, '-');
    Some(letters)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_reads_as_people_type_it() {
        for text in ["BCDF-GHJK", "bcdf ghjk", "bcdfghjk", "b-c-d-f-g-h-j-k"] {
            assert_eq!(user_code_of(text).as_deref(), Some("BCDF-GHJK"), "{text}");
        }
        for text in ["", "BCDF-GHJ", "BCDF-GHJKL", "ABCD-EFGH", "BCDF-GHJ1", "<script>"] {
            assert_eq!(user_code_of(text), None, "{text}");
        }
        let code = random_user_code().unwrap();
        assert_eq!(user_code_of(&code), Some(code));
    }

    proptest! {
        #[test]
        fn what_is_read_is_a_code(text in ".{0,80}") {
            if let Some(code) = user_code_of(&text) {
                prop_assert_eq!(user_code_of(&code), Some(code));
            }
        }
    }
}
