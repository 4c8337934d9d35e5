//! One sign-in at a time: for all streams of this process and for all processes of this user.
//!
//! Who finds its token stale comes here. The first one signs in; all others wait and take what it brought.

use std::{
    fs::{File, TryLockError},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pomerium_shared::clock::Now;
use tokio::sync::Mutex;

use super::LoginError;
use crate::{cache::Cache, gateway::Gateway, token::Token};

/// How often a process looks whether another one has finished signing in.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// How long nobody who was left waiting at a sign-in page is shown another one, unless they ask for it.
const COOL_DOWN: Duration = Duration::from_secs(10 * 60);

/// Who wants a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A person, by a command that signs in.
    ByPerson,
    /// A program, which opened a connection.
    ByStream,
}

/// How an attempt ended, and when.
#[derive(Debug)]
struct Ended {
    outcome: Result<Token, Arc<LoginError>>,
    at: Now,
}

impl Ended {
    /// What it says to a program that comes later: a person who let one page go by is not shown a page a connection.
    fn speaks_to(&self, asked: Asked, now: Now) -> Option<Arc<LoginError>> {
        let error = self.outcome.as_ref().err().filter(|error| error.is_of_the_person())?;
        let passed = now.monotonic.saturating_duration_since(self.at.monotonic);
        (asked == Asked::ByStream && passed < COOL_DOWN).then(|| Arc::clone(error))
    }
}

/// What to do when a token was stale and the cache was read again under the lock.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Someone else signed in meanwhile.
    Take(Token),
    /// The cache has nothing newer: sign in.
    SignIn,
}

fn next_step(stale: Option<&Token>, cached: Option<Token>) -> Step {
    match cached {
        Some(token) if Some(&token) != stale => Step::Take(token),
        _ => Step::SignIn,
    }
}

/// The single flight of one gateway in this process.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// How many attempts have ended.
    ended: AtomicU64,
    /// Held while signing in: what the last attempt brought.
    last: Mutex<Option<Ended>>,
}

impl Flight {
    /// The token of the last sign-in, where no cache keeps it; `None` while one is going on.
    pub(crate) fn brought(&self) -> Option<Token> {
        self.last.try_lock().ok()?.as_ref()?.outcome.as_ref().ok().cloned()
    }

    /// Forgets what the last sign-in brought: whoever signs out is signed out in this process, too.
    pub(crate) fn forget(&self) {
        // One that is going on has brought nothing yet.
        if let Ok(mut last) = self.last.try_lock() {
            *last = None;
        }
    }

    /// A token that is not the stale one: another's, or that of a sign-in made now.
    ///
    /// # Cancellation
    /// Cancel-safe: a dropped attempt frees both locks, and the next one waiting makes its own.
    pub(crate) async fn renew<F>(
        &self,
        cache: Option<&Cache>,
        gateway: &Gateway,
        stale: Option<&Token>,
        asked: Asked,
        sign_in: impl FnOnce() -> F,
    ) -> Result<Token, Arc<LoginError>>
    where
        F: Future<Output = Result<Token, LoginError>>,
    {
        let seen = self.ended.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        // An attempt that ended while this one waited speaks for both, also when it failed:
        // ten waiting connections must not open ten browser windows one after another.
        if self.ended.load(Ordering::Acquire) != seen
            && let Some(ended) = last.as_ref()
        {
            return ended.outcome.clone();
        }
        if let Some(Ok(token)) = last.as_ref().map(|ended| &ended.outcome)
            && Some(token) != stale
        {
            return Ok(token.clone());
        }
        if let Some(error) = last.as_ref().and_then(|ended| ended.speaks_to(asked, Now::read())) {
            return Err(error);
        }
        let outcome = across_processes(cache, gateway, stale, sign_in).await.map_err(Arc::new);
        *last = Some(Ended { outcome: outcome.clone(), at: Now::read() });
        self.ended.fetch_add(1, Ordering::Release);
        outcome
    }
}

async fn across_processes<F>(
    cache: Option<&Cache>,
    gateway: &Gateway,
    stale: Option<&Token>,
    sign_in: impl FnOnce() -> F,
) -> Result<Token, LoginError>
where
    F: Future<Output = Result<Token, LoginError>>,
{
    let Some(cache) = cache else {
        return sign_in().await;
    };
    let lock = match cache.sign_in_lock(gateway) {
        Ok(file) => wait_for(file).await,
        Err(error) => {
            tracing::warn!(%error, "no lock between processes: another one may ask you to sign in as well");
            None
        }
    };
    let cached = cache.token(gateway).unwrap_or_default();
    let token = match next_step(stale, cached) {
        Step::Take(token) => token,
        Step::SignIn => {
            let token = sign_in().await?;
            if let Err(error) = cache.keep(gateway, &token) {
                tracing::warn!(%error, "the token could not be kept: the next run signs in again");
            }
            token
        }
    };
    drop(lock);
    Ok(token)
}

/// Waits for the lock without holding a thread, so that Ctrl-C ends the wait at once.
async fn wait_for(file: File) -> Option<File> {
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    tracing::info!("another pomerium-cli is signing in: waiting for it");
                    told = true;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "this file system has no locks");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::token::tests::token_until;

    fn gateway() -> Gateway {
        "a.example".parse().unwrap()
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

    #[tokio::test]
    async fn two_tasks_make_one_sign_in() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned());
        let (flight, count) = (Flight::default(), Cell::new(0));
        let sign_in = || async {
            count.set(count.get() + 1);
            tokio::task::yield_now().await;
            Ok(token_until(9))
        };
        let gateway = gateway();
        let (a, b) = tokio::join!(
            flight.renew(Some(&cache), &gateway, None, Asked::ByStream, sign_in),
            flight.renew(Some(&cache), &gateway, None, Asked::ByStream, sign_in),
        );
        assert_eq!((a.unwrap(), b.unwrap(), count.get()), (token_until(9), token_until(9), 1));
        assert_eq!(cache.token(&gateway).unwrap(), Some(token_until(9)));
    }

    #[tokio::test]
    async fn a_failed_sign_in_speaks_for_all_who_waited() {
        let (flight, count) = (Flight::default(), Cell::new(0));
        let sign_in = || async {
            count.set(count.get() + 1);
            tokio::task::yield_now().await;
            Err(LoginError::TimedOut)
        };
        let gateway = gateway();
        let (a, b) = tokio::join!(
            flight.renew(None, &gateway, None, Asked::ByStream, sign_in),
            flight.renew(None, &gateway, None, Asked::ByStream, sign_in),
        );
        assert!(a.is_err() && b.is_err());
        assert_eq!(count.get(), 1);
        let anew = || async { Ok(token_until(9)) };
        let later = flight.renew(None, &gateway, None, Asked::ByStream, anew).await;
        assert!(later.is_err(), "the next connection opens no other window");
        let again = flight.renew(None, &gateway, None, Asked::ByPerson, anew).await;
        assert_eq!(again.unwrap(), token_until(9), "who asks for it may try again");
    }

    #[test]
    fn a_page_that_nobody_used_speaks_for_a_while_and_other_failures_do_not() {
        let now = Now::read();
        let after = |passed| Now { monotonic: now.monotonic + passed, ..now };
        let ended = |error| Ended { outcome: Err(Arc::new(error)), at: now };
        let left = ended(LoginError::TimedOut);
        assert!(left.speaks_to(Asked::ByStream, after(COOL_DOWN / 2)).is_some());
        assert!(left.speaks_to(Asked::ByPerson, after(COOL_DOWN / 2)).is_none());
        assert!(left.speaks_to(Asked::ByStream, after(COOL_DOWN)).is_none());
        assert!(ended(LoginError::BadAddress).speaks_to(Asked::ByStream, now).is_none());
        assert!(Ended { outcome: Ok(token_until(9)), at: now }.speaks_to(Asked::ByStream, now).is_none());
    }

    #[tokio::test]
    async fn two_processes_make_one_sign_in() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned());
        // Two flights share nothing but the files, as two processes do.
        let (one, other) = (Flight::default(), Flight::default());
        let count = Cell::new(0);
        let stale = token_until(1);
        cache.keep(&gateway(), &stale).unwrap();
        let sign_in = || async {
            count.set(count.get() + 1);
            tokio::task::yield_now().await;
            Ok(token_until(9))
        };
        let gateway = gateway();
        let (a, b) = tokio::join!(
            one.renew(Some(&cache), &gateway, Some(&stale), Asked::ByStream, sign_in),
            other.renew(Some(&cache), &gateway, Some(&stale), Asked::ByStream, sign_in),
        );
        assert_eq!((a.unwrap(), b.unwrap(), count.get()), (token_until(9), token_until(9), 1));
    }
}
