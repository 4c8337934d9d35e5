//! What people see of the development identity provider; every page says what it is.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use maud::{DOCTYPE, Markup, html};

use super::{Answer, Parameters, grants::PEOPLE};

/// On every page.
pub(super) const MARK: &str = "Development identity provider, not for production.";

/// No scripts, no frames around it (a click on a name signs in), nothing from elsewhere. No `form-action`: browsers hold
/// it against the redirects that follow a form, and those lead to the gateway and on to any app.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The page with a button a person; the request's own parameters go along.
pub(super) fn choose(query: &Parameters) -> Answer {
    page(
        "Who are you?",
        &html! {
            h1 { "Who are you?" }
            form method="get" action="/authorize" {
                @for (name, value) in query {
                    @if name != "person" { input type="hidden" name=(name) value=(value); }
                }
                @for person in PEOPLE {
                    p { button type="submit" name="person" value=(person.name) { (person.name) " (" (person.email) ")" } }
                }
            }
            p { "It asks for no password: whoever can open this page on this machine is whoever they say." }
        },
    )
}

/// After signing out with nowhere to go.
pub(super) fn signed_out() -> Answer {
    page("Signed out", &html! { h1 { "Signed out" } })
}

/// Something that is not done here.
pub(super) fn refused(status: StatusCode, why: &str) -> Answer {
    let mut response = page("Not possible", &html! { h1 { "Not possible" } p { (why) } });
    *response.status_mut() = status;
    response
}

/// A body that no cache keeps.
pub(super) fn with_type(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn page(title: &str, content: &Markup) -> Answer {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - development identity provider" }
                link rel="stylesheet" href="/style.css";
            }
            body { main { p { strong { (MARK) } } (content) } }
        }
    };
    let mut response = with_type("text/html; charset=utf-8", page.into_string());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
