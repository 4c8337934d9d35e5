//! An authenticator in software, with a browser in front of it, for tests: it says whatever it is told to.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A credential of one relying party, and what the browser and the authenticator say of a ceremony.
pub(crate) struct SoftAuthenticator {
    pub(crate) id: Vec<u8>,
    pub(crate) relying_party: String,
    pub(crate) origin: String,
    pub(crate) is_framed: bool,
    pub(crate) flags: u8,
    pub(crate) sign_count: u32,
    key: EcdsaKeyPair,
}

/// An answer to `navigator.credentials.get`.
pub(crate) struct Given {
    pub(crate) client_data: Vec<u8>,
    pub(crate) authenticator_data: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl SoftAuthenticator {
    pub(crate) fn new(relying_party: &str, origin: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Self {
            id: Sha256::digest(key.public_key()).to_vec(),
            relying_party: relying_party.to_owned(),
            origin: origin.to_owned(),
            is_framed: false,
            flags: 0x01,
            sign_count: 1,
            key,
        }
    }

    pub(crate) fn client_data(&self, kind: &str, challenge: &[u8]) -> Vec<u8> {
        let challenge = URL_SAFE_NO_PAD.encode(challenge);
        json!({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": self.is_framed})
            .to_string()
            .into_bytes()
    }

    /// The client data and the attestation object of a new credential.
    pub(crate) fn create(&self, challenge: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let none = |_: &[u8]| ("none", Value::Map(vec![]));
        self.create_attested(challenge, none)
    }

    /// The same with an attestation by the new key itself.
    pub(crate) fn create_self_attested(&self, challenge: &[u8], algorithm: i64) -> (Vec<u8>, Vec<u8>) {
        self.create_attested(challenge, |signed| {
            let statement = vec![
                (text("alg"), Value::Integer(algorithm.into())),
                (text("sig"), Value::Bytes(self.sign(signed))),
            ];
            ("packed", Value::Map(statement))
        })
    }

    pub(crate) fn create_attested(
        &self,
        challenge: &[u8],
        attest: impl FnOnce(&[u8]) -> (&'static str, Value),
    ) -> (Vec<u8>, Vec<u8>) {
        let client_data = self.client_data("webauthn.create", challenge);
        let mut data = self.authenticator_data(0x40);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        data.extend(self.cose_key());
        let (format, statement) = attest(&[&data[..], &Sha256::digest(&client_data)[..]].concat());
        let object = Value::Map(vec![
            (text("fmt"), text(format)),
            (text("attStmt"), statement),
            (text("authData"), Value::Bytes(data)),
        ]);
        (client_data, octets(&object))
    }

    pub(crate) fn get(&self, challenge: &[u8]) -> Given {
        let client_data = self.client_data("webauthn.get", challenge);
        let authenticator_data = self.authenticator_data(0);
        let signature = self.sign(&[&authenticator_data[..], &Sha256::digest(&client_data)[..]].concat());
        Given { client_data, authenticator_data, signature }
    }

    pub(crate) fn cose_key(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        octets(&Value::Map(vec![
            (number(1), number(2)),
            (number(3), number(-7)),
            (number(-1), number(1)),
            (number(-2), Value::Bytes(point[1..33].to_vec())),
            (number(-3), Value::Bytes(point[33..].to_vec())),
        ]))
    }

    fn authenticator_data(&self, flags: u8) -> Vec<u8> {
        let mut data = Sha256::digest(self.relying_party.as_bytes()).to_vec();
        data.push(self.flags | flags);
        data.extend(self.sign_count.to_be_bytes());
        data
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

pub(crate) fn octets(value: &Value) -> Vec<u8> {
    let mut octets = Vec::new();
    ciborium::into_writer(value, &mut octets).unwrap();
    octets
}

pub(crate) fn number(value: i64) -> Value {
    Value::Integer(value.into())
}

pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}
