//! What a request fills into the headers that its route sets, in itself and in its answer.

use std::{borrow::Cow, fmt::Write as _, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use pomerium_shared::clock::Now;
use sha2::{Digest as _, Sha256};

use super::{
    Live, Proxy, Refusal, assertion,
    caller::store_failed,
    gate::{Admitted, Whereto},
};
use crate::{
    config::{HeaderFact, Route},
    store::ProviderTokens,
    x509::{self, CertificateParts},
};

/// What is known of one request that policy has allowed.
#[derive(Debug, Default)]
pub(super) struct Substitutes {
    /// The gateway's assertion, if the route passes it on or asks for it.
    pub(super) assertion: Option<HeaderValue>,
    tokens: Option<ProviderTokens>,
    fingerprint: String,
    dns_names: String,
    emails: String,
    /// Those that the route asks for and the session has.
    claims: Vec<(String, String)>,
}

impl Proxy {
    /// Gathers what the route asks for, and no more. A store that does not answer is no empty token.
    pub(super) async fn substitutes(
        &self,
        live: &Live,
        admitted: &Admitted,
        whereto: &Whereto,
    ) -> Result<Substitutes, Refusal> {
        let (route, session) = (&admitted.route, admitted.session.as_deref());
        let templates = || route.set_request_headers.iter().chain(&route.set_response_headers);
        let facts = || templates().flat_map(|(_, value)| value.facts());
        let asks = |wanted: fn(&HeaderFact) -> bool| facts().any(wanted);
        let now = Now::read();
        let mut known = Substitutes::default();
        if route.pass_identity_headers || asks(|fact| *fact == HeaderFact::Jwt) {
            let signed = live.signer.sign(session, whereto.authority.host(), now);
            let failed = || Refusal::Gateway("The identity header could not be signed.".to_owned());
            known.assertion = Some(signed.ok_or_else(failed)?);
        }
        if asks(|fact| matches!(fact, HeaderFact::AccessToken | HeaderFact::IdToken))
            && let Some(session) = session
        {
            known.tokens = self.store.tokens(&session.id).await.map_err(|error| store_failed(&error))?;
        }
        let is_of_certificate = |fact: &HeaderFact| {
            matches!(
                fact,
                HeaderFact::CertificateFingerprint
                    | HeaderFact::CertificateDnsNames
                    | HeaderFact::CertificateEmails
            )
        };
        if asks(is_of_certificate)
            && let Some(shown) =
                admitted.question.shown(route, now).filter(|shown| shown.certificate.is_valid)
        {
            let leaf = &shown.certificate.leaf;
            known.fingerprint = Sha256::digest(leaf).iter().fold(String::new(), |mut hex, byte| {
                // Writing to a string does not fail.
                _ = write!(hex, "{byte:02x}");
                hex
            });
            // Without an authority anybody can write a name into a certificate of their own.
            if route.client_authority.is_some() {
                known.dns_names = names(leaf, x509::DNS_NAME);
                known.emails = names(leaf, x509::EMAIL_NAME);
            }
        }
        if let Some(session) = session {
            let claims = facts().filter_map(|fact| match fact {
                HeaderFact::Claim(name) => Some((name.clone(), assertion::claim_text(session, name)?)),
                _ => None,
            });
            known.claims = claims.collect();
        }
        Ok(known)
    }
}

impl Substitutes {
    /// What the route sets; `sent` is what the client sent, without what it may not say.
    pub(super) fn filled(&self, route: &Route, sent: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let set = route.set_request_headers.iter();
        set.map(|(name, value)| (name.clone(), value.fill(|fact| self.of(fact, sent)))).collect()
    }

    /// What the route sets in its answers, where what a client sent is no fact.
    pub(super) fn filled_for_answer<'a>(
        &'a self,
        route: &'a Route,
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        static NOTHING: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
        let set = route.set_response_headers.iter();
        set.map(|(name, value)| (name.clone(), value.fill(|fact| self.of(fact, &NOTHING))))
    }

    fn of<'a>(&'a self, fact: &HeaderFact, sent: &'a HeaderMap) -> Cow<'a, str> {
        let token = |token: fn(&ProviderTokens) -> &str| self.tokens.as_ref().map_or("", token);
        Cow::Borrowed(match fact {
            HeaderFact::AccessToken => token(|tokens| tokens.access.expose()),
            HeaderFact::IdToken => token(|tokens| tokens.id_token.expose()),
            HeaderFact::Jwt => {
                self.assertion.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
            }
            HeaderFact::CertificateFingerprint => &self.fingerprint,
            HeaderFact::CertificateDnsNames => &self.dns_names,
            HeaderFact::CertificateEmails => &self.emails,
            HeaderFact::Claim(name) => {
                self.claims.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text)
            }
            HeaderFact::RequestHeader(name) => {
                let values: Vec<&str> =
                    sent.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
                return match values.as_slice() {
                    [one] => Cow::Borrowed(one),
                    all => Cow::Owned(all.join(",")),
                };
            }
        })
    }
}

/// The alternative names of this kind, with commas between; none that has a comma itself, and would be read as two.
fn names(leaf: &[u8], tag: u8) -> String {
    let Some(parts) = CertificateParts::of(leaf) else { return String::new() };
    let names = parts.names().filter(|name| name.tag == tag);
    let texts: Vec<&str> = names
        .filter_map(|name| std::str::from_utf8(name.content).ok())
        .filter(|name| !name.contains(','))
        .collect();
    texts.join(",")
}
