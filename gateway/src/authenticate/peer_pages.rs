//! A person's WireGuard devices on the sign-in host: the list, and a new one whose key pair the browser makes.
//!
//! No app shares this host, so that what comes from here is the person's own. The private key stays in the page: the script posts the
//! public one, and writes file and picture itself.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use maud::{Markup, html};
use pomerium_shared::wireguard::{ListedPeer, NAME_LEN_MAX, NewPeer, PeerName, PeerState};
use serde_json::{Value, json};

use super::{
    AuthRequest, Authenticate, EnrolError,
    browser_device::Refused,
    pages, peers,
    sign_in::{REDIRECT_URI, RENEW_PATH, bad_request},
    sign_out::is_same_origin,
    store_failed,
    token_endpoint::Form,
};
use crate::{
    portal::{moment, phrase, say},
    session::{Session, demand::SignInDemand},
    store::StoreError,
    wireguard_peer::PeerId,
};

/// The page, and what its forms and script are sent to.
pub(super) const PEERS_PATH: &str = "/.pomerium/wireguard";
const ENROL_PATH: &str = "/.pomerium/wireguard/enrol";
const RENAME_PATH: &str = "/.pomerium/wireguard/rename";
const REMOVE_PATH: &str = "/.pomerium/wireguard/remove";

/// Where the script is.
pub const SCRIPT_PATH: &str = "/.pomerium/wireguard.js";

/// Makes key pairs, and shows what comes of them as a file and as a picture.
pub const SCRIPT: &str = concat!(include_str!("qr.js"), include_str!("wireguard.js"));

impl Authenticate {
    pub(super) async fn peer_page(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        if self.peer_terms().is_none() {
            return pages::problem(StatusCode::NOT_FOUND, "There is no such page.");
        }
        let is_read = req.method == Method::GET || req.method == Method::HEAD;
        let is_post = req.method == Method::POST;
        match req.url.path() {
            PEERS_PATH if is_read => self.peers_page(req, now).await,
            ENROL_PATH if is_post => {
                let enrolled = self.enrol_own_peer(req, now).await;
                enrolled.map_or_else(Refused::into_response, |said| pages::json(&said))
            }
            RENAME_PATH if is_post => self.change_own_peer(req, now, Change::Rename).await,
            REMOVE_PATH if is_post => self.change_own_peer(req, now, Change::Remove).await,
            PEERS_PATH | ENROL_PATH | RENAME_PATH | REMOVE_PATH => {
                pages::problem(StatusCode::METHOD_NOT_ALLOWED, "This page cannot be used that way.")
            }
            _ => pages::problem(StatusCode::NOT_FOUND, "There is no such page."),
        }
    }

    async fn peers_page(&self, req: &AuthRequest<'_>, now: SystemTime) -> Response<Bytes> {
        let page = async {
            let Some(session) = self.sign_in_host_session(req, now).await? else {
                return self.sign_in_response(req.url, req.headers, &SignInDemand::default(), now);
            };
            let peers = self.own_peers(&session, now).await?;
            let body = peers_body(&session, &peers, Self::is_fresh(&session, now), req);
            Ok::<_, StoreError>(pages::wireguard(body))
        };
        page.await.unwrap_or_else(|error| store_failed(&error))
    }

    /// For our script alone.
    async fn enrol_own_peer(&self, req: &AuthRequest<'_>, now: SystemTime) -> Result<Value, Refused> {
        let session = self.asking(req, now).await?;
        let new: NewPeer = serde_json::from_slice(&req.form)
            .map_err(|_| Refused::request("The name is too long, or has characters that cannot be shown."))?;
        Ok(json!(self.enrol_peer(&session, &new, now).await?))
    }

    /// Of the person's own peers, and from our own page, alone.
    async fn change_own_peer(
        &self,
        req: &AuthRequest<'_>,
        now: SystemTime,
        change: Change,
    ) -> Response<Bytes> {
        if !is_same_origin(req) {
            return bad_request("This form was not sent from here.");
        }
        let changed = async {
            let Some(session) = self.sign_in_host_session(req, now).await? else {
                return Ok(pages::problem(StatusCode::UNAUTHORIZED, "Sign in first."));
            };
            let form = Form::of(&req.form);
            let id = PeerId::new(form.one("id").unwrap_or_default());
            let is_done = match change {
                Change::Remove => self.store.remove_peer(&session, &id, now).await?,
                Change::Rename => {
                    let Some(Ok(name)) = form.one("name").map(str::parse::<PeerName>) else {
                        return Ok(bad_request(
                            "The name is too long, or has characters that cannot be shown.",
                        ));
                    };
                    self.store.rename_peer(&session, &id, &name).await?
                }
            };
            if !is_done {
                return Ok(bad_request("You have no such device."));
            }
            tracing::info!(peer = %id, user = %session.user_id, ?change, "a person changed a WireGuard peer");
            Ok::<_, StoreError>(pages::redirect(PEERS_PATH))
        };
        changed.await.unwrap_or_else(|error| store_failed(&error))
    }
}

/// What a form does to a peer.
#[derive(Debug, Clone, Copy)]
enum Change {
    Rename,
    Remove,
}

impl From<EnrolError> for Refused {
    fn from(error: EnrolError) -> Self {
        let told = Self::Told;
        match error {
            EnrolError::Off => told(
                StatusCode::NOT_FOUND,
                "This gateway takes no WireGuard devices. Ask your administrator.",
            ),
            EnrolError::NotAPerson => told(StatusCode::FORBIDDEN, "Sign in first."),
            EnrolError::TooLongAgo => told(
                StatusCode::UNAUTHORIZED,
                "Sign in again first: a WireGuard device is added soon after a sign-in.",
            ),
            EnrolError::OwnKey | EnrolError::KeyKnown => {
                told(StatusCode::CONFLICT, "This key is known already. Make a new pair, and try again.")
            }
            EnrolError::Limit => {
                told(StatusCode::CONFLICT, "You have as many WireGuard devices as you may. Remove one first.")
            }
            EnrolError::Exhausted => told(
                StatusCode::CONFLICT,
                "All addresses of WireGuard devices are taken. Tell your administrator.",
            ),
            EnrolError::Store(error) => Self::Store(error),
        }
    }
}

fn peers_body(session: &Session, peers: &[ListedPeer], is_fresh: bool, req: &AuthRequest<'_>) -> Markup {
    html! {
        h1 { (say("Your WireGuard devices")) }
        div data-before {
            p { (phrase("You are signed in as {}.", &[html! { strong { (session.email) } }])) }
            p { (say("A device may come in while you are signed in. When your session has ended, sign in again in any browser, and it goes on.")) }
            @if peers.is_empty() { p { (say("You have none.")) } } @else {
                ul.items { @for peer in peers { li { (one(peer)) } } }
            }
            h2 { (say("Add a WireGuard device")) }
            p {
                (say(
                    "This page makes a key for the device. Its secret half stays in this page: save it as a file, or scan it with the \
                     WireGuard app, before you leave."
                ))
            }
            @if is_fresh { (adding()) } @else {
                p { (say("Sign in again first: a WireGuard device is added soon after a sign-in.")) }
                p { a.button href=(sign_in_again(req)) { (say("Sign in again")) } }
            }
        }
        @if is_fresh { (made()) }
    }
}

/// What the script sends. Its words are the page's, so that it speaks the person's language.
fn adding() -> Markup {
    html! {
        form data-enrol=(ENROL_PATH) {
            p { label { (phrase("Name {}", &[html! { input name="name" maxlength=(NAME_LEN_MAX) placeholder=(say("My phone")) autocomplete="off" required; }])) } }
            p { button { (say("Add a device")) } }
        }
        p role="status" data-old=(say("This browser cannot make keys for WireGuard. Use a newer one, or pomerium-cli wg add.")) {}
    }
}

/// What the script shows in the place of all else, once.
fn made() -> Markup {
    html! {
        div data-made hidden {
            p { (say("Scan this with the WireGuard app, or save the file. It is shown once.")) }
            div.qr {}
            div.actions {
                a.button download="pomerium.conf" { (say("Save the file")) }
                a.button.second href=(PEERS_PATH) { (say("Done")) }
            }
            pre tabindex="0" { code {} }
        }
    }
}

fn sign_in_again(req: &AuthRequest<'_>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair(REDIRECT_URI, req.url.as_str());
    format!("{RENEW_PATH}?{}", query.finish())
}

fn one(peer: &ListedPeer) -> Markup {
    let state = match peer.state {
        PeerState::Active => "active",
        PeerState::SignedOut => "waits for a sign-in",
        PeerState::Revoked => "revoked by an administrator",
        PeerState::Misplaced => "add it again",
    };
    let at = |seconds: u64| moment(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    html! {
        div {
            strong { (peer.name) }
            span.mark { (say(state)) }
            br;
            span.quiet {
                @if let Some(until) = peer.active_until {
                    (phrase("since {}, until {}", &[at(peer.created_at), at(until)]))
                } @else {
                    (phrase("since {}", &[at(peer.created_at)]))
                }
                ", " code { (peer.address_v4) } ", " code { (peers::short(&peer.public_key)) }
            }
        }
        form.line method="post" action=(RENAME_PATH) {
            input name="name" value=(peer.name) maxlength=(NAME_LEN_MAX) required aria-label=(say("New name")) autocomplete="off";
            button.second.small name="id" value=(peer.id) { (say("Rename")) }
            button.second.small name="id" value=(peer.id) formaction=(REMOVE_PATH) formnovalidate { (say("Remove")) }
        }
    }
}
