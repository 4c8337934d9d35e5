//! A person's own page on the sign-in host: who they are, where they are signed in, and on what. No app shares this host,
//! so that a form that comes from here is the person's own.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Response, StatusCode};
use maud::{Markup, html};

use super::{
    AuthRequest, Authenticate, browser_device::DEVICES_PATH, device_pages, pages, peer_pages::PEERS_PATH,
    sign_in::bad_request, sign_out::is_same_origin, store_failed, token_endpoint::Form,
};
use crate::{
    device::Device,
    portal::{self, moment, phrase, say},
    session::Session,
    store::StoreError,
};

/// Ends one of the person's sessions.
pub(super) const END_PATH: &str = "/.pomerium/sessions/end";

impl Authenticate {
    pub(super) async fn account_page(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let page = async {
            let Some(session) = self.sign_in_host_session(req, now).await? else {
                return Ok(pages::nobody());
            };
            let sessions = self.store.sessions_of(&session.user_id, now).await?;
            let devices = self.store.devices(Some(&session.user_id)).await?;
            let body = account(&session, &sessions, &devices, self.peer_terms().is_some());
            Ok::<_, StoreError>(pages::account(body))
        };
        page.await.unwrap_or_else(|error| store_failed(&error))
    }

    /// Of the person's own sessions, and from our own page, alone.
    pub(super) async fn end_own_session(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        if !is_same_origin(req) {
            return bad_request("This form was not sent from here.");
        }
        let ended = async {
            let Some(session) = self.sign_in_host_session(req, now).await? else {
                return Ok(pages::problem(StatusCode::UNAUTHORIZED, "Sign in first."));
            };
            let form = Form::of(&req.form);
            let sessions = self.store.sessions_of(&session.user_id, now).await?;
            let meant = sessions.iter().find(|other| form.one("id") == Some(other.id.as_str()));
            let Some(meant) = meant else { return Ok(bad_request("You have no such session any more.")) };
            self.end(&meant.id).await?;
            Ok::<_, StoreError>(pages::redirect("/.pomerium/"))
        };
        ended.await.unwrap_or_else(|error| store_failed(&error))
    }
}

fn account(session: &Session, sessions: &[Session], devices: &[Device], has_wireguard: bool) -> Markup {
    html! {
        (portal::identity(session))
        div.actions {
            a.button href=(super::sign_in::RENEW_PATH) { (say("Sign in again")) }
            form method="post" action="/.pomerium/sign_out" { button.second { (say("Sign out")) } }
        }
        p.quiet { (say("Signing in again renews your session; what you have open stays open.")) }
        h2 { (say("Where you are signed in")) }
        ul.items { @for other in sessions { li { (one(other, devices, other.id == session.id)) } } }
        h2 { (say("Your devices")) }
        @if devices.is_empty() { p { (say("You have none.")) } } @else {
            ul.items { @for device in devices { li { (device_pages::one(device)) } } }
        }
        p { (phrase("{} as a device.", &[html! { a href=(DEVICES_PATH) { (say("Add this browser")) } }])) }
        @if has_wireguard { p { a href=(PEERS_PATH) { (say("Your WireGuard devices")) } } }
        (portal::claims(session))
    }
}

fn one(session: &Session, devices: &[Device], is_this: bool) -> Markup {
    let device =
        session.bound_to.as_ref().and_then(|key| devices.iter().find(|device| device.id == key.as_str()));
    html! {
        div {
            strong {
                @match (device, &session.bound_to) {
                    (Some(device), _) if !device.name.is_empty() => (device.name),
                    (_, Some(_)) => "pomerium-cli",
                    (_, None) => (say("A browser, and programs that it let in")),
                }
            }
            @if is_this { span.mark { (say("this browser")) } }
            br;
            span.quiet { (phrase("since {}, until {}", &[moment(session.issued_at), moment(session.expires_at)])) }
        }
        // This one ends by signing out, at the identity provider too.
        @if !is_this {
            form method="post" action=(END_PATH) {
                button.second.small name="id" value=(session.id.as_str()) { (say("End")) }
            }
        }
    }
}
