//! What a policy came to, and what follows from it.

use super::reason::{Reason, Reasons};

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
    /// What to answer: sign-in first where anything depended on who it is, then `deny`, then `allow`, else no.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        if self.needs_sign_in() {
            Verdict::SignIn
        } else if self.deny.value || !self.allow.value {
            Verdict::Deny { status: 403 }
        } else {
            Verdict::Allow
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
        if self.needs_sign_in() {
            return vec![sentence(Reason::UserUnauthenticated)];
        }
        let sentences: Vec<_> = self.visible_reasons().iter().map(sentence).collect();
        if sentences.is_empty() {
            return vec!["No rule of this route's policy allows anybody.".to_owned()];
        }
        sentences
    }

    const fn needs_sign_in(&self) -> bool {
        let unauthenticated = Reason::UserUnauthenticated;
        self.allow.reasons.contains(unauthenticated) || self.deny.reasons.contains(unauthenticated)
    }
}
