//! Client certificates: what a connection has shown, and what a rule asks of it.
//!
//! Only the leaf is read, and only the two parts of it that rules can name: the public key and the subject's alternative
//! names. The TLS library has read the whole of it before; what cannot be read here matches nothing.

use std::fmt;

use sha2::{Digest, Sha256};

use super::matcher::StringMatcher;

/// A client certificate that a connection has shown; its holder proved to have the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// The **leaf** in DER: never another certificate of the chain.
    pub leaf: Vec<u8>,
    /// Whether its chain leads to the configured authority (`downstream_mtls`); `true` where none is configured.
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
            Self::Email => 0x81,
            Self::Dns => 0x82,
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
            && self.names.iter().all(|(kind, matcher)| parts.has_name(*kind, matcher))
    }
}

/// The parts of a certificate that rules speak of.
struct CertificateParts<'a> {
    public_key: &'a [u8],
    /// The `GeneralName`s, one after another.
    names: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
/// `version`, which is not always there.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17, `subjectAltName`.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

impl<'a> CertificateParts<'a> {
    /// Reads a certificate (RFC 5280, 4.1); `None` when it is none.
    fn of(leaf: &'a [u8]) -> Option<Self> {
        let certificate = Elements(leaf).next()?.content(SEQUENCE)?;
        let mut fields = Elements(Elements(certificate).next()?.content(SEQUENCE)?);
        let first = fields.next()?;
        // With a version, the serial number comes second.
        let before_key = if first.tag == VERSION { 5 } else { 4 };
        let public_key = fields.nth(before_key)?;
        public_key.content(SEQUENCE)?;
        let extensions = fields.find(|field| field.tag == EXTENSIONS);
        let names = extensions.and_then(|field| alternative_names(field.content)).unwrap_or_default();
        Some(Self { public_key: public_key.whole, names })
    }

    /// Whether a name of this kind matches, and none is one that the rule excludes.
    fn has_name(&self, kind: NameKind, matcher: &StringMatcher) -> bool {
        let mut names = Elements(self.names).filter(|name| name.tag == kind.tag());
        let mut is_found = false;
        names.all(|name| {
            let Ok(text) = std::str::from_utf8(name.content) else { return false };
            is_found |= matcher.matches(text);
            !matcher.excludes(text)
        }) && is_found
    }
}

fn alternative_names(extensions: &[u8]) -> Option<&[u8]> {
    let extensions = Elements(extensions).next()?.content(SEQUENCE)?;
    let value = Elements(extensions).find_map(|extension| {
        let mut fields = Elements(extension.content(SEQUENCE)?);
        let is_wanted = fields.next()?.content(OBJECT_ID)? == SUBJECT_ALT_NAME;
        // Between the two there may be whether it is critical.
        is_wanted.then(|| fields.find_map(|field| field.content(OCTET_STRING)))?
    })?;
    Elements(value).next()?.content(SEQUENCE)
}

/// DER elements, one after another; ends at the first that is none.
struct Elements<'a>(&'a [u8]);

#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    /// Tag and length too.
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    fn content(self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let bytes = std::mem::take(&mut self.0);
        let (&tag, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Below 128 it is the length itself, above it how many bytes of length follow: four are 4 GiB.
        let (len, rest) = match usize::from(first) {
            len @ 0..=0x7f => (len, rest),
            count @ 0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(count - 0x80)?;
                (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(len)?;
        self.0 = after;
        Some(Element { tag, content, whole: &bytes[..bytes.len() - after.len()] })
    }
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
