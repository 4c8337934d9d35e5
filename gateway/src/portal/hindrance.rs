//! Pages for whoever must sign in and cannot simply be sent there: what stands in the way, and what to do.

use maud::html;

use super::{Frame, Look, layout, phrase, say};

/// The policy of the page that stands in a frame, whoever frames it: all that it has is a link to a tab of its own.
pub const FRAMED_POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'none'; base-uri 'none'";

/// What stands in the way of signing in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// The page is in a frame, where identity providers do not show themselves. `is_foreign`: the page around it is of
    /// another site, and our cookies do not come along.
    Frame {
        /// Whether signing in does not help as things are set up.
        is_foreign: bool,
    },
    /// Something was sent, which a redirect would lose.
    Form {
        /// Whether another site's page sent it, and our cookies did not come along.
        is_foreign: bool,
    },
    /// The browser has just signed in here, several times.
    Circle(Circle),
}

/// Why a browser that signs in is not signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Circle {
    /// It does not bring back the cookie of this name.
    NoCookie(String),
    /// It brings one that is refused, for this reason.
    Refused(String),
    /// It is signed in, but the provider does not do what the route asks of a sign-in.
    Unmet,
}

impl Hindrance {
    /// A few words.
    #[must_use]
    pub fn title(&self) -> &'static str {
        match self {
            Self::Frame { .. } => "Sign in, in a tab of its own",
            Self::Form { .. } => "What you sent did not arrive",
            Self::Circle(_) => "Signing in goes round in circles",
        }
    }

    /// What happened.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Frame { .. } => "You are not signed in, and nobody signs in inside a frame.".to_owned(),
            Self::Form { is_foreign: false } => {
                "You are not signed in any more, so that what you sent did not reach the app. Nothing was changed."
                    .to_owned()
            }
            Self::Form { is_foreign: true } => {
                "Another site sent a form to this app. The browser did not send your session along with it, so that it did \
                 not reach the app. Nothing was changed."
                    .to_owned()
            }
            Self::Circle(Circle::NoCookie(name)) => {
                format!("You have signed in several times within a minute, but the browser does not send the cookie {name}.")
            }
            Self::Circle(Circle::Refused(why)) => {
                format!("You have signed in several times within a minute, but the session does not count here: {why}.")
            }
            Self::Circle(Circle::Unmet) => {
                "You have signed in several times within a minute, but not in the way that this app asks for.".to_owned()
            }
        }
    }

    /// What to do, as sentences.
    #[must_use]
    pub fn remedies(&self) -> Vec<&'static str> {
        const NONE: &str =
            "Administrators: browsers send the session along from other sites with cookie_same_site: none.";
        match self {
            Self::Frame { is_foreign: false } => {
                vec!["Sign in with the button below, then load this page again."]
            }
            Self::Frame { is_foreign: true } => {
                vec!["Use the app in a tab of its own, with the button below.", NONE]
            }
            Self::Form { is_foreign: false } => vec![
                "Leave this page open: it still holds what you sent.",
                "Sign in with the button below, which opens another tab.",
                "Come back, load this page again, and say yes when the browser asks whether to send the form again.",
            ],
            Self::Form { is_foreign: true } => {
                vec!["Open the app with the button below, and do there what the form was to do.", NONE]
            }
            Self::Circle(Circle::NoCookie(_)) => vec![
                "Allow cookies for this site, and look for an extension that takes them away.",
                "Administrators: see that cookie_domain covers this host, and that nothing in between takes out Set-Cookie.",
            ],
            Self::Circle(Circle::Refused(_)) => vec![
                "Wait a minute and try again; delete this site's cookies if it stays.",
                "Administrators: gateways side by side need one shared_secret, one storage and the same time.",
            ],
            Self::Circle(Circle::Unmet) => vec![
                "Administrators: see what the route asks for (sign_in_max_age, sign_in_acr_values), and whether the identity provider \
                 says in its ID tokens that it did so (auth_time, acr).",
            ],
        }
    }

    fn button(&self) -> &'static str {
        match self {
            Self::Frame { is_foreign: false } | Self::Form { is_foreign: false } => "Sign in",
            Self::Frame { is_foreign: true } | Self::Form { is_foreign: true } => "Open the app",
            Self::Circle(_) => "Try again",
        }
    }
}

/// The page; `url` is where its button leads.
#[must_use]
pub fn hindered(look: &Look, hindrance: &Hindrance, url: &str, request_id: &str) -> String {
    let target = (!matches!(hindrance, Hindrance::Circle(_))).then_some("_blank");
    let remedies = hindrance.remedies();
    let content = html! {
        h1 { (say(hindrance.title())) }
        @if let Some(words) = &look.first_paragraph { p { (words) } }
        p { (say(&hindrance.what())) }
        section.fix {
            h2 { (say("What to do")) }
            @if let [only] = remedies.as_slice() { p { (say(only)) } } @else { ol { @for line in &remedies { li { (say(line)) } } } }
        }
        div.actions { a.button href=(url) target=[target] rel="noopener" { (say(hindrance.button())) } }
        @if !request_id.is_empty() { p.id { (phrase("Request id {}", &[html! { code { (request_id) } }])) } }
    };
    layout(Frame { look, title: hindrance.title(), place: None, script: None }, &content)
}
