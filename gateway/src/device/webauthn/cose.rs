//! Public keys of authenticators (RFC 9052, 7; RFC 9053; RFC 8230), of the three algorithms that we ask for.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use ciborium::Value;

use super::{WebauthnError, authenticator_data::item};

/// `alg` of what we ask for, the most wanted first: ES256, `EdDSA`, RS256 (for Windows).
pub const ALGORITHMS: [i64; 3] = [ES256, EDDSA, RS256];

const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

// Labels and values of RFC 9053, 7 and RFC 8230, 4.
const KTY: i64 = 1;
const ALG: i64 = 3;
const CRV: i64 = -1;
const X: i64 = -2;
const Y: i64 = -3;
const RSA_N: i64 = -1;
const RSA_E: i64 = -2;
const KTY_OKP: i64 = 1;
const KTY_EC2: i64 = 2;
const KTY_RSA: i64 = 3;
const CRV_P256: i64 = 1;
const CRV_ED25519: i64 = 6;

/// Bytes of an RSA modulus: 2048 to 4096 bits.
const RSA_N_LEN: std::ops::RangeInclusive<usize> = 256..=512;
/// Bytes of an RSA exponent at most: it is 65537.
const RSA_E_LEN_MAX: usize = 4;

/// A public key that can verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// A point of P-256, uncompressed.
    Es256(Vec<u8>),
    Ed25519(Vec<u8>),
    Rs256 {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl PublicKey {
    /// Parses a `COSE_Key`, and nothing after it.
    pub(super) fn parse(mut octets: &[u8]) -> Result<Self, WebauthnError> {
        let key = item(&mut octets).filter(|_| octets.is_empty());
        let key = key.as_ref().and_then(Value::as_map).map(|map| Fields(map));
        key.and_then(|key| Self::read(&key)).ok_or(WebauthnError::Key)
    }

    fn read(key: &Fields<'_>) -> Option<Self> {
        match (key.number(KTY)?, key.number(ALG)?) {
            (KTY_EC2, ES256) if key.number(CRV)? == CRV_P256 => {
                let (x, y) = (key.octets(X)?, key.octets(Y)?);
                let point = [&[4], x, y].concat();
                // Also whether it is on the curve.
                let is_point = x.len() == 32 && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point).is_ok();
                is_point.then_some(Self::Es256(point))
            }
            (KTY_OKP, EDDSA) if key.number(CRV)? == CRV_ED25519 => {
                let x = key.octets(X)?;
                ParsedPublicKey::new(&ED25519, x).is_ok().then(|| Self::Ed25519(x.to_vec()))
            }
            (KTY_RSA, RS256) => {
                let (n, e) = (key.octets(RSA_N)?, key.octets(RSA_E)?);
                let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
                let fits = RSA_N_LEN.contains(&n.len()) && e.len() <= RSA_E_LEN_MAX && is_odd(n) && is_odd(e);
                fits.then(|| Self::Rs256 { n: n.to_vec(), e: e.to_vec() })
            }
            _ => None,
        }
    }

    /// The algorithm, as COSE names it.
    pub(super) const fn algorithm(&self) -> i64 {
        match self {
            Self::Es256(_) => ES256,
            Self::Ed25519(_) => EDDSA,
            Self::Rs256 { .. } => RS256,
        }
    }

    /// Whether this key signed `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), WebauthnError> {
        match self {
            Self::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::Rs256 { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        }
        .map_err(|_| WebauthnError::Signature)
    }
}

/// The fields of a key by their labels.
struct Fields<'a>(&'a [(Value, Value)]);

impl<'a> Fields<'a> {
    /// The value of a label that is there once.
    fn one(&self, label: i64) -> Option<&'a Value> {
        let mut found = self.0.iter().filter(|(key, _)| *key == Value::Integer(label.into()));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }

    fn number(&self, label: i64) -> Option<i64> {
        self.one(label)?.as_integer()?.try_into().ok()
    }

    fn octets(&self, label: i64) -> Option<&'a [u8]> {
        self.one(label)?.as_bytes().map(Vec::as_slice)
    }
}
