//! Who somebody is to the gateway. On an app's host this page ends nothing: the app could send its forms.

use maud::{Markup, html};

use super::{Frame, Look, Place, SCRIPT_PATH, layout, moment, say};
use crate::session::Session;

/// The page of an app's host. `account_url` is where sessions and devices are seen and ended.
#[must_use]
pub fn user(look: &Look, session: &Session, account_url: &str) -> String {
    let content = html! {
        (identity(session))
        div.actions {
            a.button href=(account_url) { (say("Sessions and devices")) }
            // No form: it leads on to other hosts, where browsers hold `form-action` against it.
            a.button.second href="/.pomerium/sign_out" { (say("Sign out")) }
        }
        (claims(session))
    };
    layout(Frame { look, title: "You", place: Some(Place::Person), script: Some(SCRIPT_PATH) }, &content)
}

/// Who they are, and until when.
#[must_use]
pub fn identity(session: &Session) -> Markup {
    html! {
        h1 { @if session.name.is_empty() { (session.email) } @else { (session.name) } }
        dl {
            dt { (say("Email")) } dd { (session.email) }
            dt { (say("Groups")) } dd { @if session.groups.is_empty() { (say("none")) } @else { (session.groups.join(", ")) } }
            dt { (say("Session ends")) } dd { (moment(session.expires_at)) }
        }
    }
}

/// What their provider says of them.
#[must_use]
pub fn claims(session: &Session) -> Markup {
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    html! {
        @if !session.claims.is_empty() {
            details {
                summary { (say("What your identity provider says of you")) }
                dl {
                    @for (name, values) in &session.claims {
                        dt { code { (name) } }
                        dd { (values.iter().map(text).collect::<Vec<_>>().join(", ")) }
                    }
                }
            }
        }
    }
}
