//! Criteria about SSH: read and kept, and never true, since no SSH request reaches this engine.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    criterion::ClaimPath,
    matcher::{StringMatcher, shortened},
    reason::Reason,
};

/// Bytes of a key at most; an RSA key of 16,384 bits has 2 KiB.
const KEY_LEN_MAX: usize = 8 * 1024;

/// One question about an SSH login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshTest {
    /// `ssh_publickey`: the client's key is one of these.
    PublicKey(Vec<SshKey>),
    /// `ssh_ca`: the client's certificate is signed by one of these.
    Ca(Vec<SshKey>),
    /// `ssh_username`: the login name.
    Username(StringMatcher),
    /// `ssh_username_matches_email`: the login name is the part of the email before its `@`.
    UsernameMatchesEmail,
    /// `ssh_username_matches_claim`: the login name is one of a claim's values.
    UsernameMatchesClaim(ClaimPath),
}

impl SshTest {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::PublicKey(_) => "ssh_publickey",
            Self::Ca(_) => "ssh_ca",
            Self::Username(_) => "ssh_username",
            Self::UsernameMatchesEmail => "ssh_username_matches_email",
            Self::UsernameMatchesClaim(_) => "ssh_username_matches_claim",
        }
    }

    /// Why it is false.
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::PublicKey(_) | Self::Ca(_) => Reason::SshPublickeyUnauthorized,
            Self::Username(_) | Self::UsernameMatchesEmail | Self::UsernameMatchesClaim(_) => {
                Reason::SshUsernameUnauthorized
            }
        }
    }

    /// Whether the answer depends on who is signed in.
    pub(super) const fn needs_session(&self) -> bool {
        matches!(self, Self::UsernameMatchesEmail | Self::UsernameMatchesClaim(_))
    }
}

/// A public key of SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKey {
    algorithm: String,
    /// As on the wire (RFC 4253, 6.6).
    blob: Vec<u8>,
}

impl SshKey {
    /// Reads `ssh-ed25519 AAAA... comment`, a line of `authorized_keys` without options.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (algorithm, encoded) = (words.next()?, words.next()?);
        if text.len() > KEY_LEN_MAX || text.trim().contains('\n') {
            return None;
        }
        let blob = STANDARD.decode(encoded).ok()?;
        // The blob names its algorithm again: two that differ are a key that somebody has cut.
        let (len, rest) = blob.split_first_chunk::<4>()?;
        let named = rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        (named == algorithm.as_bytes() && rest.len() > named.len())
            .then(|| Self { algorithm: algorithm.to_owned(), blob: blob.clone() })
    }
}

impl fmt::Display for SshTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicKey(keys) | Self::Ca(keys) => {
                f.write_str(" ")?;
                shortened(f, keys, |f, key| write!(f, "{} of {} bytes", key.algorithm, key.blob.len()))
            }
            Self::Username(matcher) => write!(f, " {matcher}"),
            Self::UsernameMatchesEmail => Ok(()),
            Self::UsernameMatchesClaim(path) => write!(f, " {path}"),
        }
    }
}
