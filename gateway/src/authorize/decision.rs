//! What a policy came to, and what follows from it.

use super::reason::{Reason, Reasons};

/// The reference's status for a request without a valid client certificate.
pub const CERTIFICATE_REQUIRED: u16 = 495;
/// The reference's status for a device that may not.
pub const DEVICE_NOT_AUTHORIZED: u16 = 450;

const MISSING_CERTIFICATE: Reasons =
    Reasons::only(Reason::ClientCertificateRequired).union(Reasons::only(Reason::InvalidClientCertificate));
const CERTIFICATE: Reasons = MISSING_CERTIFICATE.union(Reasons::only(Reason::ClientCertificateUnauthorized));

/// What one action (`allow` or `deny`) came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// Whether the action applies.
    pub value: bool,
    /// The reason codes of the parts that made it so.
    pub reasons: Reasons,
}

/// What a policy came to for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// All `allow` rules.
    pub allow: Evaluation,
    /// All `deny` rules; beats `allow`.
    pub deny: Evaluation,
}

/// What to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass.
    Allow,
    /// Ask who it is: a redirect to the sign-in, or 401 where none is suitable.
    SignIn,
    /// Refuse.
    Deny {
        /// The HTTP status.
        status: u16,
    },
}

impl Decision {
    /// What to answer. In this order: a client certificate that `deny` misses, sign-in wherever anything depended on who
    /// it is, a device likewise, then `deny`, then `allow`, else no.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        if self.deny.value && self.deny.reasons.intersects(MISSING_CERTIFICATE) {
            Verdict::Deny { status: CERTIFICATE_REQUIRED }
        } else if self.depends_on(Reason::UserUnauthenticated) {
            Verdict::SignIn
        } else if self.depends_on(Reason::DeviceUnauthenticated) {
            Verdict::Deny { status: DEVICE_NOT_AUTHORIZED }
        } else if self.deny.value || !self.allow.value {
            Verdict::Deny { status: self.status() }
        } else {
            Verdict::Allow
        }
    }

    /// Whether it is refused because nobody knows on what device it is asked, which a browser could show.
    #[must_use]
    pub const fn wants_device(&self) -> bool {
        matches!(self.verdict(), Verdict::Deny { status: DEVICE_NOT_AUTHORIZED })
            && self.depends_on(Reason::DeviceUnauthenticated)
    }

    /// The status of a refusal, by the reasons that the person may see.
    const fn status(&self) -> u16 {
        let reasons = self.visible_reasons();
        if reasons.contains(Reason::DeviceUnauthorized) {
            DEVICE_NOT_AUTHORIZED
        } else if reasons.intersects(CERTIFICATE) {
            CERTIFICATE_REQUIRED
        } else {
            403
        }
    }

    /// The reasons that the person may see: those of `deny` where it applies, else those of `allow`.
    #[must_use]
    pub const fn visible_reasons(&self) -> Reasons {
        if self.deny.value { self.deny.reasons } else { self.allow.reasons }
    }

    /// The reasons for the person: a sentence each, with its code.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let sentence = |reason: Reason| {
            let words = match self.verdict() {
                Verdict::Allow => reason.sentence_when_allowed(),
                Verdict::SignIn | Verdict::Deny { .. } => reason.sentence_when_refused(),
            };
            format!("{words} ({reason}).")
        };
        if self.verdict() == Verdict::SignIn {
            return vec![sentence(Reason::UserUnauthenticated)];
        }
        let sentences: Vec<_> = self.visible_reasons().iter().map(sentence).collect();
        if sentences.is_empty() {
            return vec!["No rule of this route's policy allows anybody.".to_owned()];
        }
        sentences
    }

    /// Whether either action came out as it did for this reason, too.
    pub(super) const fn depends_on(&self, reason: Reason) -> bool {
        self.allow.reasons.contains(reason) || self.deny.reasons.contains(reason)
    }
}
