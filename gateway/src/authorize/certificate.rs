//! Client certificates: what a connection has shown, and what a rule asks of it.
//!
//! Only the leaf is read, and only the two parts of it that rules can name: the public key and the subject's alternative
//! names. The TLS library has read the whole of it before; what cannot be read here matches nothing.

use std::fmt;

use sha2::{Digest, Sha256};

use super::matcher::StringMatcher;
use crate::x509::{self, CertificateParts};

/// A client certificate that a connection has shown; its holder proved to have the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// The **leaf** in DER: never another certificate of the chain.
    pub leaf: Vec<u8>,
    /// Whether its chain leads to an authority of the route (`downstream_mtls`); `true` where none is configured.
    pub is_valid: bool,
}

/// `client_certificate`: what one certificate must be; all that is given must hold, and something is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateMatcher {
    /// SHA-256 of the certificate; any of them.
    pub(super) fingerprints: Vec<[u8; 32]>,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`); any of them.
    pub(super) key_hashes: Vec<[u8; 32]>,
    pub(super) names: Vec<(NameKind, StringMatcher)>,
}

/// Kinds of a subject's alternative name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Dns,
    Email,
    Uri,
}

impl NameKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "san_dns",
            Self::Email => "san_email",
            Self::Uri => "san_uri",
        }
    }

    /// The context tag of a `GeneralName` (RFC 5280, 4.2.1.6).
    const fn tag(self) -> u8 {
        match self {
            Self::Email => x509::EMAIL_NAME,
            Self::Dns => x509::DNS_NAME,
            Self::Uri => 0x86,
        }
    }
}

impl CertificateMatcher {
    /// Whether it asks for names, which are true only if an authority says so.
    pub(super) const fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether `leaf`, in DER, is such a certificate.
    pub(super) fn matches(&self, leaf: &[u8]) -> bool {
        let is_one_of = |wanted: &[[u8; 32]], bytes: &[u8]| {
            wanted.is_empty() || wanted.contains(&Sha256::digest(bytes).into())
        };
        let is_something =
            !(self.fingerprints.is_empty() && self.key_hashes.is_empty() && self.names.is_empty());
        let Some(parts) = CertificateParts::of(leaf) else { return false };
        is_something
            && is_one_of(&self.fingerprints, leaf)
            && is_one_of(&self.key_hashes, parts.public_key)
            && self.names.iter().all(|(kind, matcher)| has_name(&parts, *kind, matcher))
    }
}

/// Whether a name of this kind matches, and none is one that the rule excludes.
fn has_name(parts: &CertificateParts<'_>, kind: NameKind, matcher: &StringMatcher) -> bool {
    let mut names = parts.names().filter(|name| name.tag == kind.tag());
    let mut is_found = false;
    names.all(|name| {
        let Ok(text) = std::str::from_utf8(name.content) else { return false };
        is_found |= matcher.matches(text);
        !matcher.excludes(text)
    }) && is_found
}

impl fmt::Display for CertificateMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, hashes) in [("fingerprint", &self.fingerprints), ("spki_hash", &self.key_hashes)] {
            if let Some(first) = hashes.first() {
                write!(f, "{separator}{name} ")?;
                first.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("...")?;
                match hashes.len() - 1 {
                    0 => {}
                    more => write!(f, " or {more} more")?,
                }
                separator = " and ";
            }
        }
        for (kind, matcher) in &self.names {
            write!(f, "{separator}{} {matcher}", kind.as_str())?;
            separator = " and ";
        }
        Ok(())
    }
}
