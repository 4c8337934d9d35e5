//! The call by which programs enrol, list, rename and remove their person's WireGuard peers.
//!
//! On any host, but only by a token that was made for the sign-in host and comes in a header. A browser's cookie is no such
//! thing: the app of a host could otherwise enrol a peer for each of its visitors, and come in as them.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use pomerium_shared::{
    clock::Now,
    wireguard::{NewPeer, PeerName},
};
use serde::Deserialize;
use serde_json::json;

use super::{collect, status};
use crate::{
    authenticate::EnrolError,
    body::Body,
    proxy::{
        Connection, Live, Proxy, Refusal,
        caller::{session_in_header, store_failed},
        gate::Whereto,
        respond,
    },
    session::{
        Session,
        demand::{Prompt, SignInDemand},
    },
    wireguard_peer::PeerId,
};

/// The list; below it each peer by its id.
const PEERS_PATH: &str = "/.pomerium/api/v1/wireguard/peers";

/// Whether the path is one of this call.
pub(super) fn is_ours(path: &str) -> bool {
    path == PEERS_PATH || id_in(path).is_some()
}

fn id_in(path: &str) -> Option<PeerId> {
    let id = path.strip_prefix(PEERS_PATH)?.strip_prefix('/')?;
    Some(PeerId::new(id))
}

/// What a client posts to rename a peer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewName {
    name: PeerName,
}

impl Proxy {
    /// Answers the call.
    pub(super) async fn wireguard_peers(
        &self,
        live: &Live,
        request: Request<Body>,
        connection: &Connection,
        whereto: &Whereto,
    ) -> Result<Response<Body>, Refusal> {
        if live.authenticate.peer_terms().is_none() {
            return Err(refused(&EnrolError::Off));
        }
        let (parts, body) = collect(request).await?;
        let now = Now::read();
        let session = asking(live, &parts, connection, now).await?;
        let path = whereto.path.as_str();
        match (&parts.method, id_in(path)) {
            (&Method::GET, None) => {
                let peers = live.authenticate.own_peers(&session, now.wall).await;
                let peers = peers.map_err(|error| store_failed(&error))?;
                Ok(document(&json!({ "peers": peers })))
            }
            (&Method::POST, None) => {
                let new: NewPeer = parsed(&body)?;
                let enrolled = live.authenticate.enrol_peer(&session, &new, now.wall).await;
                let mut response = document(&json!(enrolled.map_err(|error| refused(&error))?));
                *response.status_mut() = StatusCode::CREATED;
                Ok(response)
            }
            (&Method::PUT, Some(id)) => {
                let NewName { name } = parsed(&body)?;
                let is_done = self.store.rename_peer(&session, &id, &name).await;
                done(is_done.map_err(|error| store_failed(&error))?)
            }
            (&Method::DELETE, Some(id)) => {
                let is_done = self.store.remove_peer(&session, &id, now.wall).await;
                let is_done = is_done.map_err(|error| store_failed(&error))?;
                if is_done {
                    tracing::info!(peer = %id, user = %session.user_id, "a person removed a WireGuard peer");
                }
                done(is_done)
            }
            _ => Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }
}

/// The person whose token came in a header.
async fn asking(
    live: &Live,
    parts: &http::request::Parts,
    connection: &Connection,
    now: Now,
) -> Result<Arc<Session>, Refusal> {
    let host = live.settings.authenticate_url.host_str();
    let session = session_in_header(live, &parts.headers, host, connection, now).await?;
    if live.authenticate.is_person(&session) { Ok(session) } else { Err(refused(&EnrolError::NotAPerson)) }
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(format!("{error}.")))
}

fn refused(error: &EnrolError) -> Refusal {
    let status = match error {
        EnrolError::Off => StatusCode::NOT_FOUND,
        EnrolError::NotAPerson => StatusCode::FORBIDDEN,
        EnrolError::TooLongAgo => {
            // How long ago the provider last saw them does not matter: they begin anew.
            let demand = SignInDemand { prompt: Some(Prompt::Login), ..SignInDemand::NONE };
            return Refusal::StepUp { challenge: demand.challenge() };
        }
        EnrolError::OwnKey | EnrolError::KeyKnown | EnrolError::Limit | EnrolError::Exhausted => {
            StatusCode::CONFLICT
        }
        EnrolError::Store(error) => return store_failed(error),
    };
    Refusal::Call { status, detail: error.to_string() }
}

fn done(is_done: bool) -> Result<Response<Body>, Refusal> {
    if is_done {
        return Ok(status(StatusCode::NO_CONTENT));
    }
    Err(Refusal::Call { status: StatusCode::NOT_FOUND, detail: "You have no such device.".to_owned() })
}

fn document(value: &serde_json::Value) -> Response<Body> {
    let mut response = respond::plain("application/json", value.to_string());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::respond::{Audience, Form};

    #[test]
    fn each_no_has_its_status_and_an_old_sign_in_is_told_to_begin_anew() {
        let audience = Audience { request_id: "r", host: "h", form: Form::Document };
        for (error, status) in [
            (EnrolError::Off, StatusCode::NOT_FOUND),
            (EnrolError::NotAPerson, StatusCode::FORBIDDEN),
            (EnrolError::TooLongAgo, StatusCode::UNAUTHORIZED),
            (EnrolError::KeyKnown, StatusCode::CONFLICT),
            (EnrolError::Limit, StatusCode::CONFLICT),
        ] {
            let response = refused(&error).into_response(audience);
            assert_eq!(response.status(), status, "{error}");
            let challenge = response.headers().get(header::WWW_AUTHENTICATE);
            assert_eq!(challenge.is_some(), matches!(error, EnrolError::TooLongAgo));
            if let Some(challenge) = challenge {
                let challenge = challenge.to_str().unwrap();
                assert!(
                    challenge.contains("insufficient_user_authentication")
                        && challenge.contains("prompt=\"login\"")
                );
            }
        }
    }

    #[test]
    fn the_list_and_what_is_below_it_are_the_calls() {
        for (path, id) in [
            (PEERS_PATH, None),
            ("/.pomerium/api/v1/wireguard/peers/abc", Some("abc")),
            ("/.pomerium/api/v1/wireguard/peers/", Some("")),
        ] {
            assert!(is_ours(path));
            assert_eq!(id_in(path).as_ref().map(PeerId::as_str), id);
        }
        assert!(!is_ours("/.pomerium/api/v1/wireguard/peersx"));
    }
}
