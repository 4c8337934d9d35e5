//! Whether a certificate's issuer still stands by it (OCSP, RFC 6960): reads what it said, so that it can be shown to clients
//! beside the certificate (RFC 6066, 8).
//!
//! Pure. The doors show it, and fetch it where nobody else does.

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::x509::{
    CertificateParts, Element, Elements, OBJECT_ID, OCTET_STRING, SEQUENCE, Validity, seconds,
};

const NULL: u8 = 0x05;
const ENUMERATED: u8 = 0x0a;
const BIT_STRING: u8 = 0x03;
/// `responseBytes`, `version`, `certs` and `nextUpdate`, each where it may stand.
const FIRST: u8 = 0xa0;
/// `good` among the states of a certificate.
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
/// 1.3.14.3.2.26, tag and length included.
const SHA1: &[u8] = &[OBJECT_ID, 5, 0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// 1.3.6.1.5.5.7.48.1.1.
const BASIC_RESPONSE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// 1.3.6.1.5.5.7.3.9: for the key of somebody to whom the issuer has left this.
const OCSP_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];

/// What an issuer said of a certificate, for as long as it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staple {
    pub(crate) der: Vec<u8>,
    /// From when to when it holds.
    pub(crate) validity: Validity,
}

/// Why something is nothing that could be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OcspError {
    #[error("it is no OCSP response in DER")]
    Malformed,
    #[error("the responder had no answer")]
    NoAnswer,
    #[error("it is about another certificate")]
    OtherCertificate,
    #[error("it says that the certificate was revoked: get another one")]
    Revoked,
    #[error("it says that the certificate is not known")]
    Unknown,
    #[error("it does not say until when it holds")]
    Endless,
    #[error("it is not signed by the certificate's issuer, who must stand beside the certificate")]
    NotSigned,
}

/// Reads a response about the first of `chain`, whose issuer is the second.
pub(crate) fn read(der: &[u8], chain: &[CertificateDer<'static>]) -> Result<Staple, OcspError> {
    let [leaf, issuer, ..] = chain else { return Err(OcspError::NotSigned) };
    let leaf = CertificateParts::of(leaf).ok_or(OcspError::OtherCertificate)?;
    let basic = Basic::of(der)?;
    let single = basic.about(&leaf)?;
    match single.state.tag {
        GOOD => {}
        REVOKED => return Err(OcspError::Revoked),
        _ => return Err(OcspError::Unknown),
    }
    let validity = Validity {
        not_before: seconds(single.this_update.tag, single.this_update.content)
            .ok_or(OcspError::Malformed)?,
        not_after: single.next_update.ok_or(OcspError::Endless)?,
    };
    if !basic.is_signed_by(issuer, validity.not_before) {
        return Err(OcspError::NotSigned);
    }
    Ok(Staple { der: der.to_vec(), validity })
}

/// `BasicOCSPResponse`.
struct Basic<'a> {
    data: Element<'a>,
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// Certificates of those to whom the issuer left it.
    certificates: Elements<'a>,
}

/// `SingleResponse`.
struct Single<'a> {
    state: Element<'a>,
    this_update: Element<'a>,
    next_update: Option<i64>,
}

impl<'a> Basic<'a> {
    fn of(der: &'a [u8]) -> Result<Self, OcspError> {
        let mut response = Elements(first(der, SEQUENCE).ok_or(OcspError::Malformed)?);
        let status = response.next().and_then(|status| status.content(ENUMERATED));
        if status.ok_or(OcspError::Malformed)? != [0] {
            return Err(OcspError::NoAnswer);
        }
        Self::of_fields(response).ok_or(OcspError::Malformed)
    }

    fn of_fields(mut response: Elements<'a>) -> Option<Self> {
        let mut bytes = Elements(first(response.next()?.content(FIRST)?, SEQUENCE)?);
        if bytes.next()?.content(OBJECT_ID)? != BASIC_RESPONSE {
            return None;
        }
        let mut basic = Elements(first(bytes.next()?.content(OCTET_STRING)?, SEQUENCE)?);
        let data = basic.next()?;
        data.content(SEQUENCE)?;
        let algorithm = basic.next()?.content(SEQUENCE)?;
        // Whole octets: none of the last is left over.
        let signature = basic.next()?.content(BIT_STRING)?.strip_prefix(&[0])?;
        let certificates =
            basic.next().and_then(|certificates| first(certificates.content(FIRST)?, SEQUENCE));
        Some(Self { data, algorithm, signature, certificates: Elements(certificates.unwrap_or_default()) })
    }

    /// What it says of a certificate.
    fn about(&self, leaf: &CertificateParts<'_>) -> Result<Single<'a>, OcspError> {
        let mut fields = Elements(self.data.content).skip_while(|field| field.tag == FIRST);
        // Past who says it, and when.
        let all = fields.nth(2).and_then(|all| all.content(SEQUENCE)).ok_or(OcspError::Malformed)?;
        Elements(all)
            .find_map(|single| {
                let mut fields = Elements(single.content(SEQUENCE)?);
                is_of(fields.next()?.content(SEQUENCE)?, leaf).then_some(())?;
                let (state, this_update) = (fields.next()?, fields.next()?);
                let next_update = fields.next().and_then(|next| {
                    let time = Elements(next.content(FIRST)?).next()?;
                    seconds(time.tag, time.content)
                });
                Some(Single { state, this_update, next_update })
            })
            .ok_or(OcspError::OtherCertificate)
    }

    /// Whether the issuer signed it, or somebody to whom it left that (RFC 6960, 4.2.2.2).
    fn is_signed_by(&self, issuer: &CertificateDer<'_>, at: i64) -> bool {
        let others = self.certificates.map(|certificate| CertificateDer::from(certificate.whole));
        let others = others.filter(|other| is_delegate(other, issuer, at));
        std::iter::once(issuer.clone()).chain(others).any(|signer| {
            let algorithms = pomerium_shared::tls::provider().signature_verification_algorithms.all;
            EndEntityCert::try_from(&signer).is_ok_and(|signer| {
                algorithms.iter().any(|algorithm| {
                    algorithm.signature_alg_id().as_ref() == self.algorithm
                        && signer.verify_signature(*algorithm, self.data.whole, self.signature).is_ok()
                })
            })
        })
    }
}

fn is_delegate(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>, at: i64) -> bool {
    let (Ok(certificate), Ok(issuer)) =
        (EndEntityCert::try_from(certificate), anchor_from_trusted_cert(issuer))
    else {
        return false;
    };
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at).unwrap_or(0)));
    let algorithms = pomerium_shared::tls::provider().signature_verification_algorithms.all;
    let usage = KeyUsage::required(OCSP_SIGNING);
    certificate.verify_for_usage(algorithms, &[issuer], &[], at, usage, None, None).is_ok()
}

/// Whether a `CertID` names a certificate: by its number, and a hash of its issuer's name.
fn is_of(id: &[u8], leaf: &CertificateParts<'_>) -> bool {
    let mut fields = Elements(id).skip(1);
    let (Some(name), Some(_key), Some(serial)) = (fields.next(), fields.next(), fields.next()) else {
        return false;
    };
    let algorithm = match name.content.len() {
        20 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        32 => &digest::SHA256,
        _ => return false,
    };
    serial.whole == leaf.serial && digest::digest(algorithm, leaf.issuer).as_ref() == name.content
}

/// Where to ask about the first of `chain`, and what (RFC 6960, 4.1); `None` where its issuer names nobody, or does not stand beside
/// it.
pub(crate) fn question(chain: &[CertificateDer<'static>]) -> Option<(String, Vec<u8>)> {
    let [leaf, issuer, ..] = chain else { return None };
    let (leaf, issuer) = (CertificateParts::of(leaf)?, CertificateParts::of(issuer)?);
    let url = leaf.ocsp_responder()?.to_owned();
    let hash = |octets: &[u8]| {
        element(OCTET_STRING, &[digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref()])
    };
    // The key alone, without its algorithm.
    let key =
        Elements(first(issuer.public_key, SEQUENCE)?).nth(1)?.content(BIT_STRING)?.strip_prefix(&[0])?;
    let id = [element(SEQUENCE, &[SHA1, &[NULL, 0]]), hash(leaf.issuer), hash(key), leaf.serial.to_vec()];
    // The request, its data, its list, one of the list, and what that is about.
    let question = (0..5).fold(id.concat(), |inner, _| element(SEQUENCE, &[&inner]));
    Some((url, question))
}

/// An element of DER, as short as ours are.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut element = vec![tag];
    match u8::try_from(content.len()) {
        Ok(len @ 0..0x80) => element.push(len),
        Ok(len) => element.extend([0x81, len]),
        Err(_) => {
            element.push(0x82);
            element.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    element.extend(content);
    element
}

/// What is in the first element, if it is of this kind.
fn first(der: &[u8], tag: u8) -> Option<&[u8]> {
    Elements(der).next()?.content(tag)
}

#[cfg(test)]
pub(crate) mod tests;
