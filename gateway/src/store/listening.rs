//! Changes by other gateways: PostgreSQL tells of each, and what was kept of it for reading is forgotten.
//!
//! Nothing is kept while nobody tells: neither before the connection that listens is there, nor after it is lost, nor when it
//! says nothing to a question that is put to it each second.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError, database::ACQUIRE_TIMEOUT};
use crate::session::{SessionId, UserId};

/// Where the triggers of `migrations/postgres` tell.
const CHANNEL: &str = "pomerium_changes";
/// Without news for so long, the connection is asked whether it still lives.
const QUIET: Duration = Duration::from_secs(1);
/// For its answer. A dead network is noticed within `QUIET` and this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(500);

/// What a notification says.
#[derive(Debug, PartialEq, Eq)]
enum Changed {
    Session(SessionId),
    Device(UserId, String),
    /// What nothing is kept of.
    Other,
    /// It may concern anybody.
    Any,
}

impl Changed {
    fn parse(payload: &str) -> Self {
        let (kind, rest) = payload.split_once(' ').unwrap_or((payload, ""));
        match kind {
            "session" => Self::Session(SessionId::new(rest)),
            // The id of a device has no space; that of a person may.
            "device" => rest
                .split_once(' ')
                .map_or(Self::Any, |(id, user)| Self::Device(UserId::new(user), id.to_owned())),
            "other" => Self::Other,
            // Of a newer gateway, maybe.
            _ => Self::Any,
        }
    }
}

impl Store {
    /// Listens until `stop`, and again whenever the connection is lost.
    pub(super) async fn listen_for_changes(&self, options: &PgConnectOptions, stop: &CancellationToken) {
        let mut is_lost = false;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => None,
                ended = self.listen(options, &mut is_lost) => Some(ended),
            };
            self.hears(false);
            let Some(why) = ended else { return };
            if !std::mem::replace(&mut is_lost, true) {
                tracing::error!(
                    error = &why as &dyn std::error::Error,
                    "the session database is away: until it is back nobody has access by a session"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Listens on one connection, and says why it is over.
    async fn listen(&self, options: &PgConnectOptions, was_lost: &mut bool) -> StoreError {
        match self.hear_all(options, was_lost).await {
            Ok(()) => StoreError::Silent,
            Err(error) => error,
        }
    }

    async fn hear_all(&self, options: &PgConnectOptions, was_lost: &mut bool) -> Result<(), StoreError> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = pool.connect_lazy_with(options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        // What happens before it listens again is not told: the loss must be seen here.
        listener.eager_reconnect(false);
        let listening = tokio::time::timeout(ANSWER_TIMEOUT, listener.listen(CHANNEL));
        listening.await.map_err(|_| StoreError::Silent)??;
        self.hears(true);
        if std::mem::take(was_lost) {
            tracing::info!("the session database is back");
        }
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(notification) => match notification? {
                    Some(notification) => self.note(&Changed::parse(notification.payload())),
                    None => return Ok(()),
                },
                Err(_quiet) => {
                    let asked = sqlx::query("SELECT 1").execute(&mut listener);
                    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| StoreError::Silent)??;
                }
            }
        }
    }

    /// Reading from the cache begins, or ends, with nothing in it.
    fn hears(&self, is_current: bool) {
        if !is_current && !self.cache().is_current {
            // Nobody need be told again that nothing is known.
            return;
        }
        self.forget(|cache| {
            cache.is_current = is_current;
            cache.clear();
        });
    }

    fn note(&self, changed: &Changed) {
        self.forget(|cache| match changed {
            Changed::Session(id) => {
                cache.sessions.remove(id);
            }
            Changed::Device(user, id) => {
                cache.devices.remove(&(user.clone(), id.clone()));
            }
            Changed::Other => {}
            Changed::Any => cache.clear(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_names_what_to_forget_and_an_unknown_one_everything() {
        let device = |user: &str, id: &str| Changed::Device(UserId::new(user), id.to_owned());
        for (payload, changed) in [
            ("session s1", Changed::Session(SessionId::new("s1"))),
            ("device k-1 alice", device("alice", "k-1")),
            ("device k-1 auth0|alice b", device("auth0|alice b", "k-1")),
            ("device k-1", Changed::Any),
            ("other", Changed::Other),
            ("any", Changed::Any),
            ("", Changed::Any),
            ("from a later version", Changed::Any),
        ] {
            assert_eq!(Changed::parse(payload), changed, "{payload}");
        }
    }
}
