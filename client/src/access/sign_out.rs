//! Signs out: here first, then at the gateway.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use pomerium_shared::clock::Now;
use tokio::time::timeout;

use super::Access;
use crate::{failure::Failure, link::LinkError, token::Token};

const SIGN_OUT_PATH: &str = "/.pomerium/sign_out";
/// How long the gateway may take to hear of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sign-out came to.
#[derive(Debug)]
pub(crate) struct SignedOut {
    /// Whether there was a token here; now there is none.
    pub(crate) had_one: bool,
    /// Why the session goes on at the gateway until it expires.
    pub(crate) untold: Option<Untold>,
}

/// Why a gateway has not ended a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untold {
    /// It could not be asked to.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It did something else.
    #[error("the gateway answered {0}")]
    Answer(StatusCode),
}

impl Access {
    /// Forgets every token of the gateway, and ends the session there that is this machine's alone. Others are the browser's
    /// too.
    ///
    /// # Errors
    /// A token could not be removed from this machine.
    pub(crate) async fn sign_out(&self) -> Result<SignedOut, Failure> {
        let held = self.token_of_this_machine();
        // First: whatever becomes of the gateway, nothing of the session stays here, and what it tells of its end is no news.
        let forgotten = self.forget();
        let untold = match &held {
            Some(token) => self.end_session(token).await.err(),
            None => None,
        };
        Ok(SignedOut { had_one: forgotten?, untold })
    }

    /// The token of a session that may live, and is worth nothing on another machine.
    fn token_of_this_machine(&self) -> Option<Token> {
        let cache = self.cache.clone().map(|cache| cache.for_device());
        let kept = cache.and_then(|cache| cache.token(self.gateway()).ok().flatten());
        let token = kept.or_else(|| self.flight.brought())?;
        let may_live = !token.is_expired(Now::read().wall);
        (token.bound_to().is_some() && may_live).then_some(token)
    }

    /// Forgets every token of the gateway; says whether there was one.
    fn forget(&self) -> Result<bool, Failure> {
        let had_one = self.flight.brought().is_some();
        self.flight.forget();
        let Some(cache) = &self.cache else { return Ok(had_one) };
        let programs = cache.clone().for_programs().forget_any(self.gateway());
        // One that cannot be removed keeps no other.
        let device = cache.clone().for_device().forget_any(self.gateway());
        Ok(had_one | programs? | device?)
    }

    async fn end_session(&self, token: &Token) -> Result<(), Untold> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.authorization());
        let asked = timeout(PATIENCE, self.link.get(SIGN_OUT_PATH, headers)).await;
        let status = asked.unwrap_or_else(|_| Err(self.link.no_answer()))?.status();
        // Who brings no living session is refused, or sent to sign in.
        let was_over = status == StatusCode::UNAUTHORIZED || status.is_redirection();
        if status.is_success() || was_over { Ok(()) } else { Err(Untold::Answer(status)) }
    }
}
