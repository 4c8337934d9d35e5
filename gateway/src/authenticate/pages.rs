//! What people see while they sign in and out. A page is its content until [`framed`] puts the operator's look around it.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use maud::{Markup, html};
use url::Url;

use super::consent::{Program, Question};
use crate::{
    portal::{self, Frame, Hindrance, Look, Place, phrase, say},
    session::Session,
};

/// `form-action` lets forms go on to the identity provider, to apps and to programs that listen on this computer, whose
/// address may be one that no source expression can name: browsers hold it against redirects too.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' https: http:; \
     frame-ancestors 'none'; base-uri 'none'";

/// Of the account's page, whose script shows times and speaks to nobody.
const ACCOUNT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     form-action 'self' https: http:; frame-ancestors 'none'; base-uri 'none'";

/// Of the pages of devices, WireGuard's too, whose script speaks to this host alone, where their forms end as well.
const DEVICES_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; \
     img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// For the page in a frame that leads to a tab.
const IN_A_TAB: Hindrance = Hindrance::Frame { is_foreign: false };

/// What a page says, on its way to [`framed`].
#[derive(Debug, Clone)]
struct Content {
    title: String,
    body: Markup,
    place: Option<Place>,
    script: Option<&'static str>,
}

/// A page in a frame whose only link leads here, in a tab of its own.
#[derive(Debug, Clone)]
struct InATab(Url);

/// Puts the frame around a page; whatever is none stays as it is.
pub(super) fn framed(mut response: Response<Bytes>, look: &Look) -> Response<Bytes> {
    if let Some(InATab(url)) = response.extensions_mut().remove() {
        *response.body_mut() = portal::hindered(look, &IN_A_TAB, url.as_str(), "").into();
    }
    if let Some(Content { title, body, place, script }) = response.extensions_mut().remove() {
        let page = portal::layout(Frame { look, title: &title, place, script }, &body);
        *response.body_mut() = page.into();
    }
    response
}

/// A 302 that nobody keeps and whose URL no `Referer` repeats.
pub(super) fn redirect(to: &str) -> Response<Bytes> {
    let Ok(location) = HeaderValue::from_str(to) else {
        return problem(StatusCode::BAD_REQUEST, "The address to go on to is not valid.");
    };
    let mut response = bare(StatusCode::FOUND, Bytes::new());
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// A page that leads on by itself, as a step of this site's own and no longer of the site that sent the browser here.
pub(super) fn onward(to: &Url) -> Response<Bytes> {
    let mut response = page(
        StatusCode::OK,
        "Signed in",
        &html! { h1 { (say("You are signed in")) } p { a href=(to) { (say("Go on")) } } },
    );
    match HeaderValue::from_str(&format!("0; url={to}")) {
        Ok(refresh) => _ = response.headers_mut().insert(header::REFRESH, refresh),
        Err(_) => return problem(StatusCode::BAD_REQUEST, "The address to go on to is not valid."),
    }
    response
}

/// Leads to a tab, where the identity provider shows itself. In a frame, so that it may stand in one.
pub(super) fn in_a_tab(to: &Url) -> Response<Bytes> {
    let mut response = bare(StatusCode::UNAUTHORIZED, Bytes::new());
    response.extensions_mut().insert(InATab(to.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(portal::FRAMED_POLICY));
    response
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = bare(status, body.into());
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A JSON document.
pub(super) fn json(document: &serde_json::Value) -> Response<Bytes> {
    let mut response = bare(StatusCode::OK, document.to_string().into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A page that says what went wrong and what to do.
pub(super) fn problem(status: StatusCode, what: &str) -> Response<Bytes> {
    let title = status.canonical_reason().unwrap_or("Error");
    page(status, title, &html! { p.status { (status.as_u16()) } h1 { (say(title)) } p { (say(what)) } })
}

/// Asks before signing out, when the wish may not be the person's own.
pub(super) fn confirm_sign_out() -> Response<Bytes> {
    let body = html! {
        h1 { (say("Sign out?")) }
        form method="post" action="/.pomerium/sign_out" { button { (say("Sign out")) } }
    };
    page(StatusCode::OK, "Sign out", &body)
}

fn asking(is_on_this_computer: bool, parts: &[Markup]) -> Markup {
    if is_on_this_computer {
        phrase("A program on this computer ({}) asks to sign in as {}, by way of {}.", parts)
    } else {
        phrase("A program at {} asks to sign in as {}, by way of {}.", parts)
    }
}

/// Asks whether this person's session may go to a program, or to a host that nobody named.
pub(super) fn question(session: &Session, question: &Question) -> Response<Bytes> {
    let Question { to, program, ticket } = question;
    let (who, to) = (html! { strong { (session.email) } }, html! { strong { (to) } });
    let body = html! {
        @if let Some(Program { is_on_this_computer, by_way_of }) = program {
            h1 { (say("Sign in a program?")) }
            p { (asking(*is_on_this_computer, &[to, who, html! { strong { (by_way_of) } }])) }
            p { (say("Go on only if you have just begun this yourself: the program could do all that you may do.")) }
        } @else {
            h1 { (say("Go on to this address?")) }
            p { (phrase("{} asks who you are. You are signed in as {}.", &[to, who])) }
            p { (say("Go on only if you know this address. You are asked once.")) }
        }
        form method="post" action=(super::consent::CONTINUE_PATH) {
            input type="hidden" name="ticket" value=(ticket);
            button { (say("Continue")) }
        }
        p { (say("If not, close this page: nothing is handed over.")) }
    };
    page(StatusCode::OK, "Continue?", &body)
}

/// Asks whether a device may have this person's session. `code` may be empty.
pub(super) fn device(session: &Session, code: &str) -> Response<Bytes> {
    let body = html! {
        h1 { (say("Sign in a device")) }
        p { (phrase("You are signed in as {}.", &[html! { strong { (session.email) } }])) }
        p {
            (say(
                "Go on only if you have just begun this yourself, and the device shows the same code. If somebody sent you \
                 a link or a code, say no: they would get in with your name."
            ))
        }
        form method="post" action="/.pomerium/device" {
            p {
                label { (phrase("Code {}", &[html! { input name="user_code" value=(code) autocomplete="off" required maxlength="16"; }])) }
            }
            button name="answer" value="yes" { (say("Yes, sign it in")) }
            " "
            button.second name="answer" value="no" { (say("No")) }
        }
    };
    page(StatusCode::OK, "Sign in a device", &body)
}

/// The end of signing a device in, or not.
pub(super) fn device_done(approved: bool) -> Response<Bytes> {
    let body = if approved {
        html! { h1 { (say("The device is signed in")) } p { (say("You may close this page.")) } }
    } else {
        html! { h1 { (say("The device is not signed in")) } p { (say("Nothing was given to it.")) } }
    };
    page(StatusCode::OK, "Sign in a device", &body)
}

/// The end of signing out.
pub(super) fn signed_out() -> Response<Bytes> {
    page(
        StatusCode::OK,
        "Signed out",
        &html! { h1 { (say("You are signed out")) } p { (say("You may close this page.")) } },
    )
}

/// The page of somebody's account.
pub(super) fn account(body: Markup) -> Response<Bytes> {
    personal("You", body, portal::SCRIPT_PATH, ACCOUNT_POLICY)
}

/// A page of somebody's devices.
pub(super) fn devices(title: &str, body: Markup) -> Response<Bytes> {
    personal(title, body, super::WEBAUTHN_SCRIPT_PATH, DEVICES_POLICY)
}

/// The page of somebody's WireGuard devices.
pub(super) fn wireguard(body: Markup) -> Response<Bytes> {
    personal("Your WireGuard devices", body, super::PEERS_SCRIPT_PATH, DEVICES_POLICY)
}

/// There is nobody whose account could be shown.
pub(super) fn nobody() -> Response<Bytes> {
    let body = html! { h1 { (say("You are not signed in")) } p { (say("Open the application that you want to use.")) } };
    page(StatusCode::OK, "Account", &body)
}

fn personal(title: &str, body: Markup, script: &'static str, policy: &'static str) -> Response<Bytes> {
    let content = Content { title: title.to_owned(), body, place: Some(Place::Person), script: Some(script) };
    said(StatusCode::OK, content, policy)
}

fn page(status: StatusCode, title: &str, body: &Markup) -> Response<Bytes> {
    said(status, Content { title: title.to_owned(), body: body.clone(), place: None, script: None }, POLICY)
}

fn said(status: StatusCode, content: Content, policy: &'static str) -> Response<Bytes> {
    let mut response = bare(status, Bytes::new());
    response.extensions_mut().insert(content);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn bare(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
