//! A browser shows that it is a device of its person: an app whose policy asks for one sends it to the sign-in host, where
//! a challenge of this very session is signed with the device's credential.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{
    AuthRequest, Authenticate,
    browser_device::{CHALLENGE_LIFE, Refused, message, octets},
    device_pages, pages,
    sign_in::{CLOCK_SKEW, REDIRECT_URI, SIGN_IN_LIFE, bad_request},
    sign_out::SESSION_ID,
    signed_url, store_failed,
};
use crate::{
    device::webauthn::{Assertion, Ceremony},
    session::{DeviceProof, Session, SessionId},
    store::{StoreError, device_id_of},
};

pub(super) const PROOF_PATH: &str = "/.pomerium/webauthn";
pub(super) const PROOF_OPTIONS_PATH: &str = "/.pomerium/webauthn/options";

const STALE: &str = "This link is not valid any more. Open the application again.";

/// What a signed link to [`PROOF_PATH`] says.
struct Wanted {
    back: Url,
    /// The session that the app saw.
    session_id: SessionId,
}

/// What the script posts after `navigator.credentials.get`.
#[derive(Deserialize)]
struct Given {
    credential_id: String,
    client_data: String,
    authenticator_data: String,
    signature: String,
}

impl Authenticate {
    /// Sends the browser of a session to show on what device it is, and back to `original_url`.
    #[must_use]
    pub fn device_proof_response(
        &self,
        original_url: &Url,
        session: &Session,
        now: SystemTime,
    ) -> Response<Bytes> {
        let parameters = [(REDIRECT_URI, original_url.as_str()), (SESSION_ID, session.id.as_str())];
        pages::redirect(self.signed(PROOF_PATH, &parameters, SIGN_IN_LIFE, now).as_str())
    }

    fn wanted(&self, req: &AuthRequest<'_>, now: SystemTime) -> Option<Wanted> {
        let secret = self.config.shared_secret.expose();
        let verified = signed_url::verify(secret, req.url, CLOCK_SKEW, now).ok()?;
        let back: Url = verified.parameter(REDIRECT_URI)?.parse().ok()?;
        let session_id = SessionId::new(verified.parameter(SESSION_ID)?);
        self.is_our_url(&back).then_some(Wanted { back, session_id })
    }

    pub(super) async fn proof_page(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let Some(wanted) = self.wanted(req, now) else { return bad_request(STALE) };
        let page = async {
            let session = self.sign_in_host_session(req, now).await?;
            let Some(session) = session.filter(|session| session.id == wanted.session_id) else {
                return Ok(other_session());
            };
            let has_any = !self.store.credentials(&session.user_id).await?.is_empty();
            let here = format!("{PROOF_PATH}?{}", req.url.query().unwrap_or_default());
            let app = wanted.back.host_str().unwrap_or_default();
            Ok::<_, StoreError>(device_pages::proof(&session, &here, app, has_any))
        };
        page.await.unwrap_or_else(|error| store_failed(&error))
    }

    /// `PublicKeyCredentialRequestOptions` (5.5), octets in base64url.
    pub(super) async fn proof_options(
        &self,
        req: &AuthRequest<'_>,
        now: SystemTime,
    ) -> Result<Value, Refused> {
        let session = self.asking(req, now).await?;
        let us = self.relying_party()?;
        let known = self.known_credentials(&session).await?;
        // Without a list, a browser would offer whatever it has for this site.
        if known.is_empty() {
            return Err(Refused::request("No browser of yours is known here."));
        }
        Ok(json!({
            "challenge": self.challenge(&session, Ceremony::Authentication, now).await?,
            "rpId": us.id(),
            "timeout": CHALLENGE_LIFE.as_millis(),
            "userVerification": "preferred",
            "allowCredentials": known,
        }))
    }

    /// The browser's answer: with a credential of this person, to a challenge of this session.
    pub(super) async fn prove(&self, req: &AuthRequest<'_>, now: SystemTime) -> Result<Value, Refused> {
        let session = self.asking(req, now).await?;
        let wanted = self.wanted(req, now).ok_or(Refused::request(STALE))?;
        if session.id != wanted.session_id {
            return Err(Refused::request("You have signed in anew meanwhile. Open the application again."));
        }
        let given: Given = message(&req.form)?;
        let client_data = octets(&given.client_data)?;
        let challenge =
            self.answered_challenge(&session, Ceremony::Authentication, &client_data, now).await?;
        let id = octets(&given.credential_id)?;
        let known = self.store.credentials(&session.user_id).await?;
        let Some(credential) = known.iter().find(|credential| credential.id == id) else {
            return Err(Refused::request("This is no device of yours. Add it to your devices first."));
        };
        let assertion = Assertion {
            client_data: &client_data,
            authenticator_data: &octets(&given.authenticator_data)?,
            signature: &octets(&given.signature)?,
        };
        let count = self.relying_party()?.authenticate(&challenge, credential, assertion)?;
        let proof = DeviceProof {
            device_id: device_id_of(&credential.id),
            expires_at: now + self.config.device_proof_life,
        };
        if !self.store.prove_device(&session, &proof, count).await? {
            return Err(Refused::request("The device or the session is gone. Open the application again."));
        }
        tracing::info!(device = %proof.device_id, session = %session.id, user = %session.user_id, "a browser proved its device");
        Ok(json!({"location": wanted.back}))
    }
}

/// A proof would be written into another session than the one that the app sees, and asked for again at once.
fn other_session() -> Response<Bytes> {
    pages::problem(
        StatusCode::CONFLICT,
        "The application knows you by another sign-in than this one. Sign out at the application, and open it again.",
    )
}
