//! One sign-in at a time: for all streams of this process and for all processes of this user.
//!
//! Who finds its token stale comes here. The first one signs in; all others wait and take what it brought, as
//! [`turns`](super::turns) decides.

use std::{
    fs::{File, TryLockError},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pomerium_shared::clock::Now;
use tokio_util::task::TaskTracker;

use super::{
    LoginError,
    turns::{Asked, Renewed, Step, Turn, Turns, next_step},
};
use crate::{cache::Cache, gateway::Gateway, token::Token};

/// How often a process looks whether another one has finished signing in.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// The single flight of one gateway in this process.
#[derive(Debug)]
pub(crate) struct Flight {
    turns: Mutex<Turns>,
    /// Held while signing in.
    one: Arc<tokio::sync::Mutex<()>>,
    /// Where sign-ins live.
    tracker: TaskTracker,
}

impl Flight {
    /// No sign-in yet; `has_person` says whether anybody could sign in.
    pub(crate) fn new(has_person: bool, tracker: TaskTracker) -> Arc<Self> {
        let one = Arc::default();
        Arc::new(Self { turns: Mutex::new(Turns::new(has_person)), one, tracker })
    }

    /// The token of the last sign-in, where no cache keeps it.
    pub(crate) fn brought(&self) -> Option<Token> {
        self.turns().brought()
    }

    /// Forgets what the last sign-in brought: whoever signs out is signed out in this process, too.
    pub(crate) fn forget(&self) {
        self.turns().forget();
    }

    /// A token that is not the stale one: another's, or that of a sign-in made now, of which the route demands something.
    ///
    /// # Cancellation
    /// Cancel-safe, and the sign-in goes on: a program that leaves and comes again finds the same page waiting, in place of
    /// a second one.
    pub(crate) async fn renew<F>(
        self: &Arc<Self>,
        cache: Option<&Cache>,
        gateway: &Gateway,
        stale: Option<&Token>,
        demand: &str,
        asked: Asked,
        sign_in: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Renewed, Arc<LoginError>>
    where
        F: Future<Output = Result<Token, LoginError>> + Send + 'static,
    {
        let seen = self.turns().seen();
        let mine = Arc::clone(&self.one).lock_owned().await;
        let turn = self.turns().next(seen, stale, demand, asked, Now::read());
        if let Turn::Told(told) = turn {
            return told;
        }
        let (flight, cache) = (Arc::clone(self), cache.cloned());
        let (gateway, stale, demand) = (gateway.clone(), stale.cloned(), demand.to_owned());
        let going_on = self.tracker.spawn(async move {
            let outcome =
                across_processes(cache.as_ref(), &gateway, stale.as_ref(), sign_in).await.map_err(Arc::new);
            flight.turns().ended(outcome.clone(), demand, asked, Now::read());
            drop(mine);
            outcome
        });
        going_on.await.map_err(|failed| Arc::new(LoginError::Failed(failed)))?
    }

    /// The gateway did not take what a sign-in brought.
    pub(crate) fn disappointed(&self, demand: &str) {
        self.turns().disappointed(demand.to_owned(), Now::read());
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        // A panic of another holder leaves at worst one attempt uncounted.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn across_processes<F>(
    cache: Option<&Cache>,
    gateway: &Gateway,
    stale: Option<&Token>,
    sign_in: impl FnOnce() -> F,
) -> Result<Renewed, LoginError>
where
    F: Future<Output = Result<Token, LoginError>>,
{
    let Some(cache) = cache else {
        return Ok(Renewed { token: sign_in().await?, is_new: true });
    };
    let lock = match cache.sign_in_lock(gateway) {
        Ok(file) => wait_for(file).await,
        Err(error) => {
            tracing::warn!(%error, "no lock between processes: another one may ask you to sign in as well");
            None
        }
    };
    let cached = cache.token(gateway).unwrap_or_default();
    let renewed = match next_step(stale, cached) {
        Step::Take(token) => Renewed { token, is_new: false },
        Step::SignIn => {
            let token = sign_in().await?;
            if let Err(error) = cache.keep(gateway, &token) {
                tracing::warn!(%error, "the token could not be kept: the next run signs in again");
            }
            Renewed { token, is_new: true }
        }
    };
    drop(lock);
    Ok(renewed)
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::token::tests::token_until;

    fn gateway() -> Gateway {
        "a.example".parse().unwrap()
    }

    fn flight() -> Arc<Flight> {
        Flight::new(true, TaskTracker::new())
    }

    /// A sign-in page, and how often it was shown.
    #[derive(Default)]
    struct Page {
        shown: AtomicUsize,
        used: Notify,
    }

    impl Page {
        fn shown(&self) -> usize {
            self.shown.load(Ordering::SeqCst)
        }
    }

    async fn at_once(page: Arc<Page>, outcome: Result<Token, LoginError>) -> Result<Token, LoginError> {
        page.shown.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        outcome
    }

    #[tokio::test]
    async fn two_tasks_make_one_sign_in() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned());
        let (flight, page, gateway) = (flight(), Arc::<Page>::default(), gateway());
        let sign_in = || {
            let page = Arc::clone(&page);
            || at_once(page, Ok(token_until(9)))
        };
        let (a, b) = tokio::join!(
            flight.renew(Some(&cache), &gateway, None, "", Asked::ByStream, sign_in()),
            flight.renew(Some(&cache), &gateway, None, "", Asked::ByStream, sign_in()),
        );
        assert_eq!((a.unwrap().token, b.unwrap().token, page.shown()), (token_until(9), token_until(9), 1));
        assert_eq!(cache.token(&gateway).unwrap(), Some(token_until(9)));
    }

    #[tokio::test]
    async fn a_failed_sign_in_speaks_for_all_who_waited() {
        let (flight, page, gateway) = (flight(), Arc::<Page>::default(), gateway());
        let sign_in = |outcome| {
            let page = Arc::clone(&page);
            || at_once(page, outcome)
        };
        let left = || sign_in(Err(LoginError::TimedOut));
        let (a, b) = tokio::join!(
            flight.renew(None, &gateway, None, "", Asked::ByStream, left()),
            flight.renew(None, &gateway, None, "", Asked::ByStream, left()),
        );
        assert!(a.is_err() && b.is_err());
        assert_eq!(page.shown(), 1);
        let anew = || sign_in(Ok(token_until(9)));
        let later = flight.renew(None, &gateway, None, "", Asked::ByStream, anew()).await;
        assert!(later.is_err(), "the next connection opens no other window");
        let again = flight.renew(None, &gateway, None, "", Asked::ByPerson, anew()).await;
        assert_eq!(again.unwrap().token, token_until(9), "who asks for it may try again");
    }

    #[tokio::test]
    async fn a_program_that_leaves_and_comes_again_finds_the_same_page() {
        let (flight, page, gateway) = (flight(), Arc::<Page>::default(), gateway());
        let sign_in = || {
            let page = Arc::clone(&page);
            || async move {
                page.shown.fetch_add(1, Ordering::SeqCst);
                page.used.notified().await;
                Ok(token_until(9))
            }
        };
        let mut first = Box::pin(flight.renew(None, &gateway, None, "", Asked::ByStream, sign_in()));
        while page.shown() == 0 {
            tokio::select! {
                biased;
                _ended = &mut first => panic!("nobody has signed in"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(first);
        let second = flight.renew(None, &gateway, None, "", Asked::ByStream, sign_in());
        page.used.notify_one();
        assert_eq!((second.await.unwrap().token, page.shown()), (token_until(9), 1));
    }

    #[tokio::test]
    async fn two_processes_make_one_sign_in() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned());
        // Two flights share nothing but the files, as two processes do.
        let (one, other) = (flight(), flight());
        let (page, gateway, stale) = (Arc::<Page>::default(), gateway(), token_until(1));
        cache.keep(&gateway, &stale).unwrap();
        let sign_in = || {
            let page = Arc::clone(&page);
            || at_once(page, Ok(token_until(9)))
        };
        let (a, b) = tokio::join!(
            one.renew(Some(&cache), &gateway, Some(&stale), "", Asked::ByStream, sign_in()),
            other.renew(Some(&cache), &gateway, Some(&stale), "", Asked::ByStream, sign_in()),
        );
        assert_eq!((a.unwrap().token, b.unwrap().token, page.shown()), (token_until(9), token_until(9), 1));
    }
}
