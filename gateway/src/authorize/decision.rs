//! What a policy came to, and what follows from it.

use super::{Reason, Reasons};

/// What one action (`allow` or `deny`), or one part of it, came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evaluation {
    /// Whether it applies.
    pub value: bool,
    /// The reasons of the parts that made it so.
    pub reasons: Reasons,
}

/// Both actions of a policy, held against one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decision {
    /// The `allow` rules.
    pub allow: Evaluation,
    /// The `deny` rules.
    pub deny: Evaluation,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass.
    Allow,
    /// Somebody has to sign in first.
    SignIn,
    /// Refuse with this status.
    Deny {
        /// The HTTP status of the refusal.
        status: u16,
    },
}

impl Decision {
    /// What follows, in the fixed order: signing in may change everything, then deny beats allow, then nothing is
    /// allowed that no rule allows.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let unauthenticated = self.allow.reasons.contains(Reason::UserUnauthenticated)
            || self.deny.reasons.contains(Reason::UserUnauthenticated);
        if unauthenticated && !(self.allow.value && !self.deny.value) {
            Verdict::SignIn
        } else if !self.deny.value && self.allow.value {
            Verdict::Allow
        } else {
            Verdict::Deny { status: 403 }
        }
    }

    /// The reasons that a refused person may see.
    #[must_use]
    pub fn visible_reasons(&self) -> Reasons {
        if self.deny.value { self.deny.reasons } else { self.allow.reasons }
    }

    /// The visible reasons in words, each with its code.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let reasons: Vec<String> = self
            .visible_reasons()
            .iter()
            .map(|reason| format!("{} ({})", reason.explain(), reason.as_str()))
            .collect();
        if reasons.is_empty() {
            return vec!["No rule of this route's policy allows it.".to_owned()];
        }
        reasons
    }
}
