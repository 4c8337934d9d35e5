//! What the gateway's answer to a request or a `CONNECT` means. Pure.

use std::fmt;

use http::StatusCode;
use pomerium_shared::problem::{Problem, ProblemKind};

/// Characters of any text of the gateway that are shown at most.
const SHOWN_MAX: usize = 400;

/// What an answer asks of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Open,
    /// Sign in, then ask again once.
    SignIn {
        /// The gateway said of this very token that it is no good: the cache may drop it.
        token_is_dead: bool,
    },
    /// Policy says no. The token stays.
    Denied,
    /// No such route.
    NoRoute,
    /// One of the gateway's own calls cannot be done, and says why.
    Conflict,
    /// The app behind the gateway cannot be reached.
    AppDown,
    /// The gateway itself is failing or stopping.
    GatewayDown,
    /// The gateway did not understand or want the request.
    BadRequest,
    /// No gateway answers like this.
    Unexpected,
}

/// Sorts an answer by its status and, when there is one, its problem document.
///
/// Nothing but a 401 whose document says `sign-in-required` condemns a token; a plain 401 or a redirect, as older
/// gateways and proxies in between send, leads to a sign-in whose new token replaces the old one.
pub(crate) fn classify(status: StatusCode, problem: Option<&Problem>) -> Verdict {
    let kind = problem.map(|problem| problem.kind);
    match (status.as_u16(), kind) {
        (200..=299, _) => Verdict::Open,
        (401, kind) => Verdict::SignIn { token_is_dead: kind == Some(ProblemKind::SignInRequired) },
        (301 | 302 | 303 | 307 | 308, _) => Verdict::SignIn { token_is_dead: false },
        // 450: the device is not fit; 495: the client certificate is not.
        (403 | 450 | 495, _) => Verdict::Denied,
        (404 | 409, Some(ProblemKind::Other)) => Verdict::Conflict,
        (404, _) => Verdict::NoRoute,
        (500..=599, Some(ProblemKind::Gateway)) => Verdict::GatewayDown,
        (502..=504, _) => Verdict::AppDown,
        (500..=599, _) => Verdict::GatewayDown,
        (400..=499, _) => Verdict::BadRequest,
        _ => Verdict::Unexpected,
    }
}

/// A "no" of the gateway, ready to be told: all texts are safe for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What it means.
    pub(crate) verdict: Verdict,
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The gateway's own words.
    pub(crate) detail: String,
    /// The id under which the gateway's log has it.
    pub(crate) request_id: String,
    /// Reason codes.
    pub(crate) reasons: Vec<String>,
    /// What the sign-in must meet (step-up, RFC 9470), as the query of a request for the sign-in page; mostly empty.
    pub(crate) demand: String,
}

impl Refusal {
    /// The refusal in an answer; `None` when it is none.
    pub(crate) fn of(response: &http::Response<bytes::Bytes>) -> Option<Self> {
        let problem = problem_in(response);
        let verdict = classify(response.status(), problem.as_ref());
        if verdict == Verdict::Open {
            return None;
        }
        let header = response.headers().get("x-request-id").and_then(|value| value.to_str().ok());
        let (detail, request_id, reasons) = match problem {
            Some(problem) => {
                let words = if problem.detail.is_empty() { problem.title } else { problem.detail };
                (words, problem.request_id, problem.reasons)
            }
            None => (String::new(), String::new(), Vec::new()),
        };
        let request_id = if request_id.is_empty() { header.unwrap_or("").to_owned() } else { request_id };
        Some(Self {
            verdict,
            status: response.status(),
            detail: shown(&detail),
            request_id: shown(&request_id),
            reasons: reasons.iter().take(16).map(|reason| shown(reason)).collect(),
            demand: demand_in(response.headers()),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.as_u16();
        match self.verdict {
            Verdict::Open => write!(f, "the gateway agrees")?,
            Verdict::SignIn { .. } => write!(f, "the gateway asks you to sign in ({status})")?,
            Verdict::Denied => write!(f, "you are not allowed ({status})")?,
            Verdict::NoRoute => write!(f, "the gateway has no such route ({status})")?,
            Verdict::Conflict => write!(f, "the gateway cannot do it ({status})")?,
            Verdict::AppDown => write!(f, "the app behind the gateway cannot be reached ({status})")?,
            Verdict::GatewayDown => write!(f, "the gateway is failing or stopping ({status})")?,
            Verdict::BadRequest => write!(f, "the gateway refuses the request ({status})")?,
            Verdict::Unexpected => write!(f, "this is not a gateway's answer ({status})")?,
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if !self.reasons.is_empty() {
            write!(f, "; reasons: {}", self.reasons.join(", "))?;
        }
        if !self.request_id.is_empty() {
            write!(f, "; request id: {}", self.request_id)?;
        }
        Ok(())
    }
}

/// The parameters of a challenge that asks for another sign-in, as a query.
fn demand_in(headers: &http::HeaderMap) -> String {
    const KIND: &str = "error=\"insufficient_user_authentication\"";
    let challenges = headers.get_all(http::header::WWW_AUTHENTICATE).iter();
    let challenge = challenges.filter_map(|value| value.to_str().ok()).find(|text| text.contains(KIND));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    // None of the values has a comma or a quote in it.
    for part in challenge.unwrap_or_default().split(',') {
        let Some((name, value)) = part.trim().split_once('=') else { continue };
        if matches!(name, "prompt" | "max_age" | "acr_values") {
            query.append_pair(name, value.trim_matches('"'));
        }
    }
    query.finish()
}

fn problem_in(response: &http::Response<bytes::Bytes>) -> Option<Problem> {
    let content_type = response.headers().get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let is_problem = content_type
        .split(';')
        .next()
        .is_some_and(|media| media.trim().eq_ignore_ascii_case(pomerium_shared::problem::CONTENT_TYPE));
    if is_problem { serde_json::from_slice(response.body()).ok() } else { None }
}

/// A text of the other side without what could steer a terminal, cut to a length.
pub(crate) fn shown(text: &str) -> String {
    let is_steering = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_steering(c) { ' ' } else { c }).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn problem(kind: ProblemKind) -> Problem {
        Problem {
            kind,
            title: "Title".to_owned(),
            status: 0,
            detail: "the \u{1b}[2Jrule".to_owned(),
            request_id: "0f1e".to_owned(),
            reasons: vec!["email-unauthorized".to_owned()],
            sign_in_url: String::new(),
        }
    }

    #[test]
    fn each_status_has_its_meaning() {
        use Verdict::{
            AppDown, BadRequest, Conflict, Denied, GatewayDown, NoRoute, Open, SignIn, Unexpected,
        };
        let sign_in = SignIn { token_is_dead: false };
        for (status, kind, verdict) in [
            (200, None, Open),
            (301, None, sign_in),
            (302, None, sign_in),
            (303, None, sign_in),
            (307, None, sign_in),
            (308, None, sign_in),
            (401, None, sign_in),
            (401, Some(ProblemKind::Other), sign_in),
            (401, Some(ProblemKind::SignInRequired), SignIn { token_is_dead: true }),
            (403, None, Denied),
            (450, Some(ProblemKind::Denied), Denied),
            (495, None, Denied),
            (403, Some(ProblemKind::SignInRequired), Denied),
            (404, Some(ProblemKind::NoRoute), NoRoute),
            (404, None, NoRoute),
            (404, Some(ProblemKind::Other), Conflict),
            (409, Some(ProblemKind::Other), Conflict),
            (409, None, BadRequest),
            (400, Some(ProblemKind::BadRequest), BadRequest),
            (421, None, BadRequest),
            (500, None, GatewayDown),
            (502, Some(ProblemKind::AppUnreachable), AppDown),
            (503, None, AppDown),
            (503, Some(ProblemKind::Gateway), GatewayDown),
            (504, None, AppDown),
            (304, None, Unexpected),
        ] {
            let document = kind.map(problem);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(classify(status, document.as_ref()), verdict, "{status} {kind:?}");
        }
    }

    #[test]
    fn a_refusal_tells_reasons_and_request_id_and_nothing_that_steers_a_terminal() {
        let body = serde_json::to_vec(&problem(ProblemKind::Denied)).unwrap();
        let response = http::Response::builder()
            .status(403)
            .header("content-type", "application/problem+json; charset=utf-8")
            .body(Bytes::from(body))
            .unwrap();
        let text = Refusal::of(&response).unwrap().to_string();
        assert!(
            text.contains("email-unauthorized") && text.contains("0f1e") && text.contains("rule"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn a_challenge_for_another_sign_in_says_what_it_must_meet() {
        let demand = |challenge: &str| {
            let response = http::Response::builder().status(401).header("www-authenticate", challenge);
            Refusal::of(&response.body(Bytes::new()).unwrap()).unwrap().demand
        };
        let step_up = "Bearer error=\"insufficient_user_authentication\", max_age=\"300\", acr_values=\"a b\", x=\"&y\"";
        assert_eq!(demand(step_up), "max_age=300&acr_values=a+b");
        assert_eq!(demand("Basic realm=\"max_age=1\""), "");
        assert_eq!(demand("Bearer error=\"invalid_token\", max_age=\"300\""), "");
    }

    #[test]
    fn a_page_that_only_looks_like_a_problem_is_not_believed() {
        let body = serde_json::to_vec(&problem(ProblemKind::SignInRequired)).unwrap();
        let response = http::Response::builder()
            .status(401)
            .header("content-type", "text/html")
            .body(body.into())
            .unwrap();
        let refusal = Refusal::of(&response).unwrap();
        assert_eq!(refusal.verdict, Verdict::SignIn { token_is_dead: false });
    }

    proptest! {
        #[test]
        fn only_a_401_condemns_a_token(status in 100_u16..1000) {
            let status = StatusCode::from_u16(status).unwrap();
            for kind in [ProblemKind::SignInRequired, ProblemKind::Denied, ProblemKind::Gateway] {
                let verdict = classify(status, Some(&problem(kind)));
                if verdict == (Verdict::SignIn { token_is_dead: true }) {
                    prop_assert_eq!((status.as_u16(), kind), (401, ProblemKind::SignInRequired));
                }
            }
        }

        #[test]
        fn any_body_is_read_without_a_panic(status in 100_u16..1000, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let response = http::Response::builder()
                .status(status)
                .header("content-type", "application/problem+json")
                .body(Bytes::from(body))
                .unwrap();
            let told = Refusal::of(&response).map(|refusal| refusal.to_string()).unwrap_or_default();
            prop_assert!(told.chars().all(|c| !c.is_control()));
        }
    }
}
