//! How a command reaches a gateway: through this person's daemon while one runs, and by itself while none does.
//!
//! It is asked anew for each stream, so that a daemon that ends or begins in between loses no forward.

use std::{sync::Arc, time::Duration};

use pomerium_shared::{clock::Now, destination::Destination, relay::Leg};
use tokio::{sync::watch, time::sleep};

use crate::{
    access::{Access, Route},
    failure::Failure,
    forward::board::Board,
    gateway::Gateway,
    link::{Held, LinkError},
    local_api::{
        caller::{Caller, Line},
        wire::{Reply, Request},
    },
    login,
};

/// A daemon that ends, or is too old to follow, is asked again after this.
const FOLLOW_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often it is looked whether a daemon runs by now, which follows the gateway for all.
const DAEMON_LOOK_EVERY: Duration = Duration::from_secs(30);

/// A gateway, by whichever way there is.
#[derive(Debug)]
pub(crate) struct Reach {
    access: Arc<Access>,
    daemon: Option<Caller>,
}

impl Reach {
    /// Through the daemon that may answer there, else by itself.
    pub(crate) const fn new(access: Arc<Access>, daemon: Option<Caller>) -> Self {
        Self { access, daemon }
    }

    /// Which gateway.
    pub(crate) fn gateway(&self) -> &Gateway {
        self.access.gateway()
    }

    /// Whether there is a session that says it has not ended.
    pub(crate) fn is_signed_in(&self) -> bool {
        self.access.token_at_hand().is_some_and(|token| !token.is_expired(Now::read().wall))
    }

    /// The way without the daemon.
    pub(crate) const fn own(&self) -> &Arc<Access> {
        &self.access
    }

    /// The daemon, if it runs.
    pub(crate) async fn line(&self) -> Option<Line> {
        match &self.daemon {
            Some(daemon) => daemon.line().await,
            None => None,
        }
    }

    /// Opens a stream to an app.
    pub(crate) async fn connect(&self, to: &Destination) -> Result<Leg, Failure> {
        match self.line().await {
            Some(line) => line.open(self.gateway(), to, false, login::tell_page).await,
            None => self.access.connect(to).await,
        }
    }

    /// The same, but waits for a gateway that is gone for a while, up to `patience`.
    pub(crate) async fn connect_patiently(
        &self,
        to: &Destination,
        patience: Duration,
    ) -> Result<Leg, Failure> {
        match self.line().await {
            Some(line) => line.open(self.gateway(), to, true, login::tell_page).await,
            None => self.access.connect_patiently(to, patience).await,
        }
    }

    /// The routes that the gateway lists for this person.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, Failure> {
        let Some(mut line) = self.line().await else {
            return self.access.routes().await;
        };
        let request = Request::Routes { gateway: self.gateway().to_string() };
        match line.ask(request, login::tell_page).await? {
            Reply::Routes { routes } => Ok(routes),
            _ => Err(Failure::BadAnswer { what: "the list of routes" }),
        }
    }

    /// Follows the gateway's list of routes, and tells of a session that was ended; never returns. Through the daemon where
    /// one runs: it tells its person by itself.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn keep_following(
        &self,
        lists: &watch::Sender<Option<Arc<Vec<Route>>>>,
        tell: impl Fn(&str),
    ) {
        loop {
            if let Some(line) = self.line().await {
                line.follow(self.gateway(), |routes| _ = lists.send_replace(Some(Arc::new(routes)))).await;
                sleep(FOLLOW_AGAIN_AFTER).await;
                continue;
            }
            let mut news = self.access.news();
            news.mark_changed();
            let passing_on = async {
                while news.changed().await.is_ok() {
                    let routes = news.borrow_and_update().clone();
                    lists.send_if_modified(|list| {
                        let is_new = *list != routes;
                        *list = routes;
                        is_new
                    });
                }
            };
            tokio::select! {
                () = self.access.keep_following(&tell) => {}
                () = passing_on => {}
                () = self.daemon_begins() => {}
            }
        }
    }

    async fn daemon_begins(&self) {
        loop {
            sleep(DAEMON_LOOK_EVERY).await;
            if self.line().await.is_some() {
                return;
            }
        }
    }

    /// Keeps the way up and the board informed; never returns.
    ///
    /// # Cancellation
    /// Cancel-safe.
    pub(crate) async fn keep_up(&self, board: &Board) {
        loop {
            if let Some(line) = self.line().await {
                board.link("through the daemon");
                line.gone().await;
                tracing::info!("the daemon has ended: going on without it");
                continue;
            }
            match self.access.link().hold().await {
                Ok(Held::Connection(tunnel)) => {
                    board.link("connected");
                    let why = tunnel.ended().await;
                    tracing::debug!(error = %why, "the connection to the gateway ended");
                    board.link("reconnecting");
                }
                Ok(Held::EachByItself) => {
                    board.link("ready (TCP)");
                    sleep(Duration::from_secs(30)).await;
                }
                Err(error) => {
                    tracing::debug!(error = %crate::exit::chain(&error), "the gateway is not reached");
                    match error {
                        LinkError::Portal { .. } => {
                            if board.link("behind a captive portal") {
                                board.tell(&error.to_string());
                            }
                        }
                        error => _ = board.link(if error.may_pass() { "unreachable" } else { "not trusted" }),
                    }
                }
            }
        }
    }

    /// Says goodbye, where this process has a connection of its own.
    pub(crate) async fn close(&self) {
        self.access.link().close().await;
    }
}
