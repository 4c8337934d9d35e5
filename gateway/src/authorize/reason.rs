//! Reason codes: why a criterion came out as it did, in the words that logs, pages and clients share.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $allowed:literal, $refused:literal;)+) => {
        /// Why a criterion was true or false.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant,)+
        }

        impl Reason {
            /// All of them, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code, as in logs and answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// What the reason means to the person, when the answer was yes.
            pub(super) const fn sentence_when_allowed(self) -> &'static str {
                match self {
                    $(Self::$variant => $allowed,)+
                }
            }

            /// What the reason means to the person, when the answer was no. A matching criterion refuses in a
            /// `deny` block and under `not` and `nor`.
            pub(super) const fn sentence_when_refused(self) -> &'static str {
                match self {
                    $(Self::$variant => $refused,)+
                }
            }
        }
    };
}

reasons! {
    /// `accept`.
    Accept = "accept", "Everybody may use this route", "This route's policy refuses everybody";
    /// `claim/...` matched.
    ClaimOk = "claim-ok",
        "A claim of your account is one that this route's policy allows",
        "A claim of your account is one that this route's policy refuses";
    /// `claim/...` did not match.
    ClaimUnauthorized = "claim-unauthorized",
        "Your account lacks the claim that this route's policy refuses",
        "Your account lacks a claim that this route's policy asks for";
    /// The request is a CORS preflight.
    CorsRequest = "cors-request",
        "The request is a CORS preflight",
        "The request is a CORS preflight, which this route's policy refuses";
    /// `domain` matched.
    DomainOk = "domain-ok",
        "Your email's domain is one that this route's policy allows",
        "Your email's domain is one that this route's policy refuses";
    /// `domain` did not match.
    DomainUnauthorized = "domain-unauthorized",
        "Your email's domain is not one that this route's policy refuses",
        "Your email's domain is not one that this route's policy allows";
    /// `email` matched.
    EmailOk = "email-ok",
        "Your email is one that this route's policy allows",
        "Your email is one that this route's policy refuses";
    /// `email` did not match.
    EmailUnauthorized = "email-unauthorized",
        "Your email is not one that this route's policy refuses",
        "Your email is not one that this route's policy allows";
    /// `groups` matched.
    GroupsOk = "groups-ok",
        "One of your groups is one that this route's policy allows",
        "Your groups are ones that this route's policy refuses";
    /// `groups` did not match.
    GroupsUnauthorized = "groups-unauthorized",
        "None of your groups is one that this route's policy refuses",
        "You are not in a group that this route's policy allows";
    /// `http_method` matched.
    HttpMethodOk = "http-method-ok",
        "The request's method is one that this route's policy allows",
        "The request's method is one that this route's policy refuses";
    /// `http_method` did not match.
    HttpMethodUnauthorized = "http-method-unauthorized",
        "The request's method is not one that this route's policy refuses",
        "The request's method is not one that this route's policy allows";
    /// `http_path` matched.
    HttpPathOk = "http-path-ok",
        "The request's path is one that this route's policy allows",
        "The request's path is one that this route's policy refuses";
    /// `http_path` did not match.
    HttpPathUnauthorized = "http-path-unauthorized",
        "The request's path is not one that this route's policy refuses",
        "The request's path is not one that this route's policy allows";
    /// The request is no CORS preflight.
    NonCorsRequest = "non-cors-request",
        "The request is not a CORS preflight",
        "The request is not a CORS preflight, which alone this route's policy allows";
    /// A Rego module failed.
    RegoError = "rego-error",
        "This route's policy failed",
        "This route's policy failed, which refuses everybody";
    /// A Rego rule applies.
    RegoOk = "rego-ok",
        "This route's policy in Rego allows you",
        "This route's policy in Rego refuses you";
    /// The `allow` rule of a Rego module does not apply.
    RegoUnauthorized = "rego-unauthorized",
        "This route's policy in Rego does not refuse you",
        "This route's policy in Rego does not allow you";
    /// `reject`.
    Reject = "reject", "This route's policy refuses nobody", "Nobody may use this route";
    /// `source_ip` matched.
    SourceIpOk = "source-ip-ok",
        "Your network address is one that this route's policy allows",
        "Your network address is one that this route's policy refuses";
    /// `source_ip` did not match.
    SourceIpUnauthorized = "source-ip-unauthorized",
        "Your network address is not one that this route's policy refuses",
        "Your network address is not one that this route's policy allows";
    /// Signed in, or `user` matched.
    UserOk = "user-ok",
        "Your account is one that this route's policy allows",
        "Your account is one that this route's policy refuses";
    /// Not signed in, where the criterion needs somebody.
    UserUnauthenticated = "user-unauthenticated", "Nobody is signed in", "You are not signed in";
    /// `user` did not match.
    UserUnauthorized = "user-unauthorized",
        "Your account is not one that this route's policy refuses",
        "Your account is not one that this route's policy allows";
}

const _: () = assert!(Reason::ALL.len() <= u32::BITS as usize, "a reason is one bit of a `Reasons`");

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of reasons; shown as codes with commas between, in alphabetical order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Reasons(u32);

impl Reasons {
    /// No reason at all.
    pub const NONE: Self = Self(0);

    /// This reason alone.
    #[must_use]
    pub const fn only(reason: Reason) -> Self {
        Self(1 << reason as u8)
    }

    /// The reasons of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `reason` is one of them.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & Self::only(reason).0 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each reason once, in alphabetical order.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.iter().copied().filter(move |reason| self.contains(*reason))
    }
}

impl FromIterator<Reason> for Reasons {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        reasons.into_iter().fold(Self::NONE, |all, reason| all.union(Self::only(reason)))
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, reason) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(reason.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
