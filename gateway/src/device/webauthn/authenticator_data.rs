//! What the authenticator says: for whom, in whose presence, how often, and which credential it has made (6.1).

use ciborium::Value;

use super::{CREDENTIAL_ID_LEN_MAX, WebauthnError};

/// Bytes of authenticator data at most: the longest id, an RSA key and some extensions.
const AUTHENTICATOR_DATA_LEN_MAX: usize = 8192;

const USER_PRESENT: u8 = 0x01;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKED_UP: u8 = 0x10;
const HAS_CREDENTIAL: u8 = 0x40;
const HAS_EXTENSIONS: u8 = 0x80;

/// Of the model's id, which without a trusted attestation proves nothing.
const AAGUID_LEN: usize = 16;

/// CBOR within CBOR: an authenticator needs two or three.
const NESTING_MAX: usize = 8;

/// Authenticator data, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthenticatorData {
    /// SHA-256 of the relying party's id.
    pub(super) relying_party_hash: [u8; 32],
    pub(super) is_user_present: bool,
    pub(super) sign_count: u32,
    /// In a registration.
    pub(super) credential: Option<AttestedCredential>,
}

/// The credential that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttestedCredential {
    pub(super) id: Vec<u8>,
    pub(super) cose_key: Vec<u8>,
}

impl AuthenticatorData {
    /// Takes all of `octets` or nothing.
    pub(super) fn parse(octets: &[u8]) -> Result<Self, WebauthnError> {
        Self::read(octets).ok_or(WebauthnError::AuthenticatorData)
    }

    fn read(octets: &[u8]) -> Option<Self> {
        if octets.len() > AUTHENTICATOR_DATA_LEN_MAX {
            return None;
        }
        let (relying_party_hash, rest) = octets.split_first_chunk::<32>()?;
        let (&[flags], rest) = rest.split_first_chunk::<1>()?;
        let (&count, mut rest) = rest.split_first_chunk::<4>()?;
        if flags & BACKED_UP != 0 && flags & BACKUP_ELIGIBLE == 0 {
            return None;
        }
        let credential = match flags & HAS_CREDENTIAL {
            0 => None,
            _ => Some(AttestedCredential::read(&mut rest)?),
        };
        if flags & HAS_EXTENSIONS != 0 {
            item(&mut rest)?.is_map().then_some(())?;
        }
        rest.is_empty().then_some(Self {
            relying_party_hash: *relying_party_hash,
            is_user_present: flags & USER_PRESENT != 0,
            sign_count: u32::from_be_bytes(count),
            credential,
        })
    }
}

impl AttestedCredential {
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let (_, after) = rest.split_at_checked(AAGUID_LEN)?;
        let (&len, after) = after.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(len));
        if len == 0 || len > CREDENTIAL_ID_LEN_MAX {
            return None;
        }
        let (id, mut after) = after.split_at_checked(len)?;
        let before_key = after;
        item(&mut after)?;
        let cose_key = &before_key[..before_key.len() - after.len()];
        *rest = after;
        Some(Self { id: id.to_vec(), cose_key: cose_key.to_vec() })
    }
}

/// The first CBOR item; `rest` is what follows it.
pub(super) fn item(rest: &mut &[u8]) -> Option<Value> {
    ciborium::de::from_reader_with_recursion_limit(rest, NESTING_MAX).ok()
}
