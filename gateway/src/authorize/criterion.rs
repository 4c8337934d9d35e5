//! Criteria: single questions about a session or a request, each with a yes, a no and the reason for it.

mod evaluate;

use std::fmt;

pub(super) use evaluate::Answer;

use super::{
    calendar::{AgeLimit, ClockTest},
    certificate::CertificateMatcher,
    matcher::{AsnMatcher, IpMatcher, ListMatcher, StringMatcher, shortened},
    posture::{DeviceMatcher, PostureTest},
    record::RecordMatcher,
    ssh::SshTest,
};

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
    /// The path is one of the gateway's own.
    PomeriumRoutes,
    /// The date, the day of the week or the time of day.
    Clock(ClockTest),
    /// External data.
    Record(RecordMatcher),
    /// The device.
    Device(DeviceMatcher),
    /// What the device reported of itself.
    Posture(PostureTest),
    /// The client certificate; any of these.
    ClientCertificate(Vec<CertificateMatcher>),
    /// No client certificate was shown, or one that is not valid.
    InvalidClientCertificate,
    /// How long ago the person signed in.
    SessionAge(AgeLimit),
    /// The session is bound to a device's key.
    SessionBound,
    /// How the person signed in: the claims `amr` and `acr`.
    AuthMethod(ListMatcher),
    /// The country of the client's address; one that is not known matches nothing.
    Country(StringMatcher),
    /// The autonomous system of the client's address; one that is not known matches nothing.
    Asn(AsnMatcher),
    /// The tool that an MCP request calls. No such request is told apart from others, so that it is never true.
    McpTool(StringMatcher),
    /// An SSH login. No such request comes here, so that it is never true.
    Ssh(SshTest),
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

    /// The claims that are looked up, in this order; the first that is there counts.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.literal.as_str()).chain(self.nested.as_deref())
    }
}

impl Criterion {
    /// The name, as it is written in a policy.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::AuthenticatedUser => "authenticated_user",
            Self::Email(_) => "email",
            Self::Domain(_) => "domain",
            Self::User(_) => "user",
            Self::Claim(..) => "claim",
            Self::Groups(_) => "groups",
            Self::HttpMethod(_) => "http_method",
            Self::HttpPath(_) => "http_path",
            Self::SourceIp(_) => "source_ip",
            Self::CorsPreflight => "cors_preflight",
            Self::PomeriumRoutes => "pomerium_routes",
            Self::Clock(test) => test.name(),
            Self::Record(_) => "record",
            Self::Device(_) => "device",
            Self::Posture(test) => test.name(),
            Self::ClientCertificate(_) => "client_certificate",
            Self::InvalidClientCertificate => "invalid_client_certificate",
            Self::SessionAge(_) => "session/age",
            Self::SessionBound => "session/bound",
            Self::AuthMethod(_) => "auth/method",
            Self::Country(_) => "network/country",
            Self::Asn(_) => "network/asn",
            Self::McpTool(_) => "mcp_tool",
            Self::Ssh(test) => test.name(),
        }
    }
}

impl Criterion {
    /// Whether it asks for something that no request here can bring yet, so that it is never true.
    #[must_use]
    pub const fn is_never_true(&self) -> bool {
        matches!(self, Self::McpTool(_) | Self::Ssh(_))
    }

    /// The configuration key of the file without which it is never true.
    #[must_use]
    pub const fn needs_file(&self) -> Option<&'static str> {
        match self {
            Self::Record(_) => Some("records_file"),
            Self::Country(_) => Some("geoip_country_file"),
            Self::Asn(_) => Some("geoip_asn_file"),
            _ => None,
        }
    }

    /// Whether it believes what a client certificate says of its holder, which anybody can write who is their own
    /// authority.
    #[must_use]
    pub fn needs_authority(&self) -> bool {
        matches!(self, Self::ClientCertificate(matchers) if matchers.iter().any(CertificateMatcher::has_names))
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Accept
            | Self::Reject
            | Self::AuthenticatedUser
            | Self::CorsPreflight
            | Self::PomeriumRoutes
            | Self::InvalidClientCertificate
            | Self::SessionBound => Ok(()),
            Self::Email(matcher)
            | Self::Domain(matcher)
            | Self::User(matcher)
            | Self::HttpMethod(matcher)
            | Self::HttpPath(matcher)
            | Self::Country(matcher)
            | Self::McpTool(matcher) => write!(f, " {matcher}"),
            Self::Claim(path, matcher) => write!(f, "/{path} {matcher}"),
            Self::Groups(matcher) | Self::AuthMethod(matcher) => write!(f, " {matcher}"),
            Self::SourceIp(matcher) => write!(f, " {matcher}"),
            Self::Clock(test) => write!(f, " {test}"),
            Self::Record(matcher) => write!(f, " {matcher}"),
            Self::Device(matcher) => write!(f, " {matcher}"),
            Self::Posture(test) => write!(f, "{test}"),
            Self::ClientCertificate(matchers) => {
                f.write_str(" ")?;
                shortened(f, matchers, |f, matcher| write!(f, "{matcher}"))
            }
            Self::SessionAge(limit) => write!(f, " {limit}"),
            Self::Asn(matcher) => write!(f, " {matcher}"),
            Self::Ssh(test) => write!(f, "{test}"),
        }
    }
}

impl Criterion {
    /// Whether it says something else of one path than of another.
    pub(super) fn tells_apart(&self, one: &str, other: &str) -> bool {
        matches!(self, Self::HttpPath(matcher) if matcher.matches(one) != matcher.matches(other))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.literal.escape_debug())
    }
}
