//! A browser becomes a device: the page of a person's devices on the sign-in host, and a new WebAuthn credential.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    AuthRequest, Authenticate, device_pages, device_proof, pages, sign_in::bad_request,
    sign_out::is_same_origin, store_failed, token_endpoint::Form,
};
use crate::{
    device::webauthn::{self, ALGORITHMS, Attestation, Ceremony, RelyingParty, WebauthnError},
    portal::say,
    session::{Session, demand::SignInDemand},
    store::{CREDENTIALS_MAX, Enrolled, StoreError, aead::AeadError, device_id_of},
};

pub(super) const DEVICES_PATH: &str = "/.pomerium/devices";
pub(super) const ENROL_OPTIONS_PATH: &str = "/.pomerium/devices/options";
pub(super) const ENROL_PATH: &str = "/.pomerium/devices/enrol";
pub(super) const REMOVE_PATH: &str = "/.pomerium/devices/remove";

/// For a person to find and touch their authenticator.
pub(super) const CHALLENGE_LIFE: Duration = Duration::from_secs(120);
const CHALLENGE_LEN: usize = 32;
/// Characters of a device's name at most.
pub(super) const NAME_LEN_MAX: usize = 64;

/// Why the page's script gets no for an answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// What the person is told.
    Told(StatusCode, &'static str),
    /// The authenticator's answer is not believed.
    Answer(WebauthnError),
    Store(StoreError),
}

impl Refused {
    pub(super) const fn request(what: &'static str) -> Self {
        Self::Told(StatusCode::BAD_REQUEST, what)
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let (status, what) = match self {
            Self::Told(status, what) => (status, what),
            Self::Answer(error) => {
                tracing::info!(%error, "an authenticator's answer was refused");
                (StatusCode::BAD_REQUEST, "The browser's answer is not valid here. Try again.")
            }
            Self::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the session store failed");
                let what = "Devices cannot be read at the moment. Try again in a minute.";
                (StatusCode::SERVICE_UNAVAILABLE, what)
            }
        };
        let mut response = pages::json(&json!({"error": say(what)}));
        *response.status_mut() = status;
        response
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<WebauthnError> for Refused {
    fn from(error: WebauthnError) -> Self {
        Self::Answer(error)
    }
}

/// What the script posts after `navigator.credentials.create`.
#[derive(Deserialize)]
struct Made {
    name: String,
    client_data: String,
    attestation_object: String,
}

impl Authenticate {
    /// Answers the paths of browsers as devices, with `GET` or `POST`; `None` where there is no such page.
    pub(super) async fn browser_device(
        &self,
        req: &AuthRequest<'_>,
        now: SystemTime,
    ) -> Option<Response<Bytes>> {
        let is_read = req.method == Method::GET || req.method == Method::HEAD;
        let is_post = req.method == Method::POST;
        let result = match req.url.path() {
            DEVICES_PATH if is_read => return Some(self.devices_page(req, now).await),
            REMOVE_PATH if is_post => return Some(self.remove_own_device(req, now).await),
            device_proof::PROOF_PATH if is_read => return Some(self.proof_page(req, now).await),
            ENROL_OPTIONS_PATH if is_post => self.enrol_options(req, now).await,
            ENROL_PATH if is_post => self.enrol(req, now).await,
            device_proof::PROOF_OPTIONS_PATH if is_post => self.proof_options(req, now).await,
            device_proof::PROOF_PATH if is_post => self.prove(req, now).await,
            DEVICES_PATH
            | REMOVE_PATH
            | ENROL_OPTIONS_PATH
            | ENROL_PATH
            | device_proof::PROOF_OPTIONS_PATH
            | device_proof::PROOF_PATH => {
                let what = "This page cannot be used that way.";
                return Some(pages::problem(StatusCode::METHOD_NOT_ALLOWED, what));
            }
            _ => return None,
        };
        Some(result.map_or_else(Refused::into_response, |said| pages::json(&said)))
    }

    async fn devices_page(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        match self.sign_in_host_session(req, now).await {
            Ok(Some(session)) => match self.store.devices(Some(&session.user_id)).await {
                Ok(devices) => device_pages::devices(&session, &devices),
                Err(error) => store_failed(&error),
            },
            Ok(None) => self
                .sign_in_response(req.url, req.headers, &SignInDemand::default(), now)
                .unwrap_or_else(|error| store_failed(&error)),
            Err(error) => store_failed(&error),
        }
    }

    /// Of the person's own devices, and from our own page, alone.
    async fn remove_own_device(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        if !is_same_origin(req) {
            return bad_request("This form was not sent from here.");
        }
        let removed = async {
            let Some(session) = self.sign_in_host_session(req, now).await? else {
                return Ok(pages::problem(StatusCode::UNAUTHORIZED, "Sign in first."));
            };
            let form = Form::of(&req.form);
            let devices = self.store.devices(Some(&session.user_id)).await?;
            let Some(device) = devices.iter().find(|device| form.one("id") == Some(&device.id)) else {
                return Ok(bad_request("You have no such device."));
            };
            self.store.remove_device(device).await?;
            tracing::info!(device = %device.id, user = %device.user_id, "a person removed a device");
            Ok::<_, StoreError>(pages::redirect(DEVICES_PATH))
        };
        removed.await.unwrap_or_else(|error| store_failed(&error))
    }

    /// The session that a script of ours speaks for.
    pub(super) async fn asking(
        &self,
        req: &AuthRequest<'_>,
        now: SystemTime,
    ) -> Result<Arc<Session>, Refused> {
        if !is_same_origin(req) {
            return Err(Refused::request("This was not sent from here."));
        }
        let session = self.sign_in_host_session(req, now).await?;
        session
            .ok_or(Refused::Told(StatusCode::UNAUTHORIZED, "You are not signed in any more. Sign in first."))
    }

    pub(super) fn relying_party(&self) -> Result<RelyingParty, Refused> {
        RelyingParty::of(&self.config.authenticate_url).ok_or(Refused::Told(
            StatusCode::NOT_FOUND,
            "The sign-in host is an address without a name, for which browsers keep no keys. Tell your administrator.",
        ))
    }

    /// A fresh challenge for this session, kept until it is answered.
    pub(super) async fn challenge(
        &self,
        session: &Session,
        ceremony: Ceremony,
        now: SystemTime,
    ) -> Result<String, Refused> {
        let mut challenge = [0_u8; CHALLENGE_LEN];
        rand::fill(&mut challenge).map_err(|_| StoreError::Sealed(AeadError::NoRandomness))?;
        self.store.add_challenge(&session.id, ceremony, &challenge, now + CHALLENGE_LIFE, now).await?;
        Ok(URL_SAFE_NO_PAD.encode(challenge))
    }

    /// Takes the challenge that an answer is to: once, in time, and from the session that was asked.
    pub(super) async fn answered_challenge(
        &self,
        session: &Session,
        ceremony: Ceremony,
        client_data: &[u8],
        now: SystemTime,
    ) -> Result<Vec<u8>, Refused> {
        let challenge = webauthn::challenge_of(client_data)?;
        match self.store.take_challenge(&session.id, ceremony, &challenge, now).await? {
            true => Ok(challenge),
            false => Err(Refused::request("That took too long, or was already used. Try again.")),
        }
    }

    /// The person's credentials as a browser takes them.
    pub(super) async fn known_credentials(&self, session: &Session) -> Result<Vec<Value>, Refused> {
        let known = self.store.credentials(&session.user_id).await?;
        let named = |id: &[u8]| json!({"type": "public-key", "id": device_id_of(id)});
        Ok(known.iter().map(|credential| named(&credential.id)).collect())
    }

    /// `PublicKeyCredentialCreationOptions` (5.4), octets in base64url.
    async fn enrol_options(&self, req: &AuthRequest<'_>, now: SystemTime) -> Result<Value, Refused> {
        let session = self.asking(req, now).await?;
        let us = self.relying_party()?;
        let known = self.known_credentials(&session).await?;
        if known.len() >= CREDENTIALS_MAX {
            return Err(too_many());
        }
        let challenge = self.challenge(&session, Ceremony::Registration, now).await?;
        // Authenticators show the name and keep the id, which must not tell who it is (14.6.1).
        let person = URL_SAFE_NO_PAD.encode(Sha256::digest(session.user_id.as_str()));
        let algorithms = ALGORITHMS.map(|alg| json!({"type": "public-key", "alg": alg}));
        Ok(json!({
            "challenge": challenge,
            "rp": {"id": us.id(), "name": us.id()},
            "user": {"id": person, "name": session.email, "displayName": session.name},
            "pubKeyCredParams": algorithms,
            "timeout": CHALLENGE_LIFE.as_millis(),
            "attestation": "none",
            "authenticatorSelection": {"residentKey": "discouraged", "userVerification": "preferred"},
            "excludeCredentials": known,
        }))
    }

    async fn enrol(&self, req: &AuthRequest<'_>, now: SystemTime) -> Result<Value, Refused> {
        let session = self.asking(req, now).await?;
        let made: Made = message(&req.form)?;
        let name = name_of(&made.name)?;
        let (client_data, object) = (octets(&made.client_data)?, octets(&made.attestation_object)?);
        let challenge = self.answered_challenge(&session, Ceremony::Registration, &client_data, now).await?;
        let attestation = Attestation { client_data: &client_data, object: &object };
        let credential = self.relying_party()?.register(&challenge, attestation)?;
        match self.store.enrol_credential(&session.user_id, name, &credential, now).await? {
            Enrolled::New => {
                let device = device_id_of(&credential.id);
                tracing::info!(%device, user = %session.user_id, "a browser was enrolled, and waits for approval");
                Ok(json!({"location": DEVICES_PATH}))
            }
            Enrolled::Known => {
                Err(Refused::Told(StatusCode::CONFLICT, "This browser's key is known already."))
            }
            Enrolled::TooMany => Err(too_many()),
        }
    }
}

const fn too_many() -> Refused {
    Refused::Told(StatusCode::CONFLICT, "You have as many browsers as you may. Remove one first.")
}

/// A message of our script.
pub(super) fn message<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|_| Refused::request("The browser's answer cannot be read."))
}

pub(super) fn octets(text: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::request("The browser's answer cannot be read."))
}

/// What the person calls the device: a line that may be shown in a terminal.
fn name_of(text: &str) -> Result<&str, Refused> {
    let name = text.trim();
    if name.chars().count() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        return Err(Refused::request("The name is too long, or has characters that cannot be shown."));
    }
    Ok(name)
}
