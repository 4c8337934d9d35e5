//! The one place where a refusal becomes a status, a body and headers.

mod grpc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pomerium_shared::problem::{self, Problem, ProblemKind};
use url::Url;

use crate::{
    authenticate::{self, InvalidCredential},
    authorize::{CERTIFICATE_REQUIRED, DEVICE_NOT_AUTHORIZED, Denial, Verdict},
    body::{self, Body},
    portal::{self, Hindrance, Look},
};

/// The reason code of a [`Refusal::NoDecision`], here and in the log.
pub(super) const AUTHORIZE_UNREACHABLE: &str = "authorize-unreachable";

/// Why a request got no answer from an app.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The request is malformed or ambiguous.
    BadRequest(String),
    /// It names another host than its TLS connection: a browser tries again on a connection of its own.
    Misdirected,
    /// One address asks too much of the gateway itself.
    TooMany,
    /// No route leads there.
    NoRoute,
    /// No stream of this client has that name, now or ever.
    Gone,
    /// Signing in is needed.
    SignIn { way: WayIn, rejected: Option<InvalidCredential> },
    /// Somebody is signed in, but not in the way that the route asks for (RFC 9470); `challenge` tells a program how.
    StepUp { challenge: String },
    /// Policy asks on what device the person is; the browser is sent to show it.
    ShowDevice(Box<Response<Bytes>>),
    /// Policy says no.
    Denied(Box<Denied>),
    /// One of the gateway's own calls does not do what it is asked.
    Call { status: StatusCode, detail: String },
    /// The app behind cannot be reached or failed: 502, 503 or 504.
    App { status: StatusCode, detail: String },
    /// The service that decides gave no answer, so that it is no.
    NoDecision,
    /// The gateway's own fault.
    Gateway(String),
}

/// How whoever is not signed in comes to be.
#[derive(Debug)]
pub(crate) enum WayIn {
    /// A browser is sent there.
    Redirect(Box<Response<Bytes>>),
    /// A browser cannot be sent there; `page` is where its person goes instead.
    Hindered { hindrance: Hindrance, page: Box<Url> },
    /// A script or program knows how; or a person does it, at this page.
    Itself(Option<Url>),
}

/// A refusal by policy, with what the page shows of it.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) denial: Denial,
    pub(crate) route_name: String,
    pub(crate) email: String,
    pub(crate) sign_out_url: String,
    pub(crate) show_traces: bool,
}

/// Who is told, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) host: &'a str,
    pub(crate) form: Form<'a>,
}

/// The form in which whoever asks reads an answer of the gateway's own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    /// A page of this look.
    Page(&'a Look),
    /// A document for programs (RFC 9457).
    Document,
    /// The status of a call.
    Grpc(grpc::Dialect),
}

impl<'a> Form<'a> {
    /// The form that a request with these headers wants.
    pub(crate) fn wanted(headers: &HeaderMap, look: &'a Look) -> Self {
        match grpc::Dialect::of(headers) {
            Some(dialect) => Self::Grpc(dialect),
            None if wants_html(headers) => Self::Page(look),
            None => Self::Document,
        }
    }
}

/// Whether a request is a call of gRPC or gRPC-web.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    grpc::Dialect::of(headers).is_some()
}

/// Whether a client prefers a page to a document for programs: `Accept` has `text/html`, and nothing says that a
/// script asks.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| HeaderValue::to_str(v).ok())
            .any(|v| v.to_ascii_lowercase().contains(word))
    };
    let mode = headers.get("sec-fetch-mode");
    has(header::ACCEPT, "text/html")
        && mode.is_none_or(|mode| mode == "navigate")
        && !has(header::HeaderName::from_static("x-requested-with"), "xmlhttprequest")
}

impl Refusal {
    /// The answer for `audience`.
    pub(crate) fn into_response(self, audience: Audience<'_>) -> Response<Body> {
        let status = self.status();
        let is_too_many = matches!(self, Self::TooMany);
        let challenge = match &self {
            Self::StepUp { challenge } => HeaderValue::from_str(challenge).ok(),
            _ => None,
        };
        let mut response = match (self, audience.form) {
            (Self::SignIn { way: WayIn::Redirect(redirect), .. } | Self::ShowDevice(redirect), _) => {
                redirect.map(body::full)
            }
            (Self::SignIn { way: WayIn::Hindered { hindrance, page }, .. }, Form::Page(look)) => {
                hindered(look, &hindrance, &page, audience.request_id)
            }
            (refusal, Form::Page(look)) => page(refusal.page(audience, look)),
            (refusal, Form::Document) => document(&refusal.problem(audience)),
            (refusal, Form::Grpc(dialect)) => grpc::failed(dialect, status, &refusal.words().2),
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if is_too_many {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        headers.insert("x-pomerium-intercepted-response", HeaderValue::from_static("true"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The status of the refusal.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::SignIn { way: WayIn::Redirect(_), .. } | Self::ShowDevice(_) => StatusCode::FOUND,
            Self::SignIn { .. } | Self::StepUp { .. } => StatusCode::UNAUTHORIZED,
            Self::Denied(denied) => match denied.denial.verdict {
                Verdict::Deny { status } => StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN),
                Verdict::Allow | Verdict::SignIn => StatusCode::FORBIDDEN,
            },
            Self::App { status, .. } | Self::Call { status, .. } => *status,
            Self::NoDecision => StatusCode::SERVICE_UNAVAILABLE,
            Self::Gateway(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn problem(&self, audience: Audience<'_>) -> Problem {
        let (kind, title, detail) = self.words();
        let reasons = match self {
            Self::Denied(denied) => {
                denied.denial.decision.visible_reasons().iter().map(|r| r.as_str().to_owned()).collect()
            }
            Self::NoDecision => vec![AUTHORIZE_UNREACHABLE.to_owned()],
            _ => Vec::new(),
        };
        let sign_in_url = match self {
            Self::SignIn { way: WayIn::Itself(Some(page)), .. } => page.to_string(),
            _ => String::new(),
        };
        Problem {
            kind,
            title: title.to_owned(),
            status: self.status().as_u16(),
            detail,
            request_id: audience.request_id.to_owned(),
            reasons,
            sign_in_url,
        }
    }

    /// What kind of refusal it is, its title, and what the person is told.
    fn words(&self) -> (ProblemKind, &'static str, String) {
        let said = |kind, title, detail: &str| (kind, title, detail.to_owned());
        match self {
            Self::BadRequest(why) => (ProblemKind::BadRequest, "Bad request", why.clone()),
            Self::Misdirected => said(
                ProblemKind::BadRequest,
                "Misdirected request",
                "The request names another host than the TLS connection it came on.",
            ),
            Self::TooMany => said(
                ProblemKind::Other,
                "Too many requests",
                "Too many requests come from this address. Try again in a few seconds.",
            ),
            Self::NoRoute => said(
                ProblemKind::NoRoute,
                "No such route",
                "No route of this gateway leads there. Check the name and the port.",
            ),
            Self::Gone => said(
                ProblemKind::StreamGone,
                "The stream is over",
                "There is no such stream to go on with: it has ended, or was without a connection for too long. Connect again.",
            ),
            // Not `SignInRequired`, by which a client forgets its token: elsewhere it is good.
            Self::SignIn { rejected: Some(why @ InvalidCredential::Unvouched), .. } => {
                (ProblemKind::Other, "Sign in again", format!("Sign in again, or try later: {why}."))
            }
            Self::SignIn { way: WayIn::Hindered { hindrance, .. }, .. } => {
                (ProblemKind::SignInRequired, hindrance.title(), hindrance.what())
            }
            Self::SignIn { rejected, .. } => {
                let detail = match rejected {
                    Some(why @ InvalidCredential::OtherDevice) => format!("Sign in on this device: {why}."),
                    _ => "Sign in first: the session is missing, expired or revoked.".to_owned(),
                };
                (ProblemKind::SignInRequired, "Unauthenticated", detail)
            }
            Self::ShowDevice(_) => said(
                ProblemKind::Other,
                "On which device?",
                "This app asks on what device you are. Open it in a browser.",
            ),
            // As above.
            Self::StepUp { .. } => said(
                ProblemKind::Other,
                "Sign in again",
                "This app asks for a more recent or a stronger sign-in. Sign in again.",
            ),
            Self::Denied(denied) => {
                let sentences: Vec<_> = denied.explanations().into_iter().chain(denied.remedies()).collect();
                (ProblemKind::Denied, denied.title(), sentences.join(" "))
            }
            Self::Call { detail, .. } => (ProblemKind::Other, "That cannot be done", detail.clone()),
            Self::App { detail, .. } => {
                (ProblemKind::AppUnreachable, "The app does not answer", detail.clone())
            }
            Self::NoDecision => said(
                ProblemKind::Gateway,
                "Nobody can decide",
                "The service that decides who may pass does not answer, so nobody may. Try again in a moment; tell your \
                 administrator if it stays.",
            ),
            Self::Gateway(detail) => (ProblemKind::Gateway, "The gateway failed", detail.clone()),
        }
    }

    fn page(&self, audience: Audience<'_>, look: &Look) -> String {
        let Self::Denied(denied) = self else {
            let problem = self.problem(audience);
            let page = portal::ErrorPage {
                status: problem.status,
                title: &problem.title,
                detail: &problem.detail,
                request_id: audience.request_id,
            };
            return portal::error(look, &page);
        };
        let page = portal::DeniedPage {
            route_name: &denied.route_name,
            host: audience.host,
            email: &denied.email,
            explanations: denied.explanations(),
            remedies: denied.remedies(),
            traces: if denied.show_traces { denied.denial.traces.clone() } else { Vec::new() },
            request_id: audience.request_id,
            sign_out_url: &denied.sign_out_url,
            status: self.status().as_u16(),
        };
        portal::denied(look, &page)
    }
}

impl Denied {
    fn title(&self) -> &'static str {
        match self.denial.verdict {
            Verdict::Deny { status: DEVICE_NOT_AUTHORIZED } => "Device not authorized",
            Verdict::Deny { status: CERTIFICATE_REQUIRED } => "A valid client certificate is required",
            Verdict::Allow | Verdict::SignIn | Verdict::Deny { .. } => "Not allowed",
        }
    }

    fn explanations(&self) -> Vec<String> {
        self.denial.decision.explain()
    }

    fn remedies(&self) -> Vec<String> {
        self.denial.remedies.to_vec()
    }
}

/// What keeps a browser from signing in. In a frame it must show, whoever frames it; and a count that ran over is begun
/// anew.
fn hindered(look: &Look, hindrance: &Hindrance, page: &Url, request_id: &str) -> Response<Body> {
    let mut response = self::page(portal::hindered(look, hindrance, page.as_str(), request_id));
    match hindrance {
        Hindrance::Frame { .. } => {
            let policy = HeaderValue::from_static(portal::FRAMED_POLICY);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        Hindrance::Circle(_) => {
            response.headers_mut().append(header::SET_COOKIE, authenticate::forget_landings());
        }
        Hindrance::Form { .. } => {}
    }
    response
}

/// An HTML page of the portal.
pub(crate) fn page(html: String) -> Response<Body> {
    let mut response = Response::new(body::full(html));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(portal::CONTENT_SECURITY_POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn document(problem: &Problem) -> Response<Body> {
    let text = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    response
}

/// A short answer of the gateway's own.
pub(crate) fn plain(content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
