//! TUN mode from its device to its last stream.

use std::{collections::BTreeMap, fmt, pin::pin, sync::Arc, time::Duration};

use pomerium_shared::{
    clock::Now,
    netstack::{
        flows::{Driver, Flows as Opened, Tally, netstack},
        stack::Stack,
    },
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    TunError,
    device::{self, Device},
    flows::{Flows, settings},
    leads::{Hearing, Leads},
    names::Names,
    plan::Plan,
};
use crate::{
    access::News,
    exit,
    forward::chosen::{Chosen, listed},
    gateway::Gateway,
    reach::Reach,
};

/// How long cut streams may take to tell their peers.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// The device with all that hangs on it.
pub(crate) struct Running {
    device: Device,
    names: Names,
    driver: Driver,
    opened: Opened,
    flows: Flows,
    follows: Follows,
}

/// What makes the device follow the gateway's list.
struct Follows {
    leads: watch::Sender<Arc<Leads>>,
    gateway: Gateway,
    /// Of the routes to lead to; all if there are none.
    names: Vec<String>,
    hearing: Box<Hearing>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("names", &self.names).finish_non_exhaustive()
    }
}

/// How it fares, for whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Who asks here for names.
    pub(crate) asked_by: &'static str,
    leads: watch::Receiver<Arc<Leads>>,
    open: TaskTracker,
    tally: Tally,
}

impl Running {
    /// Makes the device for what was chosen of the gateway's list by these names, and has the system ask there for names.
    pub(crate) async fn begin(
        chosen: &[Chosen],
        names: Vec<String>,
        uses_dns: bool,
        reach: Arc<Reach>,
        hearing: Box<Hearing>,
    ) -> Result<Self, TunError> {
        let leads = Leads::default().next(chosen, Plan::default().next(chosen), &hearing);
        let device = device::open(leads.plan()).await?;
        let asked_by = if uses_dns { Names::begin(leads.plan()).await? } else { Names::Untouched };
        let gateway = reach.gateway().clone();
        let follows = Follows { leads: watch::Sender::new(Arc::new(leads)), gateway, names, hearing };
        let ours = follows.leads.subscribe();
        let stack = Stack::new(settings(), move |to| ours.borrow().plan().is_ours(to), Now::read().monotonic);
        let (driver, opened) = netstack(stack);
        let (open, cut) = (TaskTracker::new(), CancellationToken::new());
        let flows = Flows { leads: follows.leads.subscribe(), reach, open, cut };
        Ok(Self { device, names: asked_by, driver, opened, flows, follows })
    }

    /// How it fares, also later on.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            asked_by: self.names.asked_by(),
            leads: self.follows.leads.subscribe(),
            open: self.flows.open.clone(),
            tally: self.opened.tally(),
        }
    }

    /// Serves until `stopped`, and follows the gateway's list as it is `told`; then names are asked for as before, and what is open
    /// is cut.
    ///
    /// # Errors
    /// The device was taken away; or what `stopped` says.
    pub(crate) async fn run<E: From<TunError>>(
        self,
        told: watch::Receiver<News>,
        stopped: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let Self { device, mut names, driver, opened, flows, follows } = self;
        let (open, cut) = (flows.open.clone(), flows.cut.clone());
        let tally = opened.tally();
        let mut serving = pin!(flows.serve(device, driver, opened));
        let (ended, is_serving) = tokio::select! {
            ended = stopped => (ended, true),
            ended = &mut serving => (ended.map_err(|error| TunError::Gone(error).into()), false),
            () = follows.keep(&mut names, told) => (Ok(()), true),
        };
        // The device stays until nobody asks there any more.
        names.end().await;
        cut.cancel();
        open.close();
        let cutting = async {
            tokio::select! {
                _ = &mut serving, if is_serving => {}
                () = open.wait() => {}
            }
        };
        // What does not end by then ends with the device.
        let _late = timeout(CUT_TIMEOUT, cutting).await;
        let dropped = by_reason(&tally);
        if !dropped.is_empty() {
            tracing::info!(?dropped, "packets that the device was given and that lead nowhere");
        }
        ended
    }
}

impl Follows {
    /// Keeps names asked for here, and makes the device lead where the newest list says; never returns.
    async fn keep(&self, names: &mut Names, mut told: watch::Receiver<News>) {
        loop {
            tokio::select! {
                () = names.keep() => {}
                changed = told.changed() => {
                    if changed.is_err() {
                        return names.keep().await;
                    }
                    let Some(routes) = told.borrow_and_update().clone() else { continue };
                    let chosen = listed(&routes, &self.names, &self.gateway);
                    if let Err(error) = self.lead_to(&chosen, names).await {
                        tracing::warn!(error = %exit::chain(&error), "the device does not follow the list of routes");
                    }
                }
            }
        }
    }

    /// Leads to these routes from now on. Where it fails, it is tried again with the next list.
    async fn lead_to(&self, chosen: &[Chosen], names: &mut Names) -> Result<(), TunError> {
        let old = Arc::clone(&self.leads.borrow());
        if old.are(chosen) {
            return Ok(());
        }
        let plan = old.plan().next(chosen);
        let (come, gone) = (plan.beside(old.plan()), old.plan().beside(&plan));
        // First: no name may lead to an address whose packets go elsewhere.
        device::capture(&come).await?;
        let new = Arc::new(old.next(chosen, plan, &self.hearing));
        self.leads.send_replace(Arc::clone(&new));
        tracing::info!(hosts = new.plan().addresses().count(), "the device follows the list of routes");
        let are_asked_for = names.change(new.plan()).await;
        for lead in old.missing_in(&new) {
            lead.gone.cancel();
            lead.open.close();
        }
        // Programs are told by packets that still find their way back.
        let cutting = async {
            for lead in old.missing_in(&new) {
                lead.open.wait().await;
            }
        };
        let _late = timeout(CUT_TIMEOUT, cutting).await;
        old.missing_in(&new).for_each(|lead| lead.seen.gone());
        device::release(&gone).await.and(are_asked_for)
    }
}

impl Standing {
    /// Hosts that have addresses.
    pub(crate) fn hosts(&self) -> usize {
        self.leads.borrow().plan().addresses().count()
    }

    /// Whether the device leads to these routes now.
    pub(crate) fn leads_to(&self, chosen: &[Chosen]) -> bool {
        self.leads.borrow().are(chosen)
    }

    /// Connections and flows of datagrams that live.
    pub(crate) fn flows(&self) -> usize {
        self.open.len()
    }

    /// What came out of the device and was thrown away, by reason.
    pub(crate) fn dropped(&self) -> BTreeMap<String, u64> {
        by_reason(&self.tally)
    }
}

fn by_reason(tally: &Tally) -> BTreeMap<String, u64> {
    tally.counters().seen().map(|(reason, count)| (reason.to_string(), count)).collect()
}
