//! One criterion of the policy language, held against one request.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::{
    CheckRequest, Evaluation, Reason, Reasons,
    matcher::{ListMatcher, StringMatcher},
};
use crate::session::Session;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Criterion {
    Accept,
    Reject,
    AuthenticatedUser,
    CorsPreflight,
    Claim { path: String, matcher: ListMatcher },
    Domain(StringMatcher),
    Email(StringMatcher),
    Groups(ListMatcher),
    HttpMethod(StringMatcher),
    HttpPath(StringMatcher),
    SourceIp(Vec<IpNet>),
    User(StringMatcher),
}

impl Criterion {
    pub(super) fn evaluate(&self, check: &CheckRequest<'_>) -> Evaluation {
        use Reason as R;
        let request = &check.request;
        let (value, yes, no) = match self {
            Self::Accept => (true, R::Accept, R::Accept),
            Self::Reject => (false, R::Reject, R::Reject),
            Self::CorsPreflight => (request.is_cors_preflight, R::CorsRequest, R::NonCorsRequest),
            Self::HttpMethod(matcher) => (matcher.matches(request.method), R::HttpMethodOk, R::HttpMethodUnauthorized),
            Self::HttpPath(matcher) => (matcher.matches(request.path), R::HttpPathOk, R::HttpPathUnauthorized),
            Self::SourceIp(nets) => (contains(nets, request.source_ip), R::SourceIpOk, R::SourceIpUnauthorized),
            Self::AuthenticatedUser
            | Self::Claim { .. }
            | Self::Domain(_)
            | Self::Email(_)
            | Self::Groups(_)
            | Self::User(_) => match check.session {
                Some(session) => self.of_session(session),
                None => (false, R::UserUnauthenticated, R::UserUnauthenticated),
            },
        };
        Evaluation { value, reasons: Reasons::of(if value { yes } else { no }) }
    }

    fn of_session(&self, session: &Session) -> (bool, Reason, Reason) {
        use Reason as R;
        match self {
            Self::Claim { path, matcher } => (claim_matches(session, path, matcher), R::ClaimOk, R::ClaimUnauthorized),
            Self::Domain(matcher) => {
                let domain = session.email.rsplit_once('@').map_or("", |(_, domain)| domain);
                (matcher.matches(domain), R::DomainOk, R::DomainUnauthorized)
            }
            Self::Email(matcher) => (matcher.matches(&session.email), R::EmailOk, R::EmailUnauthorized),
            Self::Groups(matcher) => {
                (matcher.matches(session.groups.iter().map(String::as_str)), R::GroupsOk, R::GroupsUnauthorized)
            }
            Self::User(matcher) => (matcher.matches(session.user_id.as_str()), R::UserOk, R::UserUnauthorized),
            Self::AuthenticatedUser => (true, R::UserOk, R::UserUnauthenticated),
            Self::Accept
            | Self::Reject
            | Self::CorsPreflight
            | Self::HttpMethod(_)
            | Self::HttpPath(_)
            | Self::SourceIp(_) => (false, R::Reject, R::Reject),
        }
    }
}

fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    // An IPv4 client on an IPv6 socket is an IPv4 client.
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// The literal key goes first; then `/` counts as the `.` by which nested claims are flattened.
fn claim_matches(session: &Session, path: &str, matcher: &ListMatcher) -> bool {
    let values = session.claims.get(path).or_else(|| {
        path.contains('/').then(|| session.claims.get(&path.replace('/', "."))).flatten()
    });
    let Some(values) = values else {
        return matcher.matches(std::iter::empty());
    };
    if values.iter().all(serde_json::Value::is_string) {
        return matcher.matches(values.iter().filter_map(serde_json::Value::as_str));
    }
    let texts: Vec<String> =
        values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    matcher.matches(texts.iter().map(String::as_str))
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Reject => f.write_str("reject"),
            Self::AuthenticatedUser => f.write_str("authenticated_user"),
            Self::CorsPreflight => f.write_str("cors_preflight"),
            Self::Claim { path, matcher } => write!(f, "claim/{path} {matcher}"),
            Self::Domain(matcher) => write!(f, "domain {matcher}"),
            Self::Email(matcher) => write!(f, "email {matcher}"),
            Self::Groups(matcher) => write!(f, "groups {matcher}"),
            Self::HttpMethod(matcher) => write!(f, "http_method {matcher}"),
            Self::HttpPath(matcher) => write!(f, "http_path {matcher}"),
            Self::SourceIp(nets) => {
                write!(f, "source_ip {}", nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Self::User(matcher) => write!(f, "user {matcher}"),
        }
    }
}
