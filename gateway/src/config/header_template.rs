//! `set_request_headers` and `set_response_headers` of a route: values with what each request fills in.

use std::{borrow::Cow, fmt};

use http::{HeaderName, HeaderValue, header::InvalidHeaderValue};

/// What a template may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderFact {
    /// `${pomerium.access_token}`: the provider's access token of the session.
    AccessToken,
    /// `${pomerium.id_token}`: the provider's ID token of the session, as it came.
    IdToken,
    /// `${pomerium.jwt}`: the assertion that the gateway signs of the session.
    Jwt,
    /// `${pomerium.client_cert_fingerprint}`: SHA-256 of the client certificate, 64 hexadecimal digits.
    CertificateFingerprint,
    /// `${pomerium.client_cert_san_dns}`: its DNS names, with commas between.
    CertificateDnsNames,
    /// `${pomerium.client_cert_san_email}`: its email addresses, with commas between.
    CertificateEmails,
    /// `${pomerium.claim.NAME}`: a claim of the session, its values with commas between.
    Claim(String),
    /// `${pomerium.request.headers["NAME"]}`: what the client sent under a name.
    RequestHeader(HeaderName),
}

impl HeaderFact {
    /// Whether an answer may tell it: what a page can read is no place for what stands for a person, and what a client sent
    /// holds the session itself.
    #[must_use]
    pub fn may_be_answered(&self) -> bool {
        match self {
            Self::CertificateFingerprint
            | Self::CertificateDnsNames
            | Self::CertificateEmails
            | Self::Claim(_) => true,
            Self::AccessToken | Self::IdToken | Self::Jwt | Self::RequestHeader(_) => false,
        }
    }
}

/// A value with facts in it. Often holds a credential for the app: no log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderTemplate(Content);

#[derive(Clone, PartialEq, Eq)]
enum Content {
    /// The same for all requests.
    Fixed(HeaderValue),
    Parts(Vec<Part>),
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Fact(HeaderFact),
}

impl HeaderTemplate {
    /// Reads a value; `$$` stands for `$`. Whatever it asks for that nobody knows is empty, and returned beside it.
    ///
    /// # Errors
    /// [`InvalidHeaderValue`]: it can stand in no header.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), InvalidHeaderValue> {
        HeaderValue::from_str(text)?;
        let (mut parts, mut unknown, mut fixed) = (Vec::new(), Vec::new(), String::new());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            fixed.push_str(before);
            rest = behind;
            if let Some(after) = behind.strip_prefix('$') {
                fixed.push('$');
                rest = after;
            } else if let Some((name, after)) =
                behind.strip_prefix("{pomerium.").and_then(|inner| inner.split_once('}'))
            {
                match fact(name) {
                    Some(fact) => {
                        parts.push(Part::Text(std::mem::take(&mut fixed)));
                        parts.push(Part::Fact(fact));
                    }
                    None => unknown.push(format!("${{pomerium.{name}}}")),
                }
                rest = after;
            } else {
                fixed.push('$');
            }
        }
        fixed.push_str(rest);
        if parts.is_empty() {
            let mut value = HeaderValue::from_str(&fixed)?;
            value.set_sensitive(true);
            return Ok((Self(Content::Fixed(value)), unknown));
        }
        parts.push(Part::Text(fixed));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok((Self(Content::Parts(parts)), unknown))
    }

    /// The same value for all, of which nothing is secret.
    #[must_use]
    pub fn fixed(value: HeaderValue) -> Self {
        Self(Content::Fixed(value))
    }

    /// What it asks for.
    pub fn facts(&self) -> impl Iterator<Item = &HeaderFact> {
        let parts = match &self.0 {
            Content::Fixed(_) => &[][..],
            Content::Parts(parts) => parts,
        };
        parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Fact(fact) => Some(fact),
        })
    }

    /// The value for one request. Empty where what was filled in can stand in no header.
    pub fn fill<'a>(&self, known: impl Fn(&HeaderFact) -> Cow<'a, str>) -> HeaderValue {
        let parts = match &self.0 {
            Content::Fixed(value) => return value.clone(),
            Content::Parts(parts) => parts,
        };
        let text: String = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => Cow::Borrowed(text.as_str()),
                Part::Fact(fact) => known(fact),
            })
            .collect();
        let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for HeaderTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.facts()).finish()
    }
}

fn fact(name: &str) -> Option<HeaderFact> {
    Some(match name {
        "access_token" => HeaderFact::AccessToken,
        "id_token" => HeaderFact::IdToken,
        "jwt" => HeaderFact::Jwt,
        "client_cert_fingerprint" => HeaderFact::CertificateFingerprint,
        "client_cert_san_dns" => HeaderFact::CertificateDnsNames,
        "client_cert_san_email" => HeaderFact::CertificateEmails,
        _ => {
            if let Some(claim) = name.strip_prefix("claim.") {
                return (!claim.is_empty()).then(|| HeaderFact::Claim(claim.to_owned()));
            }
            let quoted = name.strip_prefix("request.headers[")?.strip_suffix(']')?;
            let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let header = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
            HeaderFact::RequestHeader(header.parse().ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(text: &str) -> String {
        let (template, _) = HeaderTemplate::parse(text).unwrap();
        let value = template.fill(|fact| match fact {
            HeaderFact::Jwt => Cow::Borrowed("J"),
            HeaderFact::RequestHeader(name) => Cow::Owned(format!("<{name}>")),
            HeaderFact::Claim(name) => Cow::Owned(format!("[{name}]")),
            _ => Cow::Borrowed(""),
        });
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn facts_are_filled_in_and_dollars_stay() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("Bearer ${pomerium.jwt}", "Bearer J"),
            ("${pomerium.jwt}${pomerium.jwt}", "JJ"),
            ("$${pomerium.jwt}", "${pomerium.jwt}"),
            ("5$ and $$", "5$ and $"),
            (r#"a-${pomerium.request.headers["X-Id"]}-b"#, "a-<x-id>-b"),
            ("${pomerium.request.headers['X-Id']}", "<x-id>"),
            ("${pomerium.access_token}", ""),
            ("${pomerium.claim.email}, ${pomerium.claim.corp.example/team}", "[email], [corp.example/team]"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn what_nobody_knows_is_empty_and_said() {
        for text in [
            "${pomerium.jwt2}",
            "${pomerium.claim.}",
            "${pomerium.request.headers[X]}",
            r#"${pomerium.request.headers["a b"]}"#,
            r#"${pomerium.request.headers["]}"#,
        ] {
            let (template, unknown) = HeaderTemplate::parse(&format!("a{text}b")).unwrap();
            assert_eq!(unknown, [text]);
            assert_eq!(template.fill(|_| Cow::Borrowed("never")), "ab");
        }
    }

    #[test]
    fn a_secret_is_in_no_log_and_no_fact_breaks_a_header() {
        let (template, _) = HeaderTemplate::parse("hunter2 ${pomerium.jwt}").unwrap();
        assert!(!format!("{template:?}").contains("hunter2"));
        assert_eq!(template.fill(|_| Cow::Borrowed("a\r\nx: y")), "");
        assert!(template.fill(|_| Cow::Borrowed("x")).is_sensitive());
        let (fixed, _) = HeaderTemplate::parse("hunter2").unwrap();
        assert!(
            !format!("{fixed:?}").contains("hunter2") && fixed.fill(|_| Cow::Borrowed("")).is_sensitive()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~$\\{\\}\\[\\]\"é\\n]{0,40}") {
            if let Ok((template, _)) = HeaderTemplate::parse(&text) {
                let _ = template.fill(|_| Cow::Borrowed("x"));
            }
        }
    }
}
