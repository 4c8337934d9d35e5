//! A question in the place of a request: another proxy carries the traffic and asks what may pass.
//!
//! Host, path, route, session and decision are found as for a request of our own; only the way to the app is not taken.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header, request::Parts};

use super::{
    Connection, Live, Proxy, Refusal, assertion,
    gate::{Admitted, Whereto},
    headers, own,
    respond::{Audience, Form},
    substitutes::Substitutes,
};
use crate::{body::Body, config::Settings};

/// What the carrier of a request is told.
#[derive(Debug)]
pub(crate) enum Verified {
    /// Policy allows it, with these changes on its way to the app.
    Allowed(HeaderChanges),
    /// It must not pass; this is what the person or program gets in its place.
    Refused(Response<Body>),
    /// Its path is the gateway's own: no app has it, and [`Proxy::handle`] answers it.
    Own,
}

/// What becomes of a request's headers on its way to the app.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderChanges {
    /// Each replaces what the client sent under its name.
    pub(crate) set: HeaderMap,
    /// What the client sent, and must not reach the app.
    pub(crate) remove: Vec<HeaderName>,
}

impl Connection {
    /// A connection that a carrier tells of. Its port is not told, and nobody decides by it; a client certificate is not
    /// believed, since its holder proved nothing to us.
    pub(crate) fn asserted(client: IpAddr, server_name: Option<String>, protocol: &'static str) -> Self {
        Self { peer: SocketAddr::new(client, 0), server_name, protocol, proven: None, roaming: None }
    }
}

impl Proxy {
    /// The configuration at work.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.live.load().settings.clone()
    }

    /// Decides on a request that another proxy carries. `parts` and `connection` are what that proxy says of it, which
    /// the caller has reason to believe.
    pub(crate) async fn verify(&self, parts: &Parts, connection: &Connection) -> Verified {
        let request_id = super::new_request_id();
        let live = self.live.load_full();
        match Box::pin(self.try_verify(&live, parts, connection, &request_id)).await {
            Ok(verified) => verified,
            Err(refusal) => {
                let host = parts.uri.authority().map_or("", |authority| authority.as_str());
                let form = Form::wanted(&parts.headers, &live.settings.look);
                let audience = Audience { request_id: &request_id, host, form };
                let mut response = refusal.into_response(audience);
                if let Ok(value) = HeaderValue::from_str(&request_id) {
                    response.headers_mut().insert("x-request-id", value);
                }
                Verified::Refused(response)
            }
        }
    }

    async fn try_verify(
        &self,
        live: &Live,
        parts: &Parts,
        connection: &Connection,
        request_id: &str,
    ) -> Result<Verified, Refusal> {
        let whereto = Whereto::of(&parts.uri, &parts.headers, connection)?;
        if own::is_own(live, &whereto) {
            return Ok(Verified::Own);
        }
        // The carrier sends the path on as it is: what its app would read differently was not decided on.
        if whereto.path.as_str() != parts.uri.path() {
            return Err(Refusal::BadRequest(format!(
                "the path is not in its normal form, which is {}",
                whereto.path.as_str()
            )));
        }
        let admitted = self.admit_http(live, &whereto, parts, connection, request_id).await?;
        let known = self.substitutes(live, &admitted, &whereto).await?;
        Ok(Verified::Allowed(changes(live, &admitted, &known, &parts.headers)))
    }
}

/// The same headers as [`super::forward`] would send, as changes to those that the client sent.
fn changes(live: &Live, admitted: &Admitted, known: &Substitutes, sent: &HeaderMap) -> HeaderChanges {
    let (settings, route) = (&live.settings, &admitted.route);
    let claims = &settings.jwt_claims_headers;
    let mut kept = sent.clone();
    headers::strip_gateway_headers(&mut kept, &settings.cookie.name, claims);
    let filled = known.filled(route, &kept);
    for name in &route.remove_request_headers {
        kept.remove(name);
    }
    let mut set = HeaderMap::new();
    if let Some(cookies) = kept.get(header::COOKIE).filter(|_| !same(&kept, sent, &header::COOKIE)) {
        set.insert(header::COOKIE, cookies.clone());
    }
    set.extend(filled);
    // The carrier lets through what it is not told to overwrite: nobody's identity is said in so many words.
    set.insert(assertion::HEADER, HeaderValue::from_static(""));
    for (name, _) in claims {
        set.insert(name.clone(), HeaderValue::from_static(""));
    }
    if route.pass_identity_headers {
        if let Some(token) = &known.assertion {
            set.insert(assertion::HEADER, token.clone());
        }
        assertion::set_claim_headers(&mut set, admitted.session.as_deref(), claims);
    }
    let is_gone = |name: &&HeaderName| {
        !kept.contains_key(*name) && !set.contains_key(*name) && !is_the_carriers(name.as_str())
    };
    let remove = sent.keys().filter(is_gone).cloned().collect();
    HeaderChanges { set, remove }
}

fn same(one: &HeaderMap, other: &HeaderMap, name: &HeaderName) -> bool {
    one.get_all(name).iter().eq(other.get_all(name).iter())
}

/// Headers that the carrier writes by itself, after it has asked: no business of ours.
fn is_the_carriers(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "x-request-id")
}
