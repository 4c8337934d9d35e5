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
            pub(crate) const fn sentence_when_refused(self) -> &'static str {
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
    /// `network/asn` matched.
    AsnOk = "asn-ok",
        "Your network is one that this route's policy allows",
        "Your network is one that this route's policy refuses";
    /// `network/asn` did not match; also when the network is not known.
    AsnUnauthorized = "asn-unauthorized",
        "Your network is not one that this route's policy refuses",
        "Your network is not one that this route's policy allows";
    /// `auth/method` matched.
    AuthMethodOk = "auth-method-ok",
        "The way you signed in is one that this route's policy allows",
        "The way you signed in is one that this route's policy refuses";
    /// `auth/method` did not match; also when the provider did not say.
    AuthMethodUnauthorized = "auth-method-unauthorized",
        "The way you signed in is not one that this route's policy refuses",
        "This route's policy asks for another way of signing in";
    /// `claim/...` matched.
    ClaimOk = "claim-ok",
        "A claim of your account is one that this route's policy allows",
        "A claim of your account is one that this route's policy refuses";
    /// `claim/...` did not match.
    ClaimUnauthorized = "claim-unauthorized",
        "Your account lacks the claim that this route's policy refuses",
        "Your account lacks a claim that this route's policy asks for";
    /// `client_certificate` matched.
    ClientCertificateOk = "client-certificate-ok",
        "Your client certificate is one that this route's policy allows",
        "Your client certificate is one that this route's policy refuses";
    /// No client certificate was shown, where the criterion needs one.
    ClientCertificateRequired = "client-certificate-required",
        "No client certificate was shown",
        "A valid client certificate is required, and none was shown";
    /// `client_certificate` did not match.
    ClientCertificateUnauthorized = "client-certificate-unauthorized",
        "Your client certificate is not one that this route's policy refuses",
        "Your client certificate is not one that this route's policy allows";
    /// The request is a CORS preflight.
    CorsRequest = "cors-request",
        "The request is a CORS preflight",
        "The request is a CORS preflight, which this route's policy refuses";
    /// `network/country` matched.
    CountryOk = "country-ok",
        "The country of your network address is one that this route's policy allows",
        "The country of your network address is one that this route's policy refuses";
    /// `network/country` did not match; also when the country is not known.
    CountryUnauthorized = "country-unauthorized",
        "The country of your network address is not one that this route's policy refuses",
        "The country of your network address is not one that this route's policy allows";
    /// `date` matched.
    DateOk = "date-ok",
        "The date is one that this route's policy allows",
        "The date is one that this route's policy refuses";
    /// `date` did not match.
    DateUnauthorized = "date-unauthorized",
        "The date is not one that this route's policy refuses",
        "The date is not one that this route's policy allows";
    /// `day_of_week` matched.
    DayOfWeekOk = "day-of-week-ok",
        "The day of the week is one that this route's policy allows",
        "The day of the week is one that this route's policy refuses";
    /// `day_of_week` did not match.
    DayOfWeekUnauthorized = "day-of-week-unauthorized",
        "The day of the week is not one that this route's policy refuses",
        "The day of the week is not one that this route's policy allows";
    /// `device` matched.
    DeviceOk = "device-ok",
        "Your device is one that this route's policy allows",
        "Your device is one that this route's policy refuses";
    /// No device is known, or none of the kind that the criterion needs.
    DeviceUnauthenticated = "device-unauthenticated",
        "Your device is not known",
        "Your device is not enrolled, or not in the way that this route's policy asks for";
    /// `device` did not match.
    DeviceUnauthorized = "device-unauthorized",
        "Your device is not one that this route's policy refuses",
        "Your device is enrolled, but not one that this route's policy allows";
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
    /// A client certificate was shown that leads to no authority of the gateway.
    InvalidClientCertificate = "invalid-client-certificate",
        "The client certificate that was shown is not valid here",
        "A valid client certificate is required, and the one that was shown is not valid here";
    /// `mcp_tool`, and the request calls no tool.
    McpNotAToolCall = "mcp-not-a-tool-call",
        "The request is not a call of a tool",
        "The request is not a call of a tool, which alone this route's policy allows";
    /// The request is no CORS preflight.
    NonCorsRequest = "non-cors-request",
        "The request is not a CORS preflight",
        "The request is not a CORS preflight, which alone this route's policy allows";
    /// The path is not one of the gateway's own.
    NonPomeriumRoute = "non-pomerium-route",
        "The path is not one of the gateway's own",
        "The path is not one of the gateway's own, which alone this route's policy allows";
    /// The path is one of the gateway's own.
    PomeriumRoute = "pomerium-route",
        "The path is one of the gateway's own",
        "The path is one of the gateway's own, which this route's policy refuses";
    /// `posture/age` matched.
    PostureAgeOk = "posture-age-ok",
        "What your device reported of itself is recent",
        "What your device reported of itself is so recent that this route's policy refuses it";
    /// `posture/age` did not match.
    PostureAgeUnauthorized = "posture-age-unauthorized",
        "What your device reported of itself is not recent",
        "What your device reported of itself is too old";
    /// `posture/disk_encryption` matched.
    PostureDiskEncryptionOk = "posture-disk-encryption-ok",
        "The disk of your device is encrypted",
        "The disk of your device is encrypted, which this route's policy refuses";
    /// `posture/disk_encryption` did not match.
    PostureDiskEncryptionUnauthorized = "posture-disk-encryption-unauthorized",
        "The disk of your device is not encrypted",
        "The disk of your device is not encrypted, which this route's policy asks for";
    /// `posture/firewall` matched.
    PostureFirewallOk = "posture-firewall-ok",
        "The firewall of your device is on",
        "The firewall of your device is on, which this route's policy refuses";
    /// `posture/firewall` did not match.
    PostureFirewallUnauthorized = "posture-firewall-unauthorized",
        "The firewall of your device is off",
        "The firewall of your device is off, which this route's policy asks for";
    /// `posture/os` matched.
    PostureOsOk = "posture-os-ok",
        "Your device's operating system is one that this route's policy allows",
        "Your device's operating system is one that this route's policy refuses";
    /// `posture/os` did not match.
    PostureOsUnauthorized = "posture-os-unauthorized",
        "Your device's operating system is not one that this route's policy refuses",
        "Your device's operating system is not one that this route's policy allows";
    /// `posture/os_version` matched.
    PostureOsVersionOk = "posture-os-version-ok",
        "Your device's operating system is recent enough",
        "Your device's operating system is of a version that this route's policy refuses";
    /// `posture/os_version` did not match.
    PostureOsVersionUnauthorized = "posture-os-version-unauthorized",
        "Your device's operating system is older than what this route's policy refuses",
        "Your device's operating system is too old";
    /// `posture/screen_lock` matched.
    PostureScreenLockOk = "posture-screen-lock-ok",
        "The screen of your device locks by itself",
        "The screen of your device locks by itself, which this route's policy refuses";
    /// `posture/screen_lock` did not match.
    PostureScreenLockUnauthorized = "posture-screen-lock-unauthorized",
        "The screen of your device does not lock by itself",
        "The screen of your device does not lock by itself, which this route's policy asks for";
    /// `posture/...`, and the device has reported nothing of the sort.
    PostureUnknown = "posture-unknown",
        "The state of your device is not known",
        "This route's policy asks for the state of your device, which is not known";
    /// `record` matched.
    RecordOk = "record-ok",
        "What is on record is what this route's policy asks for",
        "What is on record is something that this route's policy refuses";
    /// `record` did not match; also when there is no such record.
    RecordUnauthorized = "record-unauthorized",
        "Nothing is on record that this route's policy refuses",
        "What this route's policy asks for is not on record";
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
    /// `session/age` matched.
    SessionAgeOk = "session-age-ok",
        "You signed in recently",
        "You signed in so recently that this route's policy refuses it";
    /// `session/age` did not match.
    SessionAgeUnauthorized = "session-age-unauthorized",
        "You signed in a while ago",
        "You signed in too long ago";
    /// `session/bound` matched.
    SessionBoundOk = "session-bound-ok",
        "Your session is bound to your device",
        "Your session is bound to a device, which this route's policy refuses";
    /// `session/bound` did not match.
    SessionBoundUnauthorized = "session-bound-unauthorized",
        "Your session is not bound to a device",
        "Your session is not bound to your device, which this route's policy asks for";
    /// `source_ip` matched.
    SourceIpOk = "source-ip-ok",
        "Your network address is one that this route's policy allows",
        "Your network address is one that this route's policy refuses";
    /// `source_ip` did not match.
    SourceIpUnauthorized = "source-ip-unauthorized",
        "Your network address is not one that this route's policy refuses",
        "Your network address is not one that this route's policy allows";
    /// `ssh_publickey` or `ssh_ca` did not match; always, where the request is not SSH.
    SshPublickeyUnauthorized = "ssh-publickey-unauthorized",
        "Your SSH key is not one that this route's policy refuses",
        "Your SSH key is not one that this route's policy allows";
    /// `ssh_username...` did not match; always, where the request is not SSH.
    SshUsernameUnauthorized = "ssh-username-unauthorized",
        "Your SSH login name is not one that this route's policy refuses",
        "Your SSH login name is not one that this route's policy allows";
    /// `time_of_day` matched.
    TimeOfDayOk = "time-of-day-ok",
        "The time of day is one that this route's policy allows",
        "The time of day is one that this route's policy refuses";
    /// `time_of_day` did not match.
    TimeOfDayUnauthorized = "time-of-day-unauthorized",
        "The time of day is not one that this route's policy refuses",
        "The time of day is not one that this route's policy allows";
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
    /// `invalid_client_certificate` found a valid one.
    ValidClientCertificate = "valid-client-certificate",
        "Your client certificate is valid",
        "Your client certificate is valid, which this route's policy refuses";
}

const _: () = assert!(Reason::ALL.len() <= u128::BITS as usize, "a reason is one bit of a `Reasons`");

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of reasons; shown as codes with commas between, in alphabetical order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Reasons(u128);

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

    /// Whether any is in both.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
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

impl Reason {
    /// The reason of a code.
    pub(crate) fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
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
