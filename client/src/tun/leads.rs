//! Where the device leads now: the plan, and what hangs on each of its routes. Replaced as a whole when the gateway's list changes;
//! a route that stays keeps what is open.

use std::{fmt, net::SocketAddr, sync::Arc};

use pomerium_shared::destination::Destination;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::plan::{Carries, Plan};
use crate::forward::{Seen, chosen::Chosen};

/// Says who hears of the streams of a route that programs find at an address.
pub(crate) type Hearing = dyn Fn(&Chosen, SocketAddr) -> Arc<dyn Seen> + Send + Sync;

/// One route of the device.
#[derive(Debug, Clone)]
pub(crate) struct Lead {
    /// Who hears of its streams.
    pub(crate) seen: Arc<dyn Seen>,
    /// Owns what is open to it.
    pub(crate) open: TaskTracker,
    /// Cuts that, once the route is no more.
    pub(crate) gone: CancellationToken,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Leads {
    chosen: Vec<Chosen>,
    plan: Plan,
    /// By the plan's rows; `None` has no place in it.
    rows: Vec<Option<Lead>>,
}

impl fmt::Debug for Leads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leads").field("chosen", &self.chosen).finish_non_exhaustive()
    }
}

impl Leads {
    /// Those after these, by a plan that was made for what is chosen now.
    pub(crate) fn next(&self, chosen: &[Chosen], plan: Plan, hearing: &Hearing) -> Self {
        let lead = |route: &Chosen| {
            let to = &route.target.destination;
            let local = SocketAddr::from((plan.addresses_of(to)?.v4, to.port()));
            let begun = || Lead {
                seen: hearing(route, local),
                open: TaskTracker::new(),
                gone: CancellationToken::new(),
            };
            Some(self.lead_of(route).cloned().unwrap_or_else(begun))
        };
        let rows = chosen.iter().map(lead).collect();
        Self { chosen: chosen.to_vec(), plan, rows }
    }

    /// The addresses.
    pub(crate) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether these are what is chosen.
    pub(crate) fn are(&self, chosen: &[Chosen]) -> bool {
        self.chosen == chosen
    }

    /// Where a flow leads; `None` is a port that no route has.
    pub(crate) fn way(&self, carries: Carries, to: SocketAddr) -> Option<(Destination, Lead)> {
        let way = self.plan.way(carries, to)?;
        Some((way.to, self.rows.get(way.row)?.clone()?))
    }

    /// Those that are not among the later ones.
    pub(crate) fn missing_in<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a Lead> {
        let all = self.chosen.iter().zip(&self.rows);
        all.filter(|(route, _)| later.lead_of(route).is_none()).filter_map(|(_, lead)| lead.as_ref())
    }

    fn lead_of(&self, wanted: &Chosen) -> Option<&Lead> {
        let is_same = |route: &Chosen| route.is_udp == wanted.is_udp && route.target == wanted.target;
        let row = self.chosen.iter().position(is_same)?;
        self.rows.get(row)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Seen for Nobody {
        fn began(&self) {}
        fn ended(&self, _: u64, _: u64, _: &str) {}
        fn refused(&self, _: &Destination, _: &str) {}
    }

    fn chosen(all: &[&str]) -> Vec<Chosen> {
        let of = |text: &&str| Chosen {
            name: (*text).to_owned(),
            is_udp: text.ends_with(":53"),
            target: text.parse().unwrap(),
        };
        all.iter().map(of).collect()
    }

    #[test]
    fn a_route_that_stays_keeps_its_streams_and_address_and_one_that_goes_is_missing() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let hearing = move |route: &Chosen, local: SocketAddr| {
            hears.lock().unwrap().push(format!("{} at {}", route.name, local.port()));
            Arc::new(Nobody) as Arc<dyn Seen>
        };
        let next = |leads: &Leads, all: &[&str]| {
            let chosen = chosen(all);
            leads.next(&chosen, leads.plan.next(&chosen), &hearing)
        };
        let first = next(&Leads::default(), &["db.example:5432", "10.0.0.1:22", "dns.example:53"]);
        let address = first.plan.addresses_of(&"db.example:5432".parse().unwrap()).unwrap();
        let (_, lead) = first.way(Carries::Tcp, (address.v4, 5432).into()).unwrap();
        let later = next(&first, &["new.example:1", "db.example:5432"]);
        let (to, same) = later.way(Carries::Tcp, (address.v4, 5432).into()).unwrap();
        assert_eq!(to.to_string(), "db.example:5432");
        lead.gone.cancel();
        assert!(same.gone.is_cancelled(), "it is the same one");
        assert_eq!(first.missing_in(&later).count(), 1, "the bare address had no place");
        assert_eq!(later.missing_in(&first).count(), 1);
        let heard = heard.lock().unwrap().join(", ");
        assert_eq!(heard, "db.example:5432 at 5432, dns.example:53 at 53, new.example:1 at 1", "once each");
        assert!(later.are(&chosen(&["new.example:1", "db.example:5432"])));
    }
}
