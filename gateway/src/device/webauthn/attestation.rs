//! What the authenticator says of itself with a new credential (6.5): nothing, or a signature by the new key. No
//! attestation is asked for, so that browsers send no other; it would prove a model only with its maker's root.

use ciborium::Value;

use super::{WebauthnError, authenticator_data::item, cose::PublicKey};

/// Bytes of an attestation object at most.
const OBJECT_LEN_MAX: usize = 16 * 1024;

/// An attestation object, parsed.
#[derive(Debug)]
pub(super) struct AttestationObject {
    pub(super) authenticator_data: Vec<u8>,
    statement: Statement,
}

#[derive(Debug)]
enum Statement {
    /// `none` (8.7).
    None,
    /// `packed` without a certificate (8.2): by the new key itself.
    SelfSigned { algorithm: i64, signature: Vec<u8> },
}

pub(super) fn parse(octets: &[u8]) -> Result<AttestationObject, WebauthnError> {
    read(octets).ok_or(WebauthnError::Attestation)
}

fn read(mut octets: &[u8]) -> Option<AttestationObject> {
    if octets.len() > OBJECT_LEN_MAX {
        return None;
    }
    let object = item(&mut octets)?;
    let object = object.as_map().filter(|_| octets.is_empty())?;
    let statement = one(object, "attStmt")?.as_map()?;
    let statement = match one(object, "fmt")?.as_text()? {
        "none" => statement.is_empty().then_some(Statement::None)?,
        "packed" if statement.len() == 2 => Statement::SelfSigned {
            algorithm: one(statement, "alg")?.as_integer()?.try_into().ok()?,
            signature: one(statement, "sig")?.as_bytes()?.clone(),
        },
        _ => return None,
    };
    let authenticator_data = one(object, "authData")?.as_bytes()?.clone();
    Some(AttestationObject { authenticator_data, statement })
}

/// The value of a key that is there once.
fn one<'a>(map: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    let mut found = map.iter().filter(|(key, _)| key.as_text() == Some(name));
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

impl AttestationObject {
    /// Whether the statement holds of this new key and this answer.
    pub(super) fn check(&self, key: &PublicKey, client_data_hash: &[u8; 32]) -> Result<(), WebauthnError> {
        match &self.statement {
            Statement::None => Ok(()),
            Statement::SelfSigned { algorithm, .. } if *algorithm != key.algorithm() => {
                Err(WebauthnError::Attestation)
            }
            Statement::SelfSigned { signature, .. } => {
                key.verify(&[&self.authenticator_data[..], client_data_hash].concat(), signature)
            }
        }
    }
}
