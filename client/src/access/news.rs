//! Follows what the gateway tells unasked: an answer that goes on for as long as the session and the connection do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use pomerium_shared::{
    clock::Now,
    events::{self, Ended, Event, Lines, PING_EVERY},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Access, Route, random};
use crate::{
    link::{LinkError, Streamed, backoff::Backoff},
    token::Token,
};

/// Between two looks whether there is anything to follow: a session, on a link that is in use.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A gateway that has said nothing for so long is gone, or the way to it is.
const SILENCE_MAX: Duration = PING_EVERY.saturating_mul(3);
/// How long a gateway without events is left alone.
const WITHOUT_EVENTS: Duration = Duration::from_secs(10 * 60);

/// The routes that the gateway lists for this person, the newest list alone; `None` while nothing was heard.
pub(crate) type News = Option<Arc<Vec<Route>>>;

/// How one answer ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The session is over.
    Over(Ended),
    /// Ask again, with the token that is at hand then.
    Again,
    /// The gateway does not take this token: the next stream renews it.
    Refused,
    /// The gateway does not know of events.
    Unknown,
}

impl Access {
    /// What the gateway tells, as it comes.
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Follows the gateway's events while there is a session and the link is in use, and tells of a session that was ended;
    /// never returns, never signs in, and dials for nothing.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn keep_following(&self, tell: impl Fn(&str)) {
        let (mut backoff, mut refused) = (Backoff::default(), None);
        loop {
            let token = self.link.is_used().then(|| self.token_at_hand()).flatten();
            let Some(token) = token.filter(|token| refused.as_ref() != Some(token)) else {
                sleep(LOOK_EVERY).await;
                continue;
            };
            let began = Now::read().monotonic;
            let ended = self.follow(&token).await;
            // A gateway that answers and hangs up at once is not asked again and again.
            if Now::read().monotonic.saturating_duration_since(began) >= PING_EVERY {
                backoff = Backoff::default();
            }
            match ended {
                Ok(End::Over(why)) => {
                    if self.token_at_hand().as_ref() == Some(&token) {
                        self.is_over(&token, why, &tell);
                    }
                }
                Ok(End::Again) => {}
                Ok(End::Refused) => refused = Some(token),
                Ok(End::Unknown) => sleep(WITHOUT_EVENTS).await,
                Err(error) => {
                    tracing::debug!(error = %crate::exit::chain(&error), "no events of the gateway")
                }
            }
            sleep(backoff.after_failure(random())).await;
        }
    }

    async fn follow(&self, token: &Token) -> Result<End, LinkError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.authorization());
        let answer = self.link.get_streamed(events::PATH, headers).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(End::Unknown),
            StatusCode::UNAUTHORIZED => return Ok(End::Refused),
            // Too many listeners are as good as a gateway that is gone.
            _ => return Err(self.link.no_answer()),
        }
        let mut body = answer.into_body();
        // What has happened between two answers is not told.
        self.look_at_routes(token).await;
        let mut lines = Lines::default();
        loop {
            let piece = self.piece(&mut body).await?;
            let Some(piece) = piece else { return Ok(End::Again) };
            if lines.push(&piece).is_err() {
                return Err(self.link.no_answer());
            }
            while let Some(event) = lines.next() {
                match event {
                    Ok(Event::Routes) => self.look_at_routes(token).await,
                    Ok(Event::Ended { reason }) => return Ok(End::Over(reason)),
                    Ok(Event::Draining) => return Ok(End::Again),
                    Ok(Event::Ping | Event::Session { .. } | Event::Unknown) => {}
                    Err(_) => return Err(self.link.no_answer()),
                }
            }
            if self.token_at_hand().as_ref() != Some(token) {
                return Ok(End::Again);
            }
        }
    }

    async fn piece(&self, body: &mut Streamed) -> Result<Option<Bytes>, LinkError> {
        heard(body.next(&self.link)).await.unwrap_or_else(|| Err(self.link.no_answer()))
    }

    /// Asks for the list of routes as it is now. One that cannot be had changes nothing.
    async fn look_at_routes(&self, token: &Token) {
        match self.routes_of(token).await {
            Ok(Some(routes)) => drop(self.news.send_replace(Some(Arc::new(routes)))),
            _ => tracing::debug!("the list of routes could not be had"),
        }
    }

    /// Forgets the token of a session that the gateway says is over: no status calls it signed in any more.
    fn is_over(&self, token: &Token, why: Ended, tell: impl Fn(&str)) {
        if self.flight.brought().as_ref() == Some(token) {
            self.flight.forget();
        }
        if let Some(cache) = &self.cache
            && let Err(error) = cache.forget(self.gateway(), token)
        {
            tracing::warn!(%error, "a dead token stays in the cache");
        }
        if !self.can_sign_in() {
            return;
        }
        tell(match why {
            Ended::Expired => "the session has expired; run pomerium-cli login to go on",
            Ended::Revoked | Ended::Unknown => {
                "the session was ended; run pomerium-cli login to sign in again"
            }
        });
    }
}

/// What the gateway says next; `None`: it was silent for too long.
async fn heard<T>(next: impl Future<Output = T>) -> Option<T> {
    timeout(SILENCE_MAX, next).await.ok()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_pings_is_there_and_one_that_has_missed_three_pings_is_gone() {
        for _ in 0..10 {
            assert!(heard(sleep(PING_EVERY)).await.is_some());
        }
        let began = Instant::now();
        assert_eq!(heard(pending::<()>()).await, None);
        assert_eq!(began.elapsed(), 3 * PING_EVERY);
    }
}
