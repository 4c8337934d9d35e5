//! Whose turn it is to sign in, and what the last attempt says to those who come after it. Pure: the clock is an argument.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pomerium_shared::clock::Now;

use super::LoginError;
use crate::token::Token;

/// How long nobody who was left waiting at a sign-in page is shown another one, unless they ask for it.
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(10 * 60);

/// Demands of routes that are remembered as unmet; the oldest makes room.
pub(crate) const UNMET_MAX: usize = 16;

/// Who wants a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A person, by a command that signs in.
    ByPerson,
    /// A program, which opened a connection.
    ByStream,
}

/// A token in the place of one that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renewed {
    pub(crate) token: Token,
    /// Whether it is of a sign-in that ended just now; one from before may be no good either.
    pub(crate) is_new: bool,
}

/// What to do about a token that was refused, or is missing.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This is known already.
    Told(Result<Renewed, Arc<LoginError>>),
    /// Look at what other processes have, as [`next_step`] says, then sign in.
    SignIn,
}

/// What to do when the cache was read again under the lock between processes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Someone else signed in meanwhile.
    Take(Token),
    /// The cache has nothing newer: sign in.
    SignIn,
}

/// What to do with what the cache has, when this token is no good.
pub(crate) fn next_step(stale: Option<&Token>, cached: Option<Token>) -> Step {
    match cached {
        Some(token) if Some(&token) != stale => Step::Take(token),
        _ => Step::SignIn,
    }
}

/// The sign-ins to one gateway in this process; whoever asks has waited for its turn.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Whether there is a person who can sign in.
    has_person: bool,
    /// How many attempts have ended.
    ended: u64,
    last: Option<Ended>,
    /// What routes demand of a sign-in and the gateway did not take the last one for, and when; the oldest first. Nothing but a
    /// person's own sign-in takes one out before its time: else two routes in turn, or a session that the gateway ends each
    /// time, would open one page after the other.
    unmet: VecDeque<(String, Now)>,
}

/// How an attempt ended, and when.
#[derive(Debug)]
struct Ended {
    outcome: Result<Renewed, Arc<LoginError>>,
    /// What the route asked of the sign-in.
    demand: String,
    at: Now,
}

impl Ended {
    /// What it says to a program that comes later: a person who let one page go by is not shown a page a connection.
    fn speaks_to(&self, asked: Asked, now: Now) -> Option<Arc<LoginError>> {
        let error = self.outcome.as_ref().err().filter(|error| error.speaks_for_a_while())?;
        cools_down(self.at, asked, now).then(|| Arc::clone(error))
    }
}

/// Whether a program that comes now is told what was so at that time.
fn cools_down(since: Now, asked: Asked, now: Now) -> bool {
    let passed = now.monotonic.saturating_duration_since(since.monotonic);
    asked == Asked::ByStream && passed < COOL_DOWN
}

impl Turns {
    /// None yet; `has_person` says whether anybody could sign in.
    pub(crate) const fn new(has_person: bool) -> Self {
        Self { has_person, ended: 0, last: None, unmet: VecDeque::new() }
    }

    /// How many attempts have ended: to be remembered by who begins to wait.
    pub(crate) const fn seen(&self) -> u64 {
        self.ended
    }

    /// What somebody is to do whose turn it is now, who had `seen` so many attempts when it came, and whose route has this `demand` of a
    /// sign-in.
    pub(crate) fn next(
        &self,
        seen: u64,
        stale: Option<&Token>,
        demand: &str,
        asked: Asked,
        now: Now,
    ) -> Turn {
        if !self.has_person {
            return Turn::Told(Err(Arc::new(LoginError::NotInteractive)));
        }
        if let Some(last) = &self.last {
            // An attempt that ended while this one waited speaks for both, also when it failed: ten waiting connections must not open ten
            // browser windows one after another. One for another demand may be of no use here.
            if self.ended != seen && last.demand == demand {
                return Turn::Told(last.outcome.clone());
            }
            if let Ok(last) = &last.outcome
                && Some(&last.token) != stale
            {
                return Turn::Told(Ok(Renewed { token: last.token.clone(), is_new: false }));
            }
        }
        if self.unmet.iter().any(|(of, at)| of == demand && cools_down(*at, asked, now)) {
            return Turn::Told(Err(Arc::new(LoginError::StillRefused)));
        }
        let told = self.last.as_ref().and_then(|last| last.speaks_to(asked, now));
        told.map_or(Turn::SignIn, |error| Turn::Told(Err(error)))
    }

    /// An attempt ended that somebody had asked for to meet this demand.
    pub(crate) fn ended(
        &mut self,
        outcome: Result<Renewed, Arc<LoginError>>,
        demand: String,
        asked: Asked,
        now: Now,
    ) {
        self.ended += 1;
        if outcome.is_ok() && asked == Asked::ByPerson {
            self.unmet.clear();
        }
        self.last = Some(Ended { outcome, demand, at: now });
    }

    /// The gateway did not take what a sign-in brought, for a route with this demand: programs that come again for it are told
    /// so, for they would find the same. To others the token may be good.
    pub(crate) fn disappointed(&mut self, demand: String, now: Now) {
        self.unmet.retain(|(of, _)| *of != demand);
        if self.unmet.len() == UNMET_MAX {
            self.unmet.pop_front();
        }
        self.unmet.push_back((demand, now));
    }

    /// The token of the last sign-in, where no cache keeps it.
    pub(crate) fn brought(&self) -> Option<Token> {
        self.last.as_ref()?.outcome.as_ref().ok().map(|renewed| renewed.token.clone())
    }

    /// Forgets what the last sign-in brought: whoever signs out is signed out in this process, too. Pages that were in vain are
    /// remembered: it is no reason to show them again.
    pub(crate) fn forget(&mut self) {
        self.last.take_if(|last| last.outcome.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::tests::token_until;

    fn new(exp: i64) -> Renewed {
        Renewed { token: token_until(exp), is_new: true }
    }

    proptest! {
        #[test]
        fn a_token_that_was_refused_is_never_taken_again(stale: Option<u8>, cached: Option<u8>) {
            let token = |exp: u8| token_until(i64::from(exp));
            let (stale, cached) = (stale.map(token), cached.map(token));
            match next_step(stale.as_ref(), cached.clone()) {
                Step::Take(token) => prop_assert!(Some(&token) == cached.as_ref() && Some(&token) != stale.as_ref()),
                Step::SignIn => prop_assert!(cached.is_none() || cached == stale),
            }
        }
    }

    #[test]
    fn a_page_that_nobody_used_speaks_for_a_while_and_other_failures_do_not() {
        let now = Now::read();
        let after = |passed| Now { monotonic: now.monotonic + passed, ..now };
        let next = |error, asked, now| {
            let mut turns = Turns::new(true);
            turns.ended(Err(Arc::new(error)), String::new(), asked, after(Duration::ZERO));
            matches!(turns.next(turns.seen(), None, "", asked, now), Turn::SignIn)
        };
        assert!(!next(LoginError::TimedOut, Asked::ByStream, after(COOL_DOWN / 2)));
        assert!(next(LoginError::TimedOut, Asked::ByPerson, after(COOL_DOWN / 2)));
        assert!(next(LoginError::TimedOut, Asked::ByStream, after(COOL_DOWN)));
        assert!(next(LoginError::BadAddress, Asked::ByStream, now));
    }

    #[test]
    fn a_gateway_that_takes_no_token_is_not_shown_to_the_person_by_each_connection() {
        let (mut turns, now) = (Turns::new(true), Now::read());
        turns.ended(Ok(new(1)), String::new(), Asked::ByStream, now);
        turns.disappointed(String::new(), now);
        let next = |asked| turns.next(turns.seen(), Some(&token_until(1)), "", asked, now);
        assert!(
            matches!(next(Asked::ByStream), Turn::Told(Err(error)) if matches!(*error, LoginError::StillRefused))
        );
        assert!(matches!(next(Asked::ByPerson), Turn::SignIn));
    }

    #[test]
    fn a_sign_in_for_one_route_says_nothing_of_what_another_demands() {
        let (mut turns, now, plain, strong) = (Turns::new(true), Now::read(), "", "acr_values=mfa");
        // Two connections wait; the one without a demand has signed in.
        turns.ended(Ok(new(1)), plain.to_owned(), Asked::ByStream, now);
        let told = turns.next(0, None, strong, Asked::ByStream, now);
        assert!(
            matches!(told, Turn::Told(Ok(Renewed { is_new: false, .. }))),
            "it may be good enough: {told:?}"
        );
        let next = turns.next(turns.seen(), Some(&token_until(1)), strong, Asked::ByStream, now);
        assert!(matches!(next, Turn::SignIn), "and else the person is asked: {next:?}");
        // That one is in vain, which keeps the first token and leaves the first route alone.
        turns.ended(Ok(new(2)), strong.to_owned(), Asked::ByStream, now);
        turns.disappointed(strong.to_owned(), now);
        let next = |demand| turns.next(turns.seen(), Some(&token_until(2)), demand, Asked::ByStream, now);
        assert!(matches!(next(strong), Turn::Told(Err(error)) if matches!(*error, LoginError::StillRefused)));
        assert!(matches!(next(plain), Turn::SignIn));
        assert_eq!(turns.brought(), Some(token_until(2)));
    }

    #[test]
    fn unmet_demands_are_remembered_until_the_person_signs_in_and_are_few() {
        let (mut turns, now) = (Turns::new(true), Now::read());
        let demand = |n: usize| format!("acr_values={n}");
        let is_left_alone = |turns: &Turns, n: usize| {
            let next = turns.next(turns.seen(), Some(&token_until(1)), &demand(n), Asked::ByStream, now);
            matches!(next, Turn::Told(Err(error)) if matches!(*error, LoginError::StillRefused))
        };
        for n in 0..=UNMET_MAX {
            turns.ended(Ok(new(1)), demand(n), Asked::ByStream, now);
            turns.disappointed(demand(n), now);
            turns.disappointed(demand(n), now);
        }
        // A sign-in that another stream caused, one that failed, and the end of the session change nothing.
        turns.ended(Ok(new(1)), String::new(), Asked::ByStream, now);
        turns.ended(Err(Arc::new(LoginError::BadAddress)), String::new(), Asked::ByPerson, now);
        turns.forget();
        assert!((1..=UNMET_MAX).all(|n| is_left_alone(&turns, n)), "{turns:?}");
        assert!(!is_left_alone(&turns, 0), "the oldest made room");
        assert_eq!(turns.unmet.len(), UNMET_MAX);
        turns.ended(Ok(new(1)), String::new(), Asked::ByPerson, now);
        assert!(!(0..=UNMET_MAX).any(|n| is_left_alone(&turns, n)), "{turns:?}");
    }

    #[test]
    fn who_signs_out_has_no_token_and_sees_no_page_that_was_let_go_by() {
        let (mut turns, now) = (Turns::new(true), Now::read());
        turns.ended(Ok(new(1)), String::new(), Asked::ByPerson, now);
        turns.forget();
        assert_eq!(turns.brought(), None);
        turns.ended(Err(Arc::new(LoginError::TimedOut)), String::new(), Asked::ByStream, now);
        turns.forget();
        let next = turns.next(turns.seen(), None, "", Asked::ByStream, now);
        assert!(matches!(next, Turn::Told(Err(_))), "{next:?}");
    }

    #[test]
    fn what_has_no_person_never_signs_in() {
        let turns = Turns::new(false);
        for asked in [Asked::ByPerson, Asked::ByStream] {
            let turn = turns.next(0, None, "", asked, Now::read());
            assert!(matches!(turn, Turn::Told(Err(error)) if matches!(*error, LoginError::NotInteractive)));
        }
    }
}
