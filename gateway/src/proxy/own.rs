//! What the gateway answers itself: health, keys, sign-in, the routes list, events. Never forwarded, whatever the route.

mod device;
mod events;
mod routes;
mod scim;
mod wireguard;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use pomerium_shared::{clock::Now, events as wire};
use serde_json::json;
use url::Url;

pub(super) use self::events::Listeners;
use super::{
    Connection, Live, Proxy, Refusal,
    authority::Authority,
    caller::{Caller, session_in_header, store_failed},
    gate::{Lack, Whereto, sign_in},
    respond,
};
use crate::{
    authenticate::{AuthRequest, PEERS_SCRIPT, PEERS_SCRIPT_PATH, WEBAUTHN_SCRIPT, WEBAUTHN_SCRIPT_PATH},
    body::{self, Body},
    portal,
    session::{Session, credentials::in_authorization},
};

/// Bytes of a form posted to the gateway itself at most: far above what the pages send.
const FORM_LEN_MAX: usize = 64 * 1024;

/// For such a form to arrive.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// What somebody may open, on the sign-in host; every other one sends there.
const ROUTES_PATH: &str = "/.pomerium/routes";
/// The same, for programs, on each host: by a token in a header.
const ROUTES_API_PATH: &str = "/.pomerium/api/v1/routes";

impl Proxy {
    /// Answers a request: by the gateway itself, or by the app behind.
    pub(super) async fn answer(
        &self,
        live: &Live,
        request: Request<Body>,
        connection: &Connection,
        request_id: &str,
    ) -> Result<Response<Body>, Refusal> {
        let whereto = Whereto::of(request.uri(), request.headers(), connection)?;
        check_length(request.headers())?;
        let path = whereto.path.as_str();
        if let Some(response) = public_endpoint(live, &whereto, request.method()) {
            return response;
        }
        if path == device::POSTURE_PATH {
            return self.posture(live, &whereto, request, connection).await;
        }
        let is_pomerium = path == "/.pomerium" || path.starts_with("/.pomerium/");
        let is_sign_in_host = is_authenticate_host(live, &whereto.authority);
        let services = live.settings.services;
        if !(if is_sign_in_host { services.signs_in() } else { services.proxies() }) {
            // Another process serves it: a browser may have come here by a connection to that host's neighbour.
            return Err(Refusal::Misdirected);
        }
        if (is_pomerium || is_sign_in_host) && !live.rate.admits(connection.ip_now()) {
            return Err(Refusal::TooMany);
        }
        if wireguard::is_ours(path) {
            return self.wireguard_peers(live, request, connection, &whereto).await;
        }
        if is_sign_in_host && scim::is_ours(live, path) {
            return Ok(self.scim(live, &whereto, request).await);
        }
        if is_sign_in_host && !(services.proxies() && is_of_a_program(path, request.headers())) {
            return self.authenticate_host(live, &whereto, request, connection).await;
        }
        if is_pomerium {
            return self.route_host(live, &whereto, request, connection).await;
        }
        Box::pin(self.forward(live, whereto, request, connection, request_id)).await
    }

    async fn authenticate_host(
        &self,
        live: &Live,
        whereto: &Whereto,
        request: Request<Body>,
        connection: &Connection,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, form) = collect(request).await?;
        let url = whereto.url(parts.uri.query())?;
        let request = AuthRequest {
            method: &parts.method,
            url: &url,
            headers: &parts.headers,
            form,
            key: connection.key(),
        };
        let now = Now::read();
        if whereto.path.as_str() == ROUTES_PATH && parts.method == Method::GET {
            let session = live.authenticate.sign_in_host_session(&request, now.wall).await;
            let session = session.map_err(|error| store_failed(&error))?;
            let Some(session) = session else {
                return Err(sign_in(live, whereto, &parts, Lack::of_anybody(None), now)?);
            };
            let caller = Caller::of_session(Some(session), &self.store, now).await;
            let caller = caller.map_err(|error| store_failed(&error))?;
            return Ok(routes::page(live, &caller, connection, &url, now));
        }
        let now = now.wall;
        // The sign-in host signs out by itself; its other calls are those of any host.
        if whereto.path.as_str() != "/.pomerium/sign_out"
            && let Some(response) = live.authenticate.handle_route_host(request.clone(), now).await
        {
            return Ok(response.map(body::full));
        }
        Ok(live.authenticate.handle_authenticate_host(request, now).await.map(body::full))
    }

    /// The gateway's own pages and calls on any host that it serves.
    async fn route_host(
        &self,
        live: &Live,
        whereto: &Whereto,
        request: Request<Body>,
        connection: &Connection,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, form) = collect(request).await?;
        let now = Now::read();
        let url = whereto.url(parts.uri.query())?;
        let auth = AuthRequest {
            method: &parts.method,
            url: &url,
            headers: &parts.headers,
            form,
            key: connection.key(),
        };
        if let Some(response) = live.authenticate.handle_route_host(auth, now.wall).await {
            return Ok(response.map(body::full));
        }
        if !matches!(whereto.path.as_str(), "/.pomerium/" | ROUTES_PATH | ROUTES_API_PATH | wire::PATH) {
            return Err(Refusal::NoRoute);
        }
        // An answer that does not end has no head alone.
        let is_read = parts.method == Method::GET
            || (parts.method == Method::HEAD && whereto.path.as_str() != wire::PATH);
        if !is_read {
            return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
        }
        let host = Some(whereto.authority.host());
        match whereto.path.as_str() {
            wire::PATH => {
                let session = session_in_header(live, &parts.headers, host, connection, now).await?;
                return self.events(live, session, connection, now).await;
            }
            ROUTES_API_PATH => {
                let session = session_in_header(live, &parts.headers, host, connection, now).await?;
                let caller = Caller::of_session(Some(session), &self.store, now).await;
                let caller = caller.map_err(|error| store_failed(&error))?;
                return Ok(routes::document(live, &caller, connection, now));
            }
            ROUTES_PATH => return Ok(to_sign_in_host(live, &url)),
            _ => {}
        }
        let caller = self.caller(live, (&parts.headers, &parts.uri), host, connection, now).await?;
        let Some(session) = &caller.session else {
            return Err(sign_in(live, whereto, &parts, Lack::of_anybody(caller.rejected), now)?);
        };
        Ok(user_page(live, session))
    }
}

/// Sends a browser to the same page of the sign-in host: what an app's host shows, the app's own pages may read by their visitor's
/// cookie, and which apps somebody has is none of their business.
fn to_sign_in_host(live: &Live, url: &Url) -> Response<Body> {
    let mut there = live.settings.authenticate_url.clone();
    there.set_path(url.path());
    there.set_query(url.query());
    let mut response = status(StatusCode::FOUND);
    if let Ok(there) = HeaderValue::from_str(there.as_str()) {
        response.headers_mut().insert(header::LOCATION, there);
    }
    response
}

/// Whether a request is a program's own, which is answered alike on each host: people name the sign-in host to their client.
fn is_of_a_program(path: &str, headers: &HeaderMap) -> bool {
    match path {
        ROUTES_API_PATH | wire::PATH => true,
        "/.pomerium/sign_out" => headers.get(header::AUTHORIZATION).and_then(in_authorization).is_some(),
        _ => false,
    }
}

/// Endpoints that need no session and are the same on every host.
fn public_endpoint(
    live: &Live,
    whereto: &Whereto,
    method: &Method,
) -> Option<Result<Response<Body>, Refusal>> {
    let issuer = format!("https://{}", whereto.authority.to_host_port());
    let response = match whereto.path.as_str() {
        "/ping" | "/healthz" => respond::plain("text/plain; charset=utf-8", "OK\n"),
        "/.well-known/pomerium" | "/.well-known/pomerium/" => respond::plain(
            "application/json",
            json!({
                "issuer": format!("{issuer}/"),
                "authentication_callback_endpoint":
                    live.settings.authenticate_url.join("/oauth2/callback").map(String::from).unwrap_or_default(),
                "jwks_uri": format!("{issuer}/.well-known/pomerium/jwks.json"),
                "frontchannel_logout_uri": format!("{issuer}/.pomerium/sign_out"),
            })
            .to_string(),
        ),
        "/.well-known/pomerium/jwks.json" => {
            let mut response = respond::plain("application/json", live.signer.jwks().to_owned());
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
            response
        }
        portal::STYLESHEET_PATH => {
            kept_for_a_while(respond::plain("text/css; charset=utf-8", live.settings.look.stylesheet()))
        }
        portal::SCRIPT_PATH => {
            kept_for_a_while(respond::plain("text/javascript; charset=utf-8", portal::SCRIPT))
        }
        WEBAUTHN_SCRIPT_PATH => {
            kept_for_a_while(respond::plain("text/javascript; charset=utf-8", WEBAUTHN_SCRIPT))
        }
        PEERS_SCRIPT_PATH => {
            kept_for_a_while(respond::plain("text/javascript; charset=utf-8", PEERS_SCRIPT))
        }
        portal::ICON_PATH => {
            let icon = live.settings.look.icon();
            kept_for_a_while(respond::plain(icon.media_type, icon.bytes))
        }
        portal::LOGO_PATH => {
            let logo = live.settings.look.logo.clone()?;
            kept_for_a_while(respond::plain(logo.media_type, logo.bytes))
        }
        _ => return None,
    };
    if method != Method::GET && method != Method::HEAD {
        return Some(Ok(status(StatusCode::METHOD_NOT_ALLOWED)));
    }
    let mut response = response;
    if whereto.path.as_str().starts_with("/.well-known/") {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    Some(Ok(response))
}

/// Whether a carrier must leave a request to the gateway: its pages and calls, and all of the sign-in host.
pub(super) fn is_own(live: &Live, whereto: &Whereto) -> bool {
    let path = whereto.path.as_str();
    is_authenticate_host(live, &whereto.authority)
        || path == "/.pomerium"
        || path.starts_with("/.pomerium/")
        || path == "/.well-known/pomerium"
        || path.starts_with("/.well-known/pomerium/")
}

/// Whatever the port: cookies know none, so an app on another port of this host could read and plant the sign-in's.
fn is_authenticate_host(live: &Live, authority: &Authority) -> bool {
    live.settings.authenticate_url.host_str() == Some(authority.host())
}

/// One length at most, in digits (RFC 9110, 8.6): what app and gateway read differently becomes somebody else's request.
fn check_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_number =
        |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if is_number(length) => Ok(()),
        _ => Err(Refusal::BadRequest("the request has several lengths, or one that is no number".to_owned())),
    }
}

/// An SVG may style itself, and no more.
const IMAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// What the pages load. Opened by itself it runs nothing: an image may have a script in it.
fn kept_for_a_while(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(IMAGE_POLICY));
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = code;
    response
}

async fn collect(request: Request<Body>) -> Result<(Parts, Bytes), Refusal> {
    let (parts, body) = request.into_parts();
    let form = tokio::time::timeout(FORM_TIMEOUT, body::collect(body, FORM_LEN_MAX)).await.ok().flatten();
    let form =
        form.ok_or_else(|| Refusal::BadRequest("the body is too long, too slow or broken off".to_owned()))?;
    Ok((parts, form))
}

fn user_page(live: &Live, session: &Session) -> Response<Body> {
    let account_url =
        live.settings.authenticate_url.join("/.pomerium/").map(String::from).unwrap_or_default();
    respond::page(portal::user(&live.settings.look, session, &account_url))
}
