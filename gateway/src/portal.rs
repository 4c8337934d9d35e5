//! The gateway's own pages: pure functions from what is to be said to HTML. No script, no third party, one stylesheet.

use maud::{DOCTYPE, Markup, html};

/// The policy that every page is sent with.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The stylesheet, served at `/.pomerium/index.css`.
pub const STYLESHEET: &str = include_str!("portal.css");

/// A refusal by policy.
#[derive(Debug)]
pub struct DeniedPage<'a> {
    /// The route's name.
    pub route_name: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// Who is signed in; empty if nobody.
    pub email: &'a str,
    /// The reasons that the person may see, as sentences.
    pub explanations: Vec<String>,
    /// What would help, as sentences.
    pub remedies: Vec<String>,
    /// Each rule with what it came to, where the route shows them.
    pub traces: Vec<String>,
    /// Under which the log has this request.
    pub request_id: &'a str,
    /// Where to become somebody else.
    pub sign_out_url: &'a str,
    /// The HTTP status.
    pub status: u16,
}

/// Something that went wrong.
#[derive(Debug)]
pub struct ErrorPage<'a> {
    /// The HTTP status.
    pub status: u16,
    /// A few words.
    pub title: &'a str,
    /// What happened and what to do.
    pub detail: &'a str,
    /// Under which the log has this request; empty if it has none.
    pub request_id: &'a str,
}

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
    pub session_expires: &'a str,
    /// Claims and their values.
    pub claims: &'a [(String, String)],
}

/// Policy says no.
#[must_use]
pub fn denied(page: &DeniedPage<'_>) -> String {
    layout(
        "Not allowed",
        &html! {
            p.status { (page.status) }
            h1 { "Not allowed" }
            p { "You may not use " strong { (page.route_name) } " at " (page.host) "." }
            ul { @for line in &page.explanations { li { (line) } } }
            @if !page.remedies.is_empty() {
                h2 { "What would help" }
                ul { @for line in &page.remedies { li { (line) } } }
            }
            @if !page.traces.is_empty() {
                details { summary { "The rules and what they came to" } ul { @for line in &page.traces { li { code { (line) } } } } }
            }
            @if !page.email.is_empty() {
                p { "You are signed in as " strong { (page.email) } ". If that is the wrong account, "
                    a href=(page.sign_out_url) { "sign out" } " and sign in with another; otherwise ask your administrator and give the request id." }
            }
            p.id { "Request id " code { (page.request_id) } }
        },
    )
}

/// Something went wrong.
#[must_use]
pub fn error(page: &ErrorPage<'_>) -> String {
    layout(
        page.title,
        &html! {
            p.status { (page.status) }
            h1 { (page.title) }
            p { (page.detail) }
            @if !page.request_id.is_empty() { p.id { "Request id " code { (page.request_id) } } }
        },
    )
}

/// Who the person is to the gateway.
#[must_use]
pub fn user(page: &UserPage<'_>) -> String {
    layout(
        "You",
        &html! {
            h1 { @if page.name.is_empty() { (page.email) } @else { (page.name) } }
            dl {
                dt { "Email" } dd { (page.email) }
                dt { "Groups" } dd { (page.groups.join(", ")) }
                dt { "Session ends" } dd { (page.session_expires) }
                @for (name, value) in page.claims { dt { code { (name) } } dd { (value) } }
            }
            p { a href="/.pomerium/sign_out" { "Sign out" } }
        },
    )
}

fn layout(title: &str, content: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="stylesheet" href="/.pomerium/index.css";
            }
            body { main { (content) } }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_any_field_is_text() {
        let evil = "<script>alert(1)</script>";
        let pages = [
            denied(&DeniedPage {
                route_name: evil,
                host: evil,
                email: evil,
                explanations: vec![evil.to_owned()],
                remedies: vec![evil.to_owned()],
                traces: vec![evil.to_owned()],
                request_id: evil,
                sign_out_url: "\"><script>",
                status: 403,
            }),
            error(&ErrorPage { status: 400, title: evil, detail: evil, request_id: evil }),
            user(&UserPage {
                email: evil,
                name: evil,
                groups: &[evil.to_owned()],
                session_expires: evil,
                claims: &[(evil.to_owned(), evil.to_owned())],
            }),
        ];
        for page in pages {
            assert!(!page.contains("<script"), "{page}");
        }
    }
}
