//! What the browser says of the page that asked (5.8.1).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Ceremony, RelyingParty, WebauthnError};

/// Bytes of client data at most: four short fields, and what later browsers may add.
const CLIENT_DATA_LEN_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
}

impl Ceremony {
    const fn kind(self) -> &'static str {
        match self {
            Self::Registration => "webauthn.create",
            Self::Authentication => "webauthn.get",
        }
    }
}

/// The challenge that an answer claims to be to: to look it up, not to believe it.
///
/// # Errors
/// [`WebauthnError::ClientData`].
pub fn challenge_of(client_data: &[u8]) -> Result<Vec<u8>, WebauthnError> {
    decoded(&parse(client_data)?)
}

impl RelyingParty {
    /// What the authenticator signs in the place of the client data, once these are what they must be.
    pub(super) fn client_data_hash(
        &self,
        client_data: &[u8],
        ceremony: Ceremony,
        challenge: &[u8],
    ) -> Result<[u8; 32], WebauthnError> {
        let said = parse(client_data)?;
        if said.kind != ceremony.kind() {
            return Err(WebauthnError::Ceremony);
        }
        if !bool::from(decoded(&said)?.ct_eq(challenge)) {
            return Err(WebauthnError::Challenge);
        }
        if said.origin != self.origin || said.cross_origin {
            return Err(WebauthnError::Origin);
        }
        Ok(Sha256::digest(client_data).into())
    }
}

fn parse(client_data: &[u8]) -> Result<ClientData, WebauthnError> {
    if client_data.len() > CLIENT_DATA_LEN_MAX {
        return Err(WebauthnError::ClientData);
    }
    serde_json::from_slice(client_data).map_err(|_| WebauthnError::ClientData)
}

fn decoded(said: &ClientData) -> Result<Vec<u8>, WebauthnError> {
    URL_SAFE_NO_PAD.decode(&said.challenge).map_err(|_| WebauthnError::ClientData)
}
