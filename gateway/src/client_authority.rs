//! Holds client certificates against the authorities that the operator trusts for them (`downstream_mtls`).
//!
//! Only the leaf, whose key the handshake proved, is ever judged, and only a chain from it to an authority counts: what else
//! a client sends along is material for that chain. Who may do what with a valid certificate is for [`crate::authorize`].

#[cfg(test)]
pub(crate) mod tests;

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pomerium_shared::tls::provider;
use regex::{Regex, RegexBuilder};
use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
    anchor_from_trusted_cert,
};

use crate::x509::{CertificateParts, Element, Elements, OBJECT_ID, Validity};

/// Bytes of a compiled expression at most: a name is short.
const EXPRESSION_SIZE_MAX: usize = 1024 * 1024;

const UTF8_STRING: u8 = 0x0c;
/// 1.3.6.1.4.1.311.20.2.3.
const USER_PRINCIPAL_NAME: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x14, 0x02, 0x03];

/// Authorities for client certificates, and what their certificates must be.
#[derive(Debug)]
pub struct ClientAuthority {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of each anchor, in the same order.
    validities: Vec<Validity>,
    constraints: Constraints,
}

/// What a certificate must be beside issued by an authority.
#[derive(Debug, Default, Clone)]
pub struct Constraints {
    /// What is revoked.
    revoked: Vec<Arc<CertRevocationList<'static>>>,
    /// One of them must match a name of the leaf; without any, every name is good.
    names: Vec<NameRule>,
    /// Certificates above the leaf at most, the authority's own included; `None`: as many as there are.
    depth_max: Option<usize>,
}

/// `match_subject_alt_names`: a name of this kind must match as a whole.
#[derive(Debug, Clone)]
pub struct NameRule {
    kind: NameKind,
    /// Matches the whole name.
    whole: Regex,
}

/// Kinds of names that a certificate may be held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// `dns`.
    Dns,
    /// `email`.
    Email,
    /// `ip_address`, in its usual text form.
    IpAddress,
    /// `uri`.
    Uri,
    /// `user_principal_name`: Microsoft's name of a person, an `otherName`.
    UserPrincipalName,
}

/// Why authorities or revocation lists cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthorityError {
    /// A certificate that cannot be read.
    #[error("certificate {index} (counted from 1) cannot be read: {source}")]
    Certificate {
        /// Which, from 1.
        index: usize,
        /// Why.
        source: webpki::Error,
    },
    /// A certificate of somebody who is no authority.
    #[error(
        "certificate {index} (counted from 1) is no authority's (basic constraints without CA): its holder would issue \
         certificates"
    )]
    NoAuthority {
        /// Which, from 1.
        index: usize,
    },
    /// A revocation list that cannot be read.
    #[error("revocation list {index} (counted from 1) cannot be read: {source}")]
    Revocations {
        /// Which, from 1.
        index: usize,
        /// Why.
        source: webpki::Error,
    },
}

/// Why a client's certificate is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// No chain of valid certificates leads from it to an authority.
    #[error("no valid chain leads from the certificate to an authority: {0}")]
    Chain(#[from] webpki::Error),
    /// It does not say that it is for clients.
    #[error("the certificate is not for clients (extended key usage without client authentication)")]
    Purpose,
    /// It has none of the names that are asked for.
    #[error("the certificate has none of the names that are asked for")]
    Name,
}

impl Constraints {
    /// Names and depth; nothing is revoked.
    #[must_use]
    pub const fn new(names: Vec<NameRule>, depth_max: Option<usize>) -> Self {
        Self { revoked: Vec::new(), names, depth_max }
    }

    /// Adds revocation lists. Their own dates are not looked at: an old list is better than none.
    ///
    /// # Errors
    /// [`ClientAuthorityError::Revocations`].
    pub fn revoke(
        mut self,
        lists: &[CertificateRevocationListDer<'_>],
    ) -> Result<Self, ClientAuthorityError> {
        for (index, list) in (1..).zip(lists) {
            let list = OwnedCertRevocationList::from_der(list)
                .map_err(|source| ClientAuthorityError::Revocations { index, source })?;
            self.revoked.push(Arc::new(list.into()));
        }
        Ok(self)
    }
}

impl ClientAuthority {
    /// Trusts the authorities of these certificates.
    ///
    /// # Errors
    /// [`ClientAuthorityError::Certificate`] and [`ClientAuthorityError::NoAuthority`].
    pub fn new(roots: &[CertificateDer<'_>], constraints: Constraints) -> Result<Self, ClientAuthorityError> {
        let mut authority = Self { anchors: Vec::new(), validities: Vec::new(), constraints };
        for (index, root) in (1..).zip(roots) {
            let anchor = anchor_from_trusted_cert(root)
                .map_err(|source| ClientAuthorityError::Certificate { index, source })?;
            let parts = CertificateParts::of(root).filter(CertificateParts::is_authority);
            let validity = parts.and_then(|parts| parts.validity());
            authority.validities.push(validity.ok_or(ClientAuthorityError::NoAuthority { index })?);
            authority.anchors.push(anchor.to_owned());
        }
        Ok(authority)
    }

    /// What the authorities are called, for clients that have several certificates to choose from.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = DistinguishedName> {
        self.anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
    }

    /// Judges a leaf at a moment, with what the client sent along. Tells when the first certificate of its chain expires.
    ///
    /// # Errors
    /// [`InvalidCertificate`].
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<SystemTime, InvalidCertificate> {
        let time = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        // Directly below an authority nothing stands between: no search through what a stranger sent.
        let others = if self.constraints.depth_max == Some(1) { &[] } else { others };
        let entity = EndEntityCert::try_from(leaf)?;
        let revoked: Vec<&CertRevocationList<'_>> =
            self.constraints.revoked.iter().map(AsRef::as_ref).collect();
        let revocation = RevocationOptionsBuilder::new(&revoked).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let path = entity.verify_for_usage(
            provider().signature_verification_algorithms.all,
            &self.anchors,
            others,
            time,
            KeyUsage::client_auth(),
            revocation,
            Some(&|path| self.check_path(path, time)),
        )?;
        let parts = CertificateParts::of(leaf).ok_or(webpki::Error::BadDer)?;
        // Without a purpose a certificate is good for any, as of a server.
        if !parts.has_purposes() {
            return Err(InvalidCertificate::Purpose);
        }
        if !self.constraints.allow_names(&parts) {
            return Err(InvalidCertificate::Name);
        }
        Ok(self.end(&path).ok_or(webpki::Error::BadDer)?)
    }

    /// What the library does not ask of a path that it found; another one may pass.
    fn check_path(&self, path: &VerifiedPath<'_>, time: UnixTime) -> Result<(), webpki::Error> {
        let depth = path.intermediate_certificates().count() + 1;
        if self.constraints.depth_max.is_some_and(|max| depth > max) {
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        let validity = self.validity_of(path.anchor()).ok_or(webpki::Error::UnknownIssuer)?;
        if !validity.contains(time.as_secs()) {
            return Err(webpki::Error::UnknownIssuer);
        }
        // The library holds a certificate against one list whose scope fits: here each counts that names it.
        let leaf: &webpki::Cert<'_> = path.end_entity();
        for certificate in path.intermediate_certificates().chain([leaf]) {
            for list in &self.constraints.revoked {
                if list.issuer() == certificate.issuer() && list.find_serial(certificate.serial())?.is_some()
                {
                    return Err(webpki::Error::CertRevoked);
                }
            }
        }
        Ok(())
    }

    /// The moment at which the first certificate of a path is no longer good.
    fn end(&self, path: &VerifiedPath<'_>) -> Option<SystemTime> {
        let leaf: &webpki::Cert<'_> = path.end_entity();
        let mut last = self.validity_of(path.anchor())?.not_after;
        for certificate in path.intermediate_certificates().chain([leaf]) {
            last = last.min(CertificateParts::of(&certificate.der())?.validity()?.not_after);
        }
        // It is good for the whole of its last second.
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(last).ok()? + 1))
    }

    /// The dates of one of our anchors; two may have the same name and key.
    fn validity_of(&self, anchor: &TrustAnchor<'_>) -> Option<Validity> {
        let index = self.anchors.iter().position(|ours| std::ptr::eq(ours, anchor))?;
        self.validities.get(index).copied()
    }
}

impl Constraints {
    fn allow_names(&self, leaf: &CertificateParts<'_>) -> bool {
        self.names.is_empty() || leaf.names().any(|name| self.names.iter().any(|rule| rule.matches(name)))
    }
}

impl NameRule {
    /// Names of this kind that match the expression from end to end.
    ///
    /// # Errors
    /// It is no expression, or too large a one.
    pub fn new(kind: NameKind, expression: &str) -> Result<Self, regex::Error> {
        let compile = |text: &str| RegexBuilder::new(text).size_limit(EXPRESSION_SIZE_MAX).build();
        // By itself first, so that a bracket of its own cannot close ours.
        compile(expression)?;
        Ok(Self { kind, whole: compile(&format!(r"\A(?:{expression})\z"))? })
    }

    fn matches(&self, name: Element<'_>) -> bool {
        self.kind.text(name).is_some_and(|text| self.whole.is_match(&text))
    }
}

impl NameKind {
    /// A `GeneralName` as text, if it is of this kind (RFC 5280, 4.2.1.6).
    fn text(self, name: Element<'_>) -> Option<Cow<'_, str>> {
        let content = match self {
            Self::Email => name.content(0x81)?,
            Self::Dns => name.content(0x82)?,
            Self::Uri => name.content(0x86)?,
            Self::IpAddress => return Some(Cow::Owned(address(name.content(0x87)?)?.to_string())),
            Self::UserPrincipalName => {
                let mut fields = Elements(name.content(0xa0)?);
                fields.next()?.content(OBJECT_ID).filter(|id| *id == USER_PRINCIPAL_NAME)?;
                Elements(fields.next()?.content(0xa0)?).next()?.content(UTF8_STRING)?
            }
        };
        std::str::from_utf8(content).ok().map(Cow::Borrowed)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
