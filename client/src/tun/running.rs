//! TUN mode from its device to its last stream.

use std::{collections::BTreeMap, fmt, pin::pin, sync::Arc, time::Duration};

use pomerium_shared::{
    clock::Now,
    netstack::{
        flows::{Driver, Flows as Opened, Tally, netstack},
        stack::Stack,
    },
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    TunError,
    device::{self, Device},
    flows::{Flows, settings},
    names::Names,
    plan::Plan,
};
use crate::{forward::Seen, reach::Reach};

/// How long cut streams may take to tell their peers.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// The device with all that hangs on it.
pub(crate) struct Running {
    device: Device,
    names: Names,
    driver: Driver,
    opened: Opened,
    flows: Flows,
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
    /// Hosts that have addresses.
    pub(crate) hosts: usize,
    open: TaskTracker,
    tally: Tally,
}

impl Running {
    /// Makes the device, and has the system ask there for names. `seen` hears of each route's streams, in the order of the plan's rows.
    pub(crate) async fn begin(
        plan: Plan,
        uses_dns: bool,
        reach: Arc<Reach>,
        seen: Vec<Arc<dyn Seen>>,
    ) -> Result<Self, TunError> {
        let plan = Arc::new(plan);
        let device = device::open(&plan).await?;
        let names = if uses_dns { Names::begin(&plan).await? } else { Names::Untouched };
        let ours = Arc::clone(&plan);
        let stack = Stack::new(settings(), move |to| ours.is_ours(to), Now::read().monotonic);
        let (driver, opened) = netstack(stack);
        let (open, cut) = (TaskTracker::new(), CancellationToken::new());
        let flows = Flows { plan, reach, seen: seen.into(), open, cut };
        Ok(Self { device, names, driver, opened, flows })
    }

    /// How it fares, also later on.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            asked_by: self.names.asked_by(),
            hosts: self.flows.plan.addresses().count(),
            open: self.flows.open.clone(),
            tally: self.opened.tally(),
        }
    }

    /// Serves until `stopped`; then names are asked for as before, and what is open is cut.
    ///
    /// # Errors
    /// The device was taken away; or what `stopped` says.
    pub(crate) async fn run<E: From<TunError>>(
        self,
        stopped: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let Self { device, names, driver, opened, flows } = self;
        let (open, cut) = (flows.open.clone(), flows.cut.clone());
        let tally = opened.tally();
        let mut serving = pin!(flows.serve(device, driver, opened));
        let (ended, is_serving) = tokio::select! {
            ended = stopped => (ended, true),
            ended = &mut serving => (ended.map_err(|error| TunError::Gone(error).into()), false),
            () = names.keep() => (Ok(()), true),
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
        let dropped = told(&tally);
        if !dropped.is_empty() {
            tracing::info!(?dropped, "packets that the device was given and that lead nowhere");
        }
        ended
    }
}

impl Standing {
    /// Connections and flows of datagrams that live.
    pub(crate) fn flows(&self) -> usize {
        self.open.len()
    }

    /// What came out of the device and was thrown away, by reason.
    pub(crate) fn dropped(&self) -> BTreeMap<String, u64> {
        told(&self.tally)
    }
}

fn told(tally: &Tally) -> BTreeMap<String, u64> {
    tally.counters().seen().map(|(reason, count)| (reason.to_string(), count)).collect()
}
