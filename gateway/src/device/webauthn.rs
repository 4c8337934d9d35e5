//! WebAuthn, the relying party's half: whether a browser's authenticator made a credential for us, and whether it holds
//! one now (W3C Web Authentication, Level 3, 7.1 and 7.2).
//!
//! No I/O, no clock and no randomness: challenges are arguments, and whoever makes one sees to it that it is fresh and used
//! once. What a browser sends is bounded and parsed here, nowhere else.

mod attestation;
mod authenticator_data;
mod client_data;
mod cose;
#[cfg(test)]
pub(crate) mod soft;
#[cfg(test)]
mod tests;

use url::Url;

use self::authenticator_data::AuthenticatorData;
pub use self::{client_data::challenge_of, cose::ALGORITHMS};

/// Bytes of a credential's id at most (5.8.3).
const CREDENTIAL_ID_LEN_MAX: usize = 1023;

/// Whom authenticators make credentials for: the sign-in host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    id: String,
    origin: String,
}

/// Which of the two things a browser was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceremony {
    /// To make a credential: `navigator.credentials.create`.
    Registration,
    /// To prove that it holds one: `navigator.credentials.get`.
    Authentication,
}

/// A credential as we keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Chosen by the authenticator, at most 1023 bytes.
    pub id: Vec<u8>,
    /// The public key as the authenticator sent it (RFC 9052, 7).
    pub cose_key: Vec<u8>,
    /// How often the authenticator says that it signed; 0 always where it does not count.
    pub sign_count: u32,
}

/// What `navigator.credentials.create` came back with.
#[derive(Debug, Clone, Copy)]
pub struct Attestation<'a> {
    /// `clientDataJSON`.
    pub client_data: &'a [u8],
    /// `attestationObject`.
    pub object: &'a [u8],
}

/// What `navigator.credentials.get` came back with.
#[derive(Debug, Clone, Copy)]
pub struct Assertion<'a> {
    /// `clientDataJSON`.
    pub client_data: &'a [u8],
    /// `authenticatorData`.
    pub authenticator_data: &'a [u8],
    /// `signature`.
    pub signature: &'a [u8],
}

/// Why an authenticator's answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebauthnError {
    /// The client data are not what a browser writes.
    #[error("the client data are malformed")]
    ClientData,
    /// A proof in the place of a new credential, or the other way round.
    #[error("the answer is to another question")]
    Ceremony,
    /// Not the challenge that we set.
    #[error("the answer is to another challenge")]
    Challenge,
    /// Given to a page of somebody else, or in a frame of somebody else's.
    #[error("the answer was given to another site")]
    Origin,
    /// The authenticator data are not what an authenticator writes.
    #[error("the authenticator data are malformed")]
    AuthenticatorData,
    /// Made for another relying party.
    #[error("the credential is for another site")]
    RelyingParty,
    /// Nobody touched the authenticator.
    #[error("nobody was there when the authenticator answered")]
    UserAbsent,
    /// The public key is malformed, or of an algorithm that we did not ask for.
    #[error("the public key is of no kind that is taken here")]
    Key,
    /// The attestation is malformed, or of a format that we did not ask for.
    #[error("the attestation is of no kind that is taken here")]
    Attestation,
    /// The signature is not by this key over this answer.
    #[error("the signature does not hold")]
    Signature,
    /// The authenticator counts less than before: there are two of it.
    #[error("the authenticator counts less than before: it may have been copied")]
    Counter,
}

impl RelyingParty {
    /// The relying party of a sign-in host; `None` where it has no name, for which browsers make no credentials.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        let id = url.domain()?.to_owned();
        Some(Self { id, origin: url.origin().ascii_serialization() })
    }

    /// The relying party's id: the host's name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The credential of a registration (7.1).
    ///
    /// # Errors
    /// [`WebauthnError`]: no credential was made for us, in answer to this challenge.
    pub fn register(
        &self,
        challenge: &[u8],
        attestation: Attestation<'_>,
    ) -> Result<Credential, WebauthnError> {
        let hash = self.client_data_hash(attestation.client_data, Ceremony::Registration, challenge)?;
        let object = attestation::parse(attestation.object)?;
        let data = AuthenticatorData::parse(&object.authenticator_data)?;
        self.check(&data)?;
        let made = data.credential.ok_or(WebauthnError::AuthenticatorData)?;
        let key = cose::PublicKey::parse(&made.cose_key)?;
        object.check(&key, &hash)?;
        Ok(Credential { id: made.id, cose_key: made.cose_key, sign_count: data.sign_count })
    }

    /// Whether the authenticator of `credential` answered this challenge; its new count (7.2).
    ///
    /// # Errors
    /// [`WebauthnError`]: it did not, or not for us.
    pub fn authenticate(
        &self,
        challenge: &[u8],
        credential: &Credential,
        assertion: Assertion<'_>,
    ) -> Result<u32, WebauthnError> {
        let hash = self.client_data_hash(assertion.client_data, Ceremony::Authentication, challenge)?;
        let data = AuthenticatorData::parse(assertion.authenticator_data)?;
        self.check(&data)?;
        let signed = [assertion.authenticator_data, &hash].concat();
        cose::PublicKey::parse(&credential.cose_key)?.verify(&signed, assertion.signature)?;
        match (credential.sign_count, data.sign_count) {
            (0, 0) => Ok(0),
            (known, new) if new > known => Ok(new),
            _ => Err(WebauthnError::Counter),
        }
    }

    fn check(&self, data: &AuthenticatorData) -> Result<(), WebauthnError> {
        use sha2::Digest as _;
        if data.relying_party_hash[..] != sha2::Sha256::digest(self.id.as_bytes())[..] {
            return Err(WebauthnError::RelyingParty);
        }
        if !data.is_user_present {
            return Err(WebauthnError::UserAbsent);
        }
        Ok(())
    }
}
