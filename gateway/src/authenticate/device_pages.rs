//! What people see of their devices. These pages alone have a script, and it is ours.

use bytes::Bytes;
use http::Response;
use maud::{Markup, html};

use super::{
    browser_device::{DEVICES_PATH, ENROL_OPTIONS_PATH, ENROL_PATH, NAME_LEN_MAX, REMOVE_PATH},
    device_proof::PROOF_OPTIONS_PATH,
    pages,
};
use crate::{
    device::{Device, DeviceKind},
    portal::{phrase, say},
    session::Session,
};

/// Where the script is.
pub const SCRIPT_PATH: &str = "/.pomerium/webauthn.js";

/// Asks the browser for a credential, by the attributes of the page's one button.
pub const SCRIPT: &str = include_str!("webauthn.js");

/// A person's devices.
pub(super) fn devices(session: &Session, devices: &[Device]) -> Response<Bytes> {
    let body = html! {
        h1 { (say("Your devices")) }
        p { (phrase("You are signed in as {}.", &[html! { strong { (session.email) } }])) }
        @if devices.is_empty() { p { (say("You have none.")) } } @else {
            ul.items { @for device in devices { li { (one(device)) } } }
        }
        h2 { (say("This browser")) }
        p {
            (say(
                "Your browser makes a key for it, which stays on this device or on your security key. An administrator has to \
                 approve it before it opens anything."
            ))
        }
        p { label { (phrase("Name {}", &[html! { input name="name" maxlength=(NAME_LEN_MAX) placeholder=(say("My laptop")) autocomplete="off"; }])) } }
        (button("create", ENROL_OPTIONS_PATH, ENROL_PATH, "Add this browser"))
    };
    pages::devices("Your devices", body)
}

/// A device in a list, with the button that removes it.
pub(super) fn one(device: &Device) -> Markup {
    let kind = match device.kind {
        DeviceKind::ClientKey => "pomerium-cli",
        DeviceKind::WebauthnAny | DeviceKind::WebauthnEnclave => "browser",
    };
    html! {
        div {
            strong { @if device.name.is_empty() { (say(kind)) } @else { (device.name) } }
            span.mark { @if device.is_approved { (say("approved")) } @else { (say("waiting for approval")) } }
            br;
            span.quiet { (say(kind)) ", " code { (device.id.chars().take(16).collect::<String>()) } }
        }
        form method="post" action=(REMOVE_PATH) {
            button.second.small name="id" value=(device.id) { (say("Remove")) }
        }
    }
}

/// Asks for the proof that this is the person's device. `here` is this page's own address, which says where they go then.
pub(super) fn proof(session: &Session, here: &str, app: &str, has_any: bool) -> Response<Bytes> {
    let yours = html! { a href=(DEVICES_PATH) { (say("your devices")) } };
    let body = html! {
        h1 { (say("Is this your device?")) }
        p {
            (phrase(
                "{} asks on what device you are. You are signed in as {}.",
                &[html! { strong { (app) } }, html! { strong { (session.email) } }],
            ))
        }
        @if has_any {
            (button("get", PROOF_OPTIONS_PATH, here, "Show that it is"))
            p { (phrase("If this browser is none of {}, add it there.", &[yours])) }
        } @else {
            p { (phrase("No browser of yours is known here. Add it to {}, and open the application again.", &[yours])) }
        }
    };
    pages::devices("Is this your device?", body)
}

fn button(ceremony: &str, options: &str, result: &str, text: &str) -> Markup {
    html! {
        p { button data-ceremony=(ceremony) data-options=(options) data-result=(result) { (say(text)) } }
        p role="status" {}
    }
}
