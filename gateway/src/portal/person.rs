//! Who somebody is to the gateway. On an app's host this page ends nothing: the app could send its forms.

use std::time::SystemTime;

use maud::html;

use super::{Frame, Look, Place, SCRIPT_PATH, layout, moment};

/// Who somebody is to the gateway.
#[derive(Debug)]
pub struct UserPage<'a> {
    /// The email address.
    pub email: &'a str,
    /// The display name.
    pub name: &'a str,
    /// The groups.
    pub groups: &'a [String],
    /// When the session ends.
    pub session_expires: SystemTime,
    /// Claims and their values.
    pub claims: &'a [(String, String)],
    /// Where sessions and devices are seen and ended.
    pub account_url: &'a str,
}

/// Who the person is to the gateway.
#[must_use]
pub fn user(look: &Look, page: &UserPage<'_>) -> String {
    let content = html! {
        h1 { @if page.name.is_empty() { (page.email) } @else { (page.name) } }
        dl {
            dt { "Email" } dd { (page.email) }
            dt { "Groups" } dd { @if page.groups.is_empty() { "none" } @else { (page.groups.join(", ")) } }
            dt { "Session ends" } dd { (moment(page.session_expires)) }
        }
        div.actions {
            a.button href=(page.account_url) { "Sessions and devices" }
            form method="post" action="/.pomerium/sign_out" { button.second { "Sign out" } }
        }
        @if !page.claims.is_empty() {
            details {
                summary { "What your identity provider says of you" }
                dl { @for (name, value) in page.claims { dt { code { (name) } } dd { (value) } } }
            }
        }
    };
    layout(Frame { look, title: "You", place: Some(Place::Person), script: Some(SCRIPT_PATH) }, &content)
}
