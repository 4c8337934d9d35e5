//! Reads the few parts of an X.509 certificate (RFC 5280, 4.1) that are asked about: number, issuer, the public key, the dates,
//! the extensions and names.
//!
//! No judgement: whether a certificate proves anything is for [`crate::client_authority`]. What cannot be read is not there.

use jiff::civil::{DateTime, Time, date};

/// A certificate in DER, cut into parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CertificateParts<'a> {
    /// The `SubjectPublicKeyInfo`, tag and length included.
    pub(crate) public_key: &'a [u8],
    /// `serialNumber`, tag and length included.
    pub(crate) serial: &'a [u8],
    /// `issuer`, tag and length included.
    pub(crate) issuer: &'a [u8],
    validity: &'a [u8],
    extensions: &'a [u8],
}

/// From when to when a certificate holds, in seconds since 1970; both ends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Validity {
    /// Whether it holds at this second.
    pub(crate) fn contains(self, seconds: u64) -> bool {
        i64::try_from(seconds).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }
}

const BOOLEAN: u8 = 0x01;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
/// The tag of an email address among the alternative names (RFC 5280, 4.2.1.6).
pub(crate) const EMAIL_NAME: u8 = 0x81;
/// The tag of a DNS name there.
pub(crate) const DNS_NAME: u8 = 0x82;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `version`, which is not always there.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.37.
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// 1.3.6.1.5.5.7.1.1.
const AUTHORITY_INFORMATION: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01];
/// 1.3.6.1.5.5.7.48.1.
const OCSP: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01];
/// The tag of a URL among names.
const URL_NAME: u8 = 0x86;

impl<'a> CertificateParts<'a> {
    /// Cuts a certificate; `None` when it is none.
    pub(crate) fn of(certificate: &'a [u8]) -> Option<Self> {
        let certificate = Elements(certificate).next()?.content(SEQUENCE)?;
        let mut fields = Elements(Elements(certificate).next()?.content(SEQUENCE)?);
        let first = fields.next()?;
        // The version is not always there. Between number and issuer stands the algorithm.
        let serial = if first.tag == VERSION { fields.next()? } else { first };
        let issuer = fields.nth(1)?;
        let validity = fields.next()?.content(SEQUENCE)?;
        let public_key = fields.nth(1)?;
        public_key.content(SEQUENCE)?;
        let extensions = fields.find(|field| field.tag == EXTENSIONS);
        let extensions = extensions.and_then(|field| Elements(field.content).next()?.content(SEQUENCE));
        Some(Self {
            public_key: public_key.whole,
            serial: serial.whole,
            issuer: issuer.whole,
            validity,
            extensions: extensions.unwrap_or_default(),
        })
    }

    /// The subject's alternative names: a `GeneralName` each (RFC 5280, 4.2.1.6).
    pub(crate) fn names(&self) -> Elements<'a> {
        let names = self.extension(SUBJECT_ALT_NAME);
        Elements(names.and_then(|value| Elements(value).next()?.content(SEQUENCE)).unwrap_or_default())
    }

    /// Whether it says that its subject is an authority (RFC 5280, 4.2.1.9).
    pub(crate) fn is_authority(&self) -> bool {
        let is_authority = |value| {
            let constraints = Elements(value).next()?.content(SEQUENCE)?;
            Some(Elements(constraints).next()?.content(BOOLEAN)? == [0xff])
        };
        self.extension(BASIC_CONSTRAINTS).and_then(is_authority).unwrap_or(false)
    }

    /// Whether it says what its key is for (RFC 5280, 4.2.1.12).
    pub(crate) fn has_purposes(&self) -> bool {
        self.extension(EXTENDED_KEY_USAGE).is_some()
    }

    /// From when to when it holds.
    pub(crate) fn validity(&self) -> Option<Validity> {
        let mut times = Elements(self.validity).map(|time| seconds(time.tag, time.content));
        Some(Validity { not_before: times.next()??, not_after: times.next()?? })
    }

    /// Where its issuer says whether it still stands by it (RFC 5280, 4.2.2.1).
    pub(crate) fn ocsp_responder(&self) -> Option<&'a str> {
        let all = Elements(self.extension(AUTHORITY_INFORMATION)?).next()?.content(SEQUENCE)?;
        let url = Elements(all).find_map(|access| {
            let mut fields = Elements(access.content(SEQUENCE)?);
            (fields.next()?.content(OBJECT_ID)? == OCSP).then(|| fields.next()?.content(URL_NAME))?
        });
        std::str::from_utf8(url?).ok()
    }

    fn extension(&self, id: &[u8]) -> Option<&'a [u8]> {
        Elements(self.extensions).find_map(|extension| {
            let mut fields = Elements(extension.content(SEQUENCE)?);
            let is_wanted = fields.next()?.content(OBJECT_ID)? == id;
            // Between the two there may be whether it is critical.
            is_wanted.then(|| fields.find_map(|field| field.content(OCTET_STRING)))?
        })
    }
}

/// A moment as certificates write it: `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
pub(crate) fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let year_len = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    let (year, rest) = text.split_at_checked(year_len).filter(|(_, rest)| rest.len() == 10)?;
    let year: i16 = year.parse().ok()?;
    let year = match (tag, year) {
        (UTC_TIME, 0..50) => 2000 + year,
        (UTC_TIME, _) => 1900 + year,
        _ => year,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let time = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(time.duration_since(date(1970, 1, 1).to_datetime(Time::midnight())).as_secs())
}

/// DER elements, one after another; ends at the first that is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Elements<'a>(pub(crate) &'a [u8]);

/// One element of DER.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// Tag and length too.
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// What is in it, if it is of this kind.
    pub(crate) fn content(self, tag: u8) -> Option<&'a [u8]> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_moment_are_read() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "700230000000Z", None),
            (UTC_TIME, "19700101000000Z", None),
            (GENERALIZED_TIME, "700101000000Z", None),
            (GENERALIZED_TIME, "2050010100000+Z", None),
            (SEQUENCE, "700101000000Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{tag:#x} {text}");
        }
    }

    #[test]
    fn an_authority_says_that_it_is_one() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let parts = |params: &rcgen::CertificateParams| {
            let made = params.self_signed(&key).unwrap();
            let parts = CertificateParts::of(made.der()).unwrap();
            (parts.is_authority(), parts.has_purposes(), parts.validity())
        };
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2055, 1, 1);
        let validity = Some(Validity { not_before: 1_767_225_600, not_after: 2_682_374_400 });
        assert_eq!(parts(&params), (false, false, validity));
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        assert_eq!(parts(&params), (false, true, validity));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(parts(&params), (true, true, validity));
    }
}
