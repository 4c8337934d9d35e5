//! What the proxy leads to: the TCP routes that the gateway lists for this person. Whether they may use one is decided by the
//! gateway anew for each stream.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pomerium_shared::{clock::Now, destination::Destination};

use crate::{access::Route, failure::Failure, reach::Reach, target::Target};

/// How old the list may be before it is asked for again, if somebody needs it.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// How soon a name that is not on the list may have it asked for again: a route that was made just now is found.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The list, as it was heard last.
#[derive(Debug)]
pub(super) struct Names {
    reach: Arc<Reach>,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    routes: Arc<BTreeSet<Destination>>,
    asked: Option<Instant>,
}

impl Names {
    pub(super) fn of(reach: Arc<Reach>) -> Self {
        Self { reach, heard: Mutex::default() }
    }

    /// Whether this is one of the gateway's.
    pub(super) async fn has(&self, destination: &Destination) -> Result<bool, Failure> {
        let known = self.known().contains(destination);
        let patience = if known { STALE_AFTER } else { AGAIN_AFTER };
        Ok(self.fresh(patience).await?.contains(destination))
    }

    /// The list, no older than a minute if the gateway can be asked without a sign-in.
    pub(super) async fn all(&self) -> Arc<BTreeSet<Destination>> {
        if !self.reach.is_signed_in() {
            return self.known();
        }
        self.fresh(STALE_AFTER).await.unwrap_or_else(|failure| {
            tracing::debug!(error = %crate::exit::chain(&failure), "the routes are not listed");
            self.known()
        })
    }

    async fn fresh(&self, age_max: Duration) -> Result<Arc<BTreeSet<Destination>>, Failure> {
        let now = Now::read().monotonic;
        {
            let mut heard = self.lock();
            let is_fresh = heard.asked.is_some_and(|asked| now.saturating_duration_since(asked) < age_max);
            if is_fresh {
                return Ok(Arc::clone(&heard.routes));
            }
            // Before the question, so that a crowd asks once; a failure is no answer, and is asked about again.
            heard.asked.replace(now);
        }
        match self.reach.routes().await {
            Ok(routes) => {
                let routes = Arc::new(listed(&routes));
                self.lock().routes = Arc::clone(&routes);
                Ok(routes)
            }
            Err(failure) => {
                self.lock().asked = None;
                Err(failure)
            }
        }
    }

    fn known(&self) -> Arc<BTreeSet<Destination>> {
        Arc::clone(&self.lock().routes)
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        // A panic of another holder leaves at worst an old list.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listed(routes: &[Route]) -> BTreeSet<Destination> {
    let tcp = routes.iter().filter(|route| route.kind == "tcp");
    tcp.filter_map(|route| Some(route.from.parse::<Target>().ok()?.destination)).collect()
}
