//! Pages that say no, and why.

use maud::{Markup, html};

use super::{Frame, Look, layout, phrase, say};

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

/// Policy says no.
#[must_use]
pub fn denied(look: &Look, page: &DeniedPage<'_>) -> String {
    let content = html! {
        p.status { (page.status) }
        h1 { (say("Not allowed")) }
        @if let Some(words) = &look.first_paragraph { p { (words) } }
        p {
            (phrase("You may not use {} at {}.", &[html! { strong { (page.route_name) } }, html! { (page.host) }]))
        }
        section.why {
            h2 { (say("Why")) }
            ul { @for line in &page.explanations { li { (explained(line)) } } }
        }
        @if !page.remedies.is_empty() {
            section.fix {
                h2 { (say("What would help")) }
                ul { @for line in &page.remedies { li { (say(line)) } } }
            }
        }
        @if !page.traces.is_empty() {
            details { summary { (say("The rules and what they came to")) } ul { @for line in &page.traces { li { code { (line) } } } } }
        }
        @if !page.email.is_empty() {
            p {
                (phrase(
                    "You are signed in as {}. If that is the wrong account, {} and sign in with another; otherwise ask your \
                     administrator and give the request id.",
                    &[
                        html! { strong { (page.email) } },
                        html! { a href=(page.sign_out_url) { (say("sign out")) } },
                    ],
                ))
            }
        }
        div.actions { a.button href="" { (say("Try again")) } }
        p.id { (phrase("Request id {}", &[html! { code { (page.request_id) } }])) }
    };
    layout(Frame { look, title: "Not allowed", place: None, script: None }, &content)
}

/// Something went wrong.
#[must_use]
pub fn error(look: &Look, page: &ErrorPage<'_>) -> String {
    let content = html! {
        p.status { (page.status) }
        h1 { (say(page.title)) }
        @if let Some(words) = &look.first_paragraph { p { (words) } }
        p { (say(page.detail)) }
        @if !page.request_id.is_empty() { p.id { (phrase("Request id {}", &[html! { code { (page.request_id) } }])) } }
    };
    layout(Frame { look, title: page.title, place: None, script: None }, &content)
}

/// A reason with its code, by which administrators know it in any language: `You are not signed in (user-unauthenticated).`
fn explained(line: &str) -> Markup {
    match line.strip_suffix(").").and_then(|line| line.rsplit_once(" (")) {
        Some((words, code)) => html! { (say(words)) " (" (code) ")." },
        None => html! { (say(line)) },
    }
}
