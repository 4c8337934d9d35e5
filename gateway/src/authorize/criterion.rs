//! Criteria: single questions about a session or a request, each with a yes, a no and the reason for it.

use std::fmt;

use super::{
    CheckRequest, Evaluation,
    matcher::{IpMatcher, ListMatcher, StringMatcher},
    reason::{Reason, Reasons},
};
use crate::session::Session;

/// How many segments a claim's path may have to be looked for inside nested claims.
const CLAIM_SEGMENTS_MAX: usize = 5;

/// One question.
#[derive(Debug, Clone, PartialEq)]
pub enum Criterion {
    /// Always true.
    Accept,
    /// Never true.
    Reject,
    /// Somebody is signed in.
    AuthenticatedUser,
    /// The email address; nobody without one matches, whatever the matcher.
    Email(StringMatcher),
    /// The part of the email address behind its `@`; nobody without one matches, whatever the matcher.
    Domain(StringMatcher),
    /// The user's id.
    User(StringMatcher),
    /// A claim's values.
    Claim(ClaimPath, ListMatcher),
    /// The groups.
    Groups(ListMatcher),
    /// The request's method.
    HttpMethod(StringMatcher),
    /// The request's path, without the query.
    HttpPath(StringMatcher),
    /// The client's address.
    SourceIp(IpMatcher),
    /// The request is a CORS preflight.
    CorsPreflight,
}

/// Which claim: the text as it stands, else its segments in nested claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    literal: String,
    /// The segments as claims hold them, with dots between; `None` when that is the literal text, or too many.
    nested: Option<String>,
}

impl ClaimPath {
    pub(super) fn new(text: &str) -> Self {
        let nested = text.replace('/', ".");
        let is_new = nested != text && nested.split('.').count() <= CLAIM_SEGMENTS_MAX;
        Self { literal: text.to_owned(), nested: is_new.then_some(nested) }
    }

    fn values<'a>(&self, session: &'a Session) -> &'a [serde_json::Value] {
        let values = session.claims.get(&self.literal);
        let values = values.or_else(|| session.claims.get(self.nested.as_ref()?));
        values.map_or(&[], Vec::as_slice)
    }
}

impl Criterion {
    /// Answers the question.
    pub(super) fn evaluate(&self, check: &CheckRequest<'_>) -> Evaluation {
        use Reason as R;
        let request = &check.request;
        match self {
            Self::Accept => Evaluation { value: true, reasons: Reasons::only(R::Accept) },
            Self::Reject => Evaluation { value: false, reasons: Reasons::only(R::Reject) },
            Self::AuthenticatedUser => of_session(check, R::UserOk, R::UserUnauthorized, |_| true),
            Self::Email(matcher) => of_session(check, R::EmailOk, R::EmailUnauthorized, |session| {
                !session.email.is_empty() && matcher.matches(&session.email)
            }),
            Self::Domain(matcher) => of_session(check, R::DomainOk, R::DomainUnauthorized, |session| {
                domain(&session.email).is_some_and(|domain| matcher.matches(domain))
            }),
            Self::User(matcher) => of_session(check, R::UserOk, R::UserUnauthorized, |session| {
                let id = session.user_id.as_str();
                !id.is_empty() && matcher.matches(id)
            }),
            Self::Claim(path, matcher) => of_session(check, R::ClaimOk, R::ClaimUnauthorized, |session| {
                matcher.matches(path.values(session))
            }),
            Self::Groups(matcher) => of_session(check, R::GroupsOk, R::GroupsUnauthorized, |session| {
                matcher.matches(&session.groups)
            }),
            Self::HttpMethod(matcher) => {
                answer(matcher.matches(request.method), R::HttpMethodOk, R::HttpMethodUnauthorized)
            }
            Self::HttpPath(matcher) => {
                answer(matcher.matches(request.path), R::HttpPathOk, R::HttpPathUnauthorized)
            }
            Self::SourceIp(matcher) => {
                answer(matcher.matches(request.source_ip), R::SourceIpOk, R::SourceIpUnauthorized)
            }
            Self::CorsPreflight => answer(request.is_cors_preflight, R::CorsRequest, R::NonCorsRequest),
        }
    }
}

fn answer(value: bool, yes: Reason, no: Reason) -> Evaluation {
    Evaluation { value, reasons: Reasons::only(if value { yes } else { no }) }
}

fn of_session(
    check: &CheckRequest<'_>,
    yes: Reason,
    no: Reason,
    matches: impl FnOnce(&Session) -> bool,
) -> Evaluation {
    match check.live_session() {
        Some(session) => answer(matches(session), yes, no),
        None => answer(false, yes, Reason::UserUnauthenticated),
    }
}

/// The part behind the `@`. An address with several has no domain, unless its local part is quoted (RFC 5321,
/// 4.1.2): two readers could take it for mail to two domains.
fn domain(email: &str) -> Option<&str> {
    let (local, domain) = email.rsplit_once('@')?;
    let is_quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    (!local.is_empty() && !domain.is_empty() && (is_quoted || !local.contains('@'))).then_some(domain)
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Reject => f.write_str("reject"),
            Self::AuthenticatedUser => f.write_str("authenticated_user"),
            Self::Email(matcher) => write!(f, "email {matcher}"),
            Self::Domain(matcher) => write!(f, "domain {matcher}"),
            Self::User(matcher) => write!(f, "user {matcher}"),
            Self::Claim(path, matcher) => write!(f, "claim/{} {matcher}", path.literal.escape_debug()),
            Self::Groups(matcher) => write!(f, "groups {matcher}"),
            Self::HttpMethod(matcher) => write!(f, "http_method {matcher}"),
            Self::HttpPath(matcher) => write!(f, "http_path {matcher}"),
            Self::SourceIp(matcher) => write!(f, "source_ip {matcher}"),
            Self::CorsPreflight => f.write_str("cors_preflight"),
        }
    }
}
