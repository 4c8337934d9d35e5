//! The network device of a daemon that may have one: on for one gateway, or off.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::gateways::{Account, Gateways, Served};
use crate::{
    access::{News, Route, random},
    cache::Cache,
    exit,
    failure::Failure,
    forward::{
        Seen,
        chosen::{Chosen, chosen},
    },
    gateway::Gateway,
    link::backoff::Backoff,
    local_api::wire::TunStatus,
    tun::{
        TunError, device, resolver,
        running::{Running, Standing},
    },
};

/// How long what runs on the device may take to end.
const OFF_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether somebody is signed in.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The device's place.
#[derive(Debug)]
pub(crate) struct Tun {
    state: Arc<Mutex<State>>,
    /// Held while the device goes on or off: one after the other.
    switch: tokio::sync::Mutex<()>,
    first: First,
}

/// How it goes on where nobody says.
#[derive(Debug)]
pub(crate) struct First {
    /// For the gateway that is named.
    pub(crate) named: Option<Gateway>,
    /// Else for the one that was used last.
    pub(crate) cache: Option<Cache>,
    /// Whether this machine asks there for names.
    pub(crate) dns: bool,
}

impl First {
    fn gateway(&self) -> Result<Option<Gateway>, Failure> {
        match (&self.named, &self.cache) {
            (Some(named), _) => Ok(Some(named.clone())),
            (None, Some(cache)) => Ok(cache.last_gateway()?),
            (None, None) => Ok(None),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    on: Option<On>,
    /// Why it is not on, in words.
    trouble: Option<String>,
    /// Somebody has switched it: it does not go on by itself any more.
    is_asked: bool,
}

/// What a gateway lists, and what it tells of that from then on.
pub(super) struct Listed {
    /// Asked for after `told` began to be listened to.
    pub(super) routes: Vec<Route>,
    pub(super) told: watch::Receiver<News>,
}

/// Who has it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A command.
    ByPerson,
    /// The daemon itself.
    ByNobody,
}

/// What runs.
#[derive(Debug)]
struct On {
    gateway: String,
    /// Of the routes, as they were asked for.
    names: Vec<String>,
    dns: bool,
    standing: Standing,
    stop: CancellationToken,
    task: TaskTracker,
}

impl Tun {
    /// A device that is off. What a killed predecessor left in the list of name servers is taken out.
    pub(crate) fn new(first: First) -> Self {
        match resolver::repair(Path::new(resolver::FILE)) {
            Ok(true) => {
                tracing::info!("the list of name servers is as it was before the last run was killed")
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the list of name servers may not be as it was"),
        }
        Self { state: Arc::default(), switch: tokio::sync::Mutex::default(), first }
    }

    /// Switches it on for the routes of a gateway that are named, or all; it stays as it is where that is what runs already.
    pub(super) async fn on(
        &self,
        served: &Arc<Served>,
        listed: Listed,
        names: &[String],
        dns: bool,
    ) -> Result<TunStatus, Failure> {
        let begun = self.begin(served, listed, names, dns, Asked::ByPerson).await;
        let mut state = self.lock();
        state.is_asked = true;
        state.trouble = begun.as_ref().err().map(exit::message);
        begun?;
        Ok(status_of(&state))
    }

    async fn begin(
        &self,
        served: &Arc<Served>,
        listed: Listed,
        names: &[String],
        dns: bool,
        asked: Asked,
    ) -> Result<(), Failure> {
        let gateway = served.reach.gateway();
        let chosen = chosen(&listed.routes, names, gateway)?;
        let _one_at_a_time = self.switch.lock().await;
        if asked == Asked::ByNobody && self.lock().is_asked {
            return Ok(());
        }
        let is_same = |on: &On| {
            let is_asked_so = on.gateway == gateway.to_string() && on.names == names && on.dns == dns;
            is_asked_so && on.standing.leads_to(&chosen)
        };
        if self.lock().on.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        self.end().await;
        let ledger = Arc::clone(&served.ledger);
        let hearing = move |route: &Chosen, _| {
            let (ledger, destination) = (Arc::clone(&ledger), route.leads().account());
            Arc::new(Account { ledger, destination }) as Arc<dyn Seen>
        };
        let reach = Arc::clone(&served.reach);
        let running = Running::begin(&chosen, names.to_vec(), dns, reach, Box::new(hearing)).await?;
        let (standing, stop, task) = (running.standing(), CancellationToken::new(), TaskTracker::new());
        tracing::info!(%gateway, hosts = standing.hosts(), asked_by = standing.asked_by, "TUN mode is on");
        let ending = serve(running, listed.told, Arc::clone(&self.state), stop.clone());
        let (gateway, names) = (gateway.to_string(), names.to_vec());
        let mut state = self.lock();
        state.on = Some(On { gateway, names, dns, standing, stop, task: task.clone() });
        state.trouble = None;
        drop(state);
        task.spawn(ending);
        task.close();
        Ok(())
    }

    /// Switches it off.
    pub(super) async fn off(&self) -> TunStatus {
        let _one_at_a_time = self.switch.lock().await;
        self.end().await;
        let mut state = self.lock();
        (state.trouble, state.is_asked) = (None, true);
        status_of(&state)
    }

    /// Switches it on by itself as soon as somebody is signed in, until anybody asks for something else; never returns.
    pub(super) async fn keep(&self, gateways: &Gateways) {
        let mut backoff = Backoff::default();
        loop {
            let begun = self.begin_alone(gateways).await;
            let pause = match &begun {
                Ok(()) => {
                    backoff = Backoff::default();
                    LOOK_INTERVAL
                }
                Err(_) => backoff.after_failure(random()).max(LOOK_INTERVAL),
            };
            let trouble = begun.as_ref().err().map(exit::message);
            let is_news = {
                let mut state = self.lock();
                let is_news = !state.is_asked && trouble.is_some() && state.trouble != trouble;
                if is_news {
                    state.trouble = trouble;
                }
                is_news
            };
            if let (true, Err(failure)) = (is_news, begun) {
                tracing::warn!(error = %exit::chain(&failure), "TUN mode is not on yet");
            }
            sleep(pause).await;
        }
    }

    async fn begin_alone(&self, gateways: &Gateways) -> Result<(), Failure> {
        let is_free = {
            let state = self.lock();
            !state.is_asked && state.on.is_none()
        };
        let gateway = if is_free { self.first.gateway()? } else { None };
        let Some(gateway) = gateway else { return Ok(()) };
        let served = gateways.at(&gateway.to_string())?;
        // Whoever keeps the link up dials; nobody waits for this.
        if !served.access().link().is_used() {
            return Ok(());
        }
        let told = served.access().news();
        // No window of a browser for something that nobody asks for.
        let Some(routes) = served.access().routes_at_hand().await? else { return Ok(()) };
        self.begin(&served, Listed { routes, told }, &[], self.first.dns, Asked::ByNobody).await
    }

    /// Ends for good.
    pub(super) async fn close(&self) {
        self.off().await;
    }

    /// How it fares.
    pub(super) fn status(&self) -> TunStatus {
        status_of(&self.lock())
    }

    async fn end(&self) {
        let on = self.lock().on.as_ref().map(|on| (on.stop.clone(), on.task.clone()));
        if let Some((stop, task)) = on {
            stop.cancel();
            let _late_ends_with_the_device = timeout(OFF_TIMEOUT, task.wait()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder leaves a state that is told wrongly at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs to its end, and says in the state how that was.
async fn serve(
    running: Running,
    told: watch::Receiver<News>,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
) {
    let stopped = async {
        stop.cancelled().await;
        Ok::<(), TunError>(())
    };
    let ended = running.run(told, stopped).await.map_err(Failure::from);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.on = None;
    match ended {
        Ok(()) => tracing::info!("TUN mode is off"),
        Err(failure) => {
            // Taken away by somebody: it comes back when somebody asks.
            state.is_asked = true;
            tracing::error!(error = %exit::chain(&failure), "TUN mode has ended");
            state.trouble = Some(exit::message(&failure));
        }
    }
}

fn status_of(state: &State) -> TunStatus {
    let device = device::NAME.to_owned();
    let trouble = state.trouble.clone();
    match &state.on {
        None => TunStatus { device, trouble, ..TunStatus::default() },
        Some(on) => TunStatus {
            device,
            gateway: Some(on.gateway.clone()),
            hosts: on.standing.hosts(),
            asked_by: Some(on.standing.asked_by.to_owned()),
            flows: on.standing.flows(),
            dropped: on.standing.dropped(),
            trouble,
        },
    }
}
