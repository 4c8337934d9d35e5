//! What a criterion comes to for one request. Nothing here allocates, nor do the matchers: this runs on every request.

use std::time::SystemTime;

use super::{ClaimPath, Criterion};
use crate::{
    authorize::{
        CheckRequest, Evaluation,
        matcher::ListMatcher,
        posture::PostureTest,
        reason::{Reason, Reasons},
    },
    session::Session,
};

/// The gateway's own paths begin with one of these.
const OWN_PATHS: [&str; 3] = ["/.pomerium/", "/.well-known/pomerium/", "/.well-known/pomerium-"];

/// What a criterion comes to: one reason always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authorize) struct Answer {
    value: bool,
    reason: Reason,
}

/// A false answer for another reason than the criterion's own, as a rule that something is missing.
impl From<Reason> for Answer {
    fn from(reason: Reason) -> Self {
        Self { value: false, reason }
    }
}

impl From<Answer> for Evaluation {
    fn from(answer: Answer) -> Self {
        Self { value: answer.value, reasons: Reasons::only(answer.reason) }
    }
}

impl Criterion {
    /// Answers the question, as a part of a group.
    pub(in crate::authorize) fn evaluate(&self, check: &CheckRequest<'_>) -> Evaluation {
        self.answer(check).into()
    }

    /// Answers the question.
    pub(in crate::authorize) fn answer(&self, check: &CheckRequest<'_>) -> Answer {
        self.holds(check).map_or_else(
            |other| other,
            |value| {
                let (yes, no) = self.reasons();
                Answer { value, reason: if value { yes } else { no } }
            },
        )
    }

    /// Yes or no for the criterion's own reasons, or an answer with its reason.
    fn holds(&self, check: &CheckRequest<'_>) -> Result<bool, Answer> {
        let session = || check.live_session().ok_or(Reason::UserUnauthenticated);
        let request = &check.request;
        Ok(match self {
            Self::Accept => true,
            Self::Reject => false,
            Self::AuthenticatedUser => session().map(|_| true)?,
            Self::Email(matcher) => {
                let email = &session()?.email;
                !email.is_empty() && matcher.matches(email)
            }
            Self::Domain(matcher) => domain(&session()?.email).is_some_and(|domain| matcher.matches(domain)),
            Self::User(matcher) => {
                let id = session()?.user_id.as_str();
                !id.is_empty() && matcher.matches(id)
            }
            Self::Claim(path, matcher) => matcher.matches(path.values(session()?)),
            Self::Groups(matcher) => matcher.matches(&session()?.groups),
            Self::AuthMethod(matcher) => signed_in_by(matcher, session()?),
            Self::SessionAge(limit) => limit.holds(session()?.issued_at, check.now.wall),
            Self::SessionBound => session()?.bound_to.is_some(),
            Self::HttpMethod(matcher) => matcher.matches(request.method),
            Self::HttpPath(matcher) => matcher.matches(request.path),
            Self::SourceIp(matcher) => matcher.matches(request.source_ip),
            Self::CorsPreflight => request.is_cors_preflight,
            Self::PomeriumRoutes => is_own_path(request.path),
            Self::Country(matcher) => request.place.country.is_some_and(|country| matcher.matches(country)),
            Self::Asn(matcher) => request.place.asn.is_some_and(|number| matcher.matches(number)),
            Self::Clock(test) => test.matches(check.now.wall),
            Self::Device(matcher) => {
                session()?;
                let device = check.own_device().filter(|device| matcher.concerns(device));
                matcher.matches(device.ok_or(Reason::DeviceUnauthenticated)?)
            }
            Self::Posture(test) => {
                session()?;
                let report = check.own_device().and_then(|device| device.posture.as_ref());
                let answer = report.and_then(|report| test.answer(report, check.now.wall));
                answer.ok_or(Reason::PostureUnknown)?
            }
            Self::Record(matcher) => {
                if matcher.key.needs_session() {
                    session()?;
                }
                matcher.matches(check)
            }
            Self::ClientCertificate(matchers) => {
                let shown = request.certificate.ok_or(Reason::ClientCertificateRequired)?;
                if !shown.is_valid {
                    return Err(Reason::InvalidClientCertificate.into());
                }
                matchers.iter().any(|matcher| matcher.matches(&shown.leaf))
            }
            Self::InvalidClientCertificate => match request.certificate {
                Some(shown) => !shown.is_valid,
                None => {
                    return Err(Answer { value: true, reason: Reason::ClientCertificateRequired });
                }
            },
            Self::McpTool(_) => false,
            Self::Ssh(test) => {
                if test.needs_session() {
                    session()?;
                }
                false
            }
        })
    }

    /// The next moment after `check.now` at which the clock alone may change the answer.
    pub(in crate::authorize) fn next_edge(&self, check: &CheckRequest<'_>) -> Option<SystemTime> {
        let now = check.now.wall;
        match self {
            Self::Clock(test) => test.next_edge(now),
            Self::SessionAge(limit) => limit.next_edge(check.live_session()?.issued_at, now),
            Self::Posture(PostureTest::Age(limit)) => {
                let (_, received_at) = check.own_device()?.posture.as_ref()?;
                limit.next_edge(*received_at, now)
            }
            _ => None,
        }
    }

    /// The reasons of a yes and of a no.
    const fn reasons(&self) -> (Reason, Reason) {
        use Reason as R;
        match self {
            Self::Accept => (R::Accept, R::Accept),
            Self::Reject => (R::Reject, R::Reject),
            Self::AuthenticatedUser | Self::User(_) => (R::UserOk, R::UserUnauthorized),
            Self::Email(_) => (R::EmailOk, R::EmailUnauthorized),
            Self::Domain(_) => (R::DomainOk, R::DomainUnauthorized),
            Self::Claim(..) => (R::ClaimOk, R::ClaimUnauthorized),
            Self::Groups(_) => (R::GroupsOk, R::GroupsUnauthorized),
            Self::AuthMethod(_) => (R::AuthMethodOk, R::AuthMethodUnauthorized),
            Self::SessionAge(_) => (R::SessionAgeOk, R::SessionAgeUnauthorized),
            Self::SessionBound => (R::SessionBoundOk, R::SessionBoundUnauthorized),
            Self::HttpMethod(_) => (R::HttpMethodOk, R::HttpMethodUnauthorized),
            Self::HttpPath(_) => (R::HttpPathOk, R::HttpPathUnauthorized),
            Self::SourceIp(_) => (R::SourceIpOk, R::SourceIpUnauthorized),
            Self::CorsPreflight => (R::CorsRequest, R::NonCorsRequest),
            Self::PomeriumRoutes => (R::PomeriumRoute, R::NonPomeriumRoute),
            Self::Country(_) => (R::CountryOk, R::CountryUnauthorized),
            Self::Asn(_) => (R::AsnOk, R::AsnUnauthorized),
            Self::Clock(test) => test.reasons(),
            Self::Device(_) => (R::DeviceOk, R::DeviceUnauthorized),
            Self::Posture(test) => test.reasons(),
            Self::Record(_) => (R::RecordOk, R::RecordUnauthorized),
            Self::ClientCertificate(_) => (R::ClientCertificateOk, R::ClientCertificateUnauthorized),
            Self::InvalidClientCertificate => (R::InvalidClientCertificate, R::ValidClientCertificate),
            Self::McpTool(_) => (R::McpNotAToolCall, R::McpNotAToolCall),
            Self::Ssh(test) => (test.reason(), test.reason()),
        }
    }
}

impl ClaimPath {
    fn values<'a>(&self, session: &'a Session) -> &'a [serde_json::Value] {
        let values = session.claims.get(&self.literal);
        let values = values.or_else(|| session.claims.get(self.nested.as_ref()?));
        values.map_or(&[], Vec::as_slice)
    }
}

/// Whether the provider said how the person signed in, and it is as it should be: `exclude` alone lets in nobody of
/// whom the provider said nothing.
fn signed_in_by(matcher: &ListMatcher, session: &Session) -> bool {
    let values = |claim| session.claims.get(claim).map_or(&[][..], Vec::as_slice);
    let methods = values("amr").iter().chain(values("acr"));
    methods.clone().next().is_some() && matcher.matches(methods)
}

/// Whether a path is the gateway's own: `/.pomerium` and everything below, and its well-known documents.
fn is_own_path(path: &str) -> bool {
    matches!(path, "/.pomerium" | "/.well-known/pomerium")
        || OWN_PATHS.iter().any(|own| path.starts_with(own))
}

/// The part behind the `@`. An address with several has no domain, unless its local part is quoted (RFC 5321,
/// 4.1.2): two readers could take it for mail to two domains.
fn domain(email: &str) -> Option<&str> {
    let (local, domain) = email.rsplit_once('@')?;
    let is_quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    (!local.is_empty() && !domain.is_empty() && (is_quoted || !local.contains('@'))).then_some(domain)
}
