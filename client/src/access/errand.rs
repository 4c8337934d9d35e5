//! One question to the gateway, from the first try to an answer: at most one sign-in in between. Pure.

use crate::{link::answer::Verdict, login::turns::Renewed};

/// Tokens of earlier sign-ins, of this process or another, that are tried at most.
const KNOWN_MAX: u8 = 2;

/// What has been done about a question so far.
#[derive(Debug, Default)]
pub(crate) struct Errand {
    has_signed_in: bool,
    known: u8,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The answer is no.
    GiveUp,
    /// The new token was refused, too: a third question would hear the same.
    StillRefused,
    /// Sign in, and ask again.
    SignIn {
        /// The gateway said of this very token that it is no good.
        token_is_dead: bool,
    },
}

impl Errand {
    /// What a refusal of the question calls for.
    pub(crate) const fn refused(&self, verdict: Verdict) -> Next {
        let Verdict::SignIn { token_is_dead } = verdict else { return Next::GiveUp };
        if self.has_signed_in { Next::StillRefused } else { Next::SignIn { token_is_dead } }
    }

    /// There is another token to ask with. One from before may have been refused to others already: that says nothing of a new
    /// sign-in.
    pub(crate) const fn renewed(&mut self, renewed: &Renewed) {
        self.known = self.known.saturating_add(1);
        self.has_signed_in |= renewed.is_new || self.known > KNOWN_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::token_until;

    #[test]
    fn nobody_is_sent_to_sign_in_twice_for_one_question() {
        let mut errand = Errand::default();
        let verdict = Verdict::SignIn { token_is_dead: true };
        assert_eq!(errand.refused(verdict), Next::SignIn { token_is_dead: true });
        errand.renewed(&Renewed { token: token_until(2), is_new: true });
        assert_eq!(errand.refused(verdict), Next::StillRefused);
        assert_eq!(errand.refused(Verdict::Denied), Next::GiveUp);
    }

    #[test]
    fn a_token_from_before_is_tried_and_no_reason_to_give_up() {
        let mut errand = Errand::default();
        let mut tries = 0;
        while errand.refused(Verdict::SignIn { token_is_dead: true }) != Next::StillRefused {
            errand.renewed(&Renewed { token: token_until(tries), is_new: false });
            tries += 1;
        }
        assert_eq!(tries, 3, "but not for ever");
    }
}
