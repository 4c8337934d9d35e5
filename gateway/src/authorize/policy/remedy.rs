//! What would let a refused person in: not what is wrong, but what they can do about it.
//!
//! A remedy is named only if it would help: the criteria that nobody can mend (a group, an address) are taken as they
//! are, those that somebody can mend as yes or no, and whatever then still refuses has no remedy.

use std::{fmt, time::Duration};

use jiff::{Timestamp, ZonedDateTime, tz::TimeZone};
use pomerium_shared::clock::Now;

use super::{LabelledGroup, Policy};
use crate::{
    authorize::{
        CheckRequest, Criterion, Evaluation, Verdict,
        ppl::{Group, Operator},
        reason::Reason,
    },
    session::Session,
};

/// How many edges of the clock are looked at for the one that opens the door: two a day for a month.
const EDGES_MAX: usize = 64;
/// Nobody is told to wait for longer than this beyond the end of their session.
const WAIT_MAX: Duration = Duration::from_secs(366 * 86_400);

/// What a refused person can do. Several of them may be needed, or one of several enough.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Sign in.
    SignIn,
    /// Sign in again: the last time is too long ago.
    SignInAgain,
    /// Sign in in another way, such as with a second factor.
    StepUp,
    /// Sign in through a client that binds the session to a key of the device.
    BindSession,
    /// Enrol the device.
    EnrolDevice,
    /// Have the device approved by an administrator.
    ApproveDevice,
    /// Let the client report the state of the device.
    ReportPosture,
    /// Encrypt the device's disk.
    EncryptDisk,
    /// Turn on the device's firewall.
    TurnOnFirewall,
    /// Let the device's screen lock by itself.
    LockScreen,
    /// Update the device's operating system.
    UpdateSystem,
    /// Show a valid client certificate.
    ShowCertificate,
    /// Wait until this moment, shown as on a wall of the policy's time zone.
    Wait(ZonedDateTime),
}

impl Remedy {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::SignInAgain => "sign-in-again",
            Self::StepUp => "step-up",
            Self::BindSession => "bind-session",
            Self::EnrolDevice => "enrol-device",
            Self::ApproveDevice => "approve-device",
            Self::ReportPosture => "report-posture",
            Self::EncryptDisk => "encrypt-disk",
            Self::TurnOnFirewall => "turn-on-firewall",
            Self::LockScreen => "lock-screen",
            Self::UpdateSystem => "update-system",
            Self::ShowCertificate => "show-certificate",
            Self::Wait(_) => "wait",
        }
    }

    /// What mends a criterion that is false for this reason; the clock is looked at by itself.
    const fn of_reason(reason: Reason) -> Option<Self> {
        Some(match reason {
            Reason::UserUnauthenticated => Self::SignIn,
            Reason::SessionAgeUnauthorized => Self::SignInAgain,
            Reason::AuthMethodUnauthorized => Self::StepUp,
            Reason::SessionBoundUnauthorized => Self::BindSession,
            Reason::DeviceUnauthenticated => Self::EnrolDevice,
            Reason::DeviceUnauthorized => Self::ApproveDevice,
            Reason::PostureUnknown | Reason::PostureAgeUnauthorized => Self::ReportPosture,
            Reason::PostureDiskEncryptionUnauthorized => Self::EncryptDisk,
            Reason::PostureFirewallUnauthorized => Self::TurnOnFirewall,
            Reason::PostureScreenLockUnauthorized => Self::LockScreen,
            Reason::PostureOsVersionUnauthorized => Self::UpdateSystem,
            Reason::ClientCertificateRequired | Reason::InvalidClientCertificate => Self::ShowCertificate,
            _ => return None,
        })
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignIn => "Sign in.",
            Self::SignInAgain => "Sign in again.",
            Self::StepUp => "Sign in again in a stronger way, such as with a second factor.",
            Self::BindSession => "Sign in with pomerium-cli, which binds your session to this device.",
            Self::EnrolDevice => "Enrol this device.",
            Self::ApproveDevice => "Ask your administrator to approve this device.",
            Self::ReportPosture => "Connect with pomerium-cli, which reports the state of this device.",
            Self::EncryptDisk => "Turn on the encryption of your disk.",
            Self::TurnOnFirewall => "Turn on the firewall of this device.",
            Self::LockScreen => "Let the screen of this device lock by itself.",
            Self::UpdateSystem => "Update the operating system of this device.",
            Self::ShowCertificate => "Connect with a valid client certificate.",
            Self::Wait(until) => {
                let zone = until.time_zone().iana_name().unwrap_or("UTC");
                return write!(f, "Wait until {} ({zone}).", until.strftime("%Y-%m-%d %H:%M"));
            }
        })
    }
}

impl Policy {
    /// What the person can do about a refusal; empty when nothing would help, or nothing is refused. A stranger hears
    /// only that signing in comes first.
    #[must_use]
    pub fn remedies(&self, check: &CheckRequest<'_>) -> Vec<Remedy> {
        match self.evaluate(check).verdict() {
            Verdict::Allow => return Vec::new(),
            Verdict::SignIn => return vec![Remedy::SignIn],
            Verdict::Deny { .. } => {}
        }
        // Whose session ends while they wait signs in again as the one they are.
        let lasting = check.session.map(|session| Session {
            expires_at: session.expires_at.checked_add(WAIT_MAX).unwrap_or(session.expires_at),
            ..session.clone()
        });
        let asked = CheckRequest { session: lasting.as_ref(), ..*check };
        let Some(opening) = self.opening(&asked) else { return Vec::new() };
        let mut remedies = self.mends(&opening);
        if opening.now != check.now {
            remedies.extend(self.wait(check, &opening));
        }
        if check.session.is_some_and(|session| !session.is_valid_at(opening.now.wall)) {
            remedies.push(Remedy::SignIn);
        }
        remedies.sort();
        remedies.dedup();
        remedies
    }

    /// The same question at the first moment, from now on, at which only what can be mended refuses.
    fn opening<'a>(&self, check: &CheckRequest<'a>) -> Option<CheckRequest<'a>> {
        let later = |check: &CheckRequest<'a>| {
            let wall = self.next_edge(check)?;
            Some(CheckRequest { now: Now { wall, ..check.now }, ..*check })
        };
        std::iter::successors(Some(*check), later)
            .take(EDGES_MAX)
            .take_while(|check| check.session.is_none() || check.live_session().is_some())
            .find(|check| self.could_allow(check))
    }

    /// Whether the answer could be yes if all that can be mended were as it should be.
    fn could_allow(&self, check: &CheckRequest<'_>) -> bool {
        let can = |value| move |labelled: &LabelledGroup| labelled.group.can_be(value, check);
        self.allow.iter().any(can(true)) && self.deny.iter().all(can(false))
    }

    /// What mends the parts that stand in the way.
    fn mends(&self, check: &CheckRequest<'_>) -> Vec<Remedy> {
        let decision = self.evaluate(check);
        let mut remedies = Vec::new();
        for (groups, wanted, is_met) in
            [(&self.allow, true, decision.allow.value), (&self.deny, false, !decision.deny.value)]
        {
            let in_the_way = groups
                .iter()
                .map(|labelled| &labelled.group)
                .filter(|group| !is_met && group.value(check) != wanted && group.can_be(wanted, check));
            remedies.extend(in_the_way.flat_map(|group| group.mends(wanted, check)));
        }
        // A device that must be known first, whatever else allows.
        if decision.depends_on(Reason::DeviceUnauthenticated) {
            remedies.push(Remedy::EnrolDevice);
        }
        remedies
    }

    /// Waiting, as read on the wall where the clock matters.
    fn wait(&self, check: &CheckRequest<'_>, opening: &CheckRequest<'_>) -> Option<Remedy> {
        let zone = self.criteria().find_map(|criterion| match criterion {
            Criterion::Clock(test) if test.matches(check.now.wall) != test.matches(opening.now.wall) => {
                Some(test.zone())
            }
            _ => None,
        });
        let until = Timestamp::try_from(opening.now.wall).ok()?;
        Some(Remedy::Wait(until.to_zoned_datetime(zone.unwrap_or(TimeZone::UTC))))
    }
}

impl Group {
    /// What the group comes to.
    fn value(&self, check: &CheckRequest<'_>) -> bool {
        self.operator.join(self.criteria.iter().map(|criterion| criterion.evaluate(check))).value
    }

    /// Whether the group has this value, or would if what can be mended were.
    fn can_be(&self, value: bool, check: &CheckRequest<'_>) -> bool {
        let wanted = value != self.operator.inverts();
        let mut can_be = self
            .criteria
            .iter()
            .map(|criterion| criterion.evaluate(check).value == wanted || criterion.mend(check).is_some());
        if value == self.operator.needs_all() { can_be.all(|can| can) } else { can_be.any(|can| can) }
    }

    /// What mends the parts that keep the group from being `value`.
    fn mends(&self, value: bool, check: &CheckRequest<'_>) -> impl Iterator<Item = Remedy> {
        let wanted = value != self.operator.inverts();
        let in_the_way =
            self.criteria.iter().filter(move |criterion| criterion.evaluate(check).value != wanted);
        in_the_way.filter_map(|criterion| criterion.mend(check))
    }
}

impl Operator {
    /// Whether the parts count when they are false.
    const fn inverts(self) -> bool {
        matches!(self, Self::Not | Self::Nor)
    }

    /// Whether all parts must count for the group to be true.
    const fn needs_all(self) -> bool {
        matches!(self, Self::And | Self::Not)
    }
}

impl Criterion {
    /// What the person can do to turn the criterion's answer.
    fn mend(&self, check: &CheckRequest<'_>) -> Option<Remedy> {
        let Evaluation { reasons, .. } = self.evaluate(check);
        let remedy = reasons.iter().find_map(Remedy::of_reason)?;
        let helps = match self {
            Self::Device(matcher) => matcher.may_come_to_match(check.own_device()),
            _ => true,
        };
        helps.then_some(remedy)
    }
}
