//! The reason codes of a decision, as logs and problem documents carry them.

/// Why a criterion holds or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The rule accepts everything.
    Accept,
    /// The rule accepts nothing.
    Reject,
    /// The claim has the value.
    ClaimOk,
    /// The claim does not have the value.
    ClaimUnauthorized,
    /// It is a CORS preflight.
    CorsRequest,
    /// It is no CORS preflight.
    NonCorsRequest,
    /// The email's domain fits.
    DomainOk,
    /// The email's domain does not fit.
    DomainUnauthorized,
    /// The email fits.
    EmailOk,
    /// The email does not fit.
    EmailUnauthorized,
    /// The groups fit.
    GroupsOk,
    /// The groups do not fit.
    GroupsUnauthorized,
    /// The method fits.
    HttpMethodOk,
    /// The method does not fit.
    HttpMethodUnauthorized,
    /// The path fits.
    HttpPathOk,
    /// The path does not fit.
    HttpPathUnauthorized,
    /// The address fits.
    SourceIpOk,
    /// The address does not fit.
    SourceIpUnauthorized,
    /// The user fits.
    UserOk,
    /// Nobody is signed in.
    UserUnauthenticated,
    /// The user does not fit.
    UserUnauthorized,
}

impl Reason {
    const ALL: [Self; 21] = [
        Self::Accept,
        Self::Reject,
        Self::ClaimOk,
        Self::ClaimUnauthorized,
        Self::CorsRequest,
        Self::NonCorsRequest,
        Self::DomainOk,
        Self::DomainUnauthorized,
        Self::EmailOk,
        Self::EmailUnauthorized,
        Self::GroupsOk,
        Self::GroupsUnauthorized,
        Self::HttpMethodOk,
        Self::HttpMethodUnauthorized,
        Self::HttpPathOk,
        Self::HttpPathUnauthorized,
        Self::SourceIpOk,
        Self::SourceIpUnauthorized,
        Self::UserOk,
        Self::UserUnauthenticated,
        Self::UserUnauthorized,
    ];

    /// The code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::ClaimOk => "claim-ok",
            Self::ClaimUnauthorized => "claim-unauthorized",
            Self::CorsRequest => "cors-request",
            Self::NonCorsRequest => "non-cors-request",
            Self::DomainOk => "domain-ok",
            Self::DomainUnauthorized => "domain-unauthorized",
            Self::EmailOk => "email-ok",
            Self::EmailUnauthorized => "email-unauthorized",
            Self::GroupsOk => "groups-ok",
            Self::GroupsUnauthorized => "groups-unauthorized",
            Self::HttpMethodOk => "http-method-ok",
            Self::HttpMethodUnauthorized => "http-method-unauthorized",
            Self::HttpPathOk => "http-path-ok",
            Self::HttpPathUnauthorized => "http-path-unauthorized",
            Self::SourceIpOk => "source-ip-ok",
            Self::SourceIpUnauthorized => "source-ip-unauthorized",
            Self::UserOk => "user-ok",
            Self::UserUnauthenticated => "user-unauthenticated",
            Self::UserUnauthorized => "user-unauthorized",
        }
    }

    /// What the reason means to the person who is refused.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Reject => "A rule of this route refuses everybody.",
            Self::ClaimUnauthorized => "Your account lacks a claim that this route's policy asks for.",
            Self::NonCorsRequest => "Only CORS preflight requests are allowed here.",
            Self::DomainUnauthorized => "Your email's domain is not one that this route's policy allows.",
            Self::EmailUnauthorized => "Your email address is not one that this route's policy allows.",
            Self::GroupsUnauthorized => "You are in none of the groups that this route's policy allows.",
            Self::HttpMethodUnauthorized => "The request's method is not one that this route's policy allows.",
            Self::HttpPathUnauthorized => "The path is not one that this route's policy allows.",
            Self::SourceIpUnauthorized => "You come from an address that this route's policy does not allow.",
            Self::UserUnauthorized => "You are not a user that this route's policy allows.",
            Self::UserUnauthenticated => "You are not signed in.",
            Self::Accept
            | Self::ClaimOk
            | Self::CorsRequest
            | Self::DomainOk
            | Self::EmailOk
            | Self::GroupsOk
            | Self::HttpMethodOk
            | Self::HttpPathOk
            | Self::SourceIpOk
            | Self::UserOk => "A rule of this route's policy refuses what you are or asked for.",
        }
    }
}

/// A set of reasons; a word in size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons(u32);

impl Reasons {
    /// The set of one reason.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self(1 << reason as u8)
    }

    /// Both sets in one.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the reason is in the set.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    /// The reasons, in the order of their codes.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    /// The codes, joined by commas: the log's form.
    #[must_use]
    pub fn to_text(self) -> String {
        self.iter().map(Reason::as_str).collect::<Vec<_>>().join(",")
    }
}
