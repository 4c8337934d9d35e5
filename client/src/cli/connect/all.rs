//! `connect` to all routes: its listeners follow the gateway's list. A new route has its listener at once, and one that is listed no
//! more loses it; what is open on it is the gateway's to cut.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Running, bind_near, moved};
use crate::{
    access::Route,
    forward::{
        board::Row,
        chosen::{Chosen, of_list},
    },
    gateway::Gateway,
    link::answer::shown,
};

/// The listeners that are open.
pub(super) struct All {
    gateway: Gateway,
    open: Vec<Open>,
}

struct Open {
    route: Chosen,
    row: usize,
    accepting: CancellationToken,
}

impl All {
    /// None yet.
    pub(super) const fn of(gateway: Gateway) -> Self {
        Self { gateway, open: Vec::new() }
    }

    /// One that was opened for the list with which the command began.
    pub(super) fn add(&mut self, route: Chosen, row: usize, accepting: CancellationToken) {
        self.open.push(Open { route, row, accepting });
    }

    /// Follows the lists as they come; never returns.
    pub(super) async fn follow(
        &mut self,
        mut lists: watch::Receiver<Option<Arc<Vec<Route>>>>,
        running: &Running,
    ) {
        while lists.changed().await.is_ok() {
            let list = lists.borrow_and_update().clone();
            if let Some(list) = list {
                self.become_as(&of_list(&list, &self.gateway), running).await;
            }
        }
        std::future::pending().await
    }

    async fn become_as(&mut self, wanted: &[Chosen], running: &Running) {
        let is_same = |one: &Chosen, other: &Chosen| one.is_udp == other.is_udp && one.target == other.target;
        self.open.retain(|open| {
            let stays = wanted.iter().any(|route| is_same(route, &open.route));
            if !stays {
                open.accepting.cancel();
                let why = "the gateway lists it for you no more, its port is closed";
                running.board.remove(open.row, why);
            }
            stays
        });
        for route in wanted {
            if self.open.iter().any(|open| is_same(route, &open.route)) {
                continue;
            }
            let bound = match bind_near(route).await {
                Ok(bound) => bound,
                Err(failure) => {
                    running.board.tell(&format!(
                        "{}: {}",
                        shown(&route.name),
                        crate::exit::message(&failure)
                    ));
                    continue;
                }
            };
            let Ok(local) = bound.local() else { continue };
            if let Some(note) = moved(route, local) {
                running.board.tell(&note);
            }
            let destination = route.target.destination.to_string();
            let row = running.board.add(Row { name: route.name.clone(), local, destination, streams: 0 });
            self.add(route.clone(), row, running.start(row, bound));
        }
    }
}
