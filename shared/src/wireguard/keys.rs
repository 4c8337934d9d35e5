//! Keys of X25519 (RFC 7748) in the text form of WireGuard: 32 bytes in Base64.

use std::{fmt, str::FromStr};

use aws_lc_rs::agreement::{self, X25519};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const KEY_LEN: usize = 32;

/// Why something is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not 32 bytes in Base64.
    #[error("a WireGuard key is 32 bytes in Base64: 44 characters")]
    Text,
    /// A number that is not below 2^255 - 19: the same point has another, shorter name.
    #[error("this WireGuard key is not in its normal form")]
    NotCanonical,
    /// A point with which every key pair agrees on the same secret.
    #[error("this is no WireGuard key: everybody could compute what it encrypts")]
    LowOrder,
}

/// The points of low order, of curve and twist, in their normal form: 0, 1, -1, and two of order 8.
const LOW_ORDER: [[u8; KEY_LEN]; 5] = [
    [0; KEY_LEN],
    {
        let mut one = [0; KEY_LEN];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; KEY_LEN];
        minus_one[0] = 0xec;
        minus_one[KEY_LEN - 1] = 0x7f;
        minus_one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// The public half of a peer's key pair: names the peer. Of each point there is exactly one.
///
/// ```
/// use pomerium_shared::wireguard::PublicKey;
/// let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
/// assert_eq!(text.parse::<PublicKey>().unwrap().to_string(), text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// A key that came as bytes.
    ///
    /// # Errors
    /// [`BadKey::NotCanonical`], [`BadKey::LowOrder`].
    pub fn new(bytes: [u8; KEY_LEN]) -> Result<Self, BadKey> {
        let is_above_all = bytes[1..KEY_LEN - 1].iter().all(|byte| *byte == 0xff) && bytes[0] >= 0xed;
        if bytes[KEY_LEN - 1] > 0x7f || (bytes[KEY_LEN - 1] == 0x7f && is_above_all) {
            return Err(BadKey::NotCanonical);
        }
        if LOW_ORDER.contains(&bytes) {
            return Err(BadKey::LowOrder);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes, as handshakes carry them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(decoded(text)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The private half. Never leaves the machine that made it, but into its own configuration file.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// The key that 32 random bytes are.
    #[must_use]
    pub const fn from_random(mut bytes: [u8; KEY_LEN]) -> Self {
        // RFC 7748, 5: so written, programs that clamp and those that do not agree on what the key is.
        bytes[0] &= 248;
        bytes[KEY_LEN - 1] &= 127;
        bytes[KEY_LEN - 1] |= 64;
        Self(bytes)
    }

    /// The other half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let private = agreement::PrivateKey::from_private_key(&X25519, &self.0);
        let public = private.expect("every 32 bytes are a private key").compute_public_key();
        let public = public.expect("every private key has a public one");
        PublicKey(public.as_ref().try_into().expect("a public key has 32 bytes"))
    }

    /// The bytes, for the one call that needs them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A secret that peer and gateway mix into their handshakes: what is recorded today stays closed to who can one day compute
/// private keys of public ones.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// Of 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one call that needs them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Serialize for PresharedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PresharedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decoded(&String::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

fn decoded(text: &str) -> Result<[u8; KEY_LEN], BadKey> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(BadKey::Text)
}
