//! The gateway's own pages: pure functions from what is to be said to HTML. One stylesheet, no inline script, and nothing
//! from another host. What a script adds is a convenience; only enrolling a browser needs one.

mod hindrance;
mod language;
pub mod look;
mod person;
mod refusal;
mod routes;

use maud::{DOCTYPE, Markup, html};

pub use self::{
    hindrance::{Circle, FRAMED_POLICY, Hindrance, hindered},
    language::{Language, phrase, say, speaking},
    look::Look,
    person::{claims, identity, user},
    refusal::{DeniedPage, ErrorPage, denied, error},
    routes::{Entry, Kind, routes},
};

/// Where the stylesheet is, on each host of the gateway.
pub const STYLESHEET_PATH: &str = "/.pomerium/index.css";
/// Where the script of these pages is.
pub const SCRIPT_PATH: &str = "/.pomerium/index.js";
/// Where the icon is.
pub const ICON_PATH: &str = "/.pomerium/icon";
/// Where the operator's logo is, if there is one.
pub const LOGO_PATH: &str = "/.pomerium/logo";
/// Searching, copying, and times as on the reader's clock.
pub const SCRIPT: &str = include_str!("portal/portal.js");

/// The policy of pages whose forms end where they began.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What stands around a page's content.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The operator's look.
    pub look: &'a Look,
    /// The page's name, for tabs and histories.
    pub title: &'a str,
    /// Which page of the bar this is, if somebody is signed in.
    pub place: Option<Place>,
    /// A script of ours.
    pub script: Option<&'a str>,
}

/// The pages of whoever is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// What they may open.
    Routes,
    /// Who they are.
    Person,
}

/// A whole page.
#[must_use]
pub fn layout(frame: Frame<'_>, content: &Markup) -> String {
    let Frame { look, title, place, script } = frame;
    let links = [(Place::Routes, "/.pomerium/routes", "Apps"), (Place::Person, "/.pomerium/", "You")];
    html! {
        (DOCTYPE)
        html lang=(Language::spoken().tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (say(title)) " · " (look.title) }
                link rel="stylesheet" href=(STYLESHEET_PATH);
                link rel="icon" href=(ICON_PATH);
                @if let Some(script) = script { script src=(script) defer {} }
            }
            body {
                header.bar {
                    span.brand {
                        @match &look.logo {
                            Some(_) => img src=(LOGO_PATH) alt=(look.title);,
                            None => (look.title),
                        }
                    }
                    @if place.is_some() {
                        nav {
                            @for (at, href, text) in links {
                                a href=(href) aria-current=[(place == Some(at)).then_some("page")] { (say(text)) }
                            }
                        }
                    }
                }
                main.narrow[place != Some(Place::Routes)] { (content) }
            }
        }
    }
    .into_string()
}

/// A moment: in UTC, which the script turns into the reader's own time.
#[must_use]
pub fn moment(at: std::time::SystemTime) -> Markup {
    let Ok(at) = jiff::Timestamp::try_from(at) else { return html! {} };
    let machine = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(machine) { (at.strftime("%Y-%m-%d %H:%M UTC").to_string()) } }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::session::{Session, SessionId, UserId};

    #[test]
    fn markup_in_any_field_is_text() {
        let evil = "\"><script>alert(1)</script>";
        let look = Look { title: evil.to_owned(), first_paragraph: Some(evil.to_owned()), ..Look::default() };
        let session = Session {
            id: SessionId::new(evil),
            user_id: UserId::new(evil),
            idp_id: evil.to_owned(),
            email: evil.to_owned(),
            name: evil.to_owned(),
            groups: vec![evil.to_owned()],
            claims: [(evil.to_owned(), vec![evil.into()])].into(),
            issued_at: SystemTime::UNIX_EPOCH,
            expires_at: SystemTime::UNIX_EPOCH,
            bound_to: None,
            vouched_until: None,
            proof: None,
        };
        let pages = [
            denied(
                &look,
                &DeniedPage {
                    route_name: evil,
                    host: evil,
                    email: evil,
                    explanations: vec![evil.to_owned()],
                    remedies: vec![evil.to_owned()],
                    traces: vec![evil.to_owned()],
                    request_id: evil,
                    sign_out_url: evil,
                    status: 403,
                },
            ),
            hindered(&look, &Hindrance::Circle(Circle::Refused(evil.to_owned())), evil, evil),
            error(&look, &ErrorPage { status: 400, title: evil, detail: evil, request_id: evil }),
            user(&look, &session, evil),
            routes(
                &look,
                &[
                    Entry {
                        name: evil,
                        description: evil,
                        logo_url: Some("javascript:alert(1)"),
                        from: evil,
                        kind: Kind::Page,
                    },
                    Entry {
                        name: evil,
                        description: evil,
                        logo_url: None,
                        from: evil,
                        kind: Kind::Command(evil),
                    },
                ],
                evil,
            ),
        ];
        for page in pages {
            assert!(!page.contains("<script>"), "{page}");
            assert!(!page.contains("javascript:"), "{page}");
        }
    }

    #[test]
    fn the_bar_leads_on_only_for_whoever_is_signed_in() {
        let look = Look::default();
        let page = |place| layout(Frame { look: &look, title: "x", place, script: None }, &html! {});
        assert!(!page(None).contains("<nav>"));
        assert!(page(Some(Place::Person)).contains(r#"<a href="/.pomerium/" aria-current="page">"#));
    }
}
