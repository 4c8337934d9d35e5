//! `connect --tun`: routes by their names and own ports, through a network device, until Ctrl-C.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use pomerium_shared::names::Host;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connect::{Chosen, stop_signal, tell};
use crate::{
    failure::Failure,
    forward::board::{Board, Row},
    link::answer::shown,
    reach::Reach,
    tun::{
        TunError, device,
        flows::Flows,
        plan::{Carries, Plan, RESOLVER},
        resolver::{self, Redirected},
    },
};

/// How long cut streams may take to tell their peers.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves the routes on a device of its own until Ctrl-C, which ends what is open.
pub(super) async fn serve(
    reach: Arc<Reach>,
    mut chosen: Vec<Chosen>,
    uses_dns: bool,
    connections: TaskTracker,
) -> Result<(), Failure> {
    chosen.retain(|route| {
        let has_name = route.target.destination.host().parse::<Host>().is_ok();
        if !has_name {
            tell(&format!(
                "note: {} is a bare address, which has no name to ask for: use pomerium-cli tcp",
                shown(&route.name)
            ));
        }
        has_name
    });
    let carries = |route: &Chosen| if route.is_udp { Carries::Udp } else { Carries::Tcp };
    let plan = Arc::new(Plan::new(chosen.iter().map(|route| (carries(route), &route.target.destination))));
    let rows = chosen.into_iter().filter_map(|route| {
        let to = route.target.destination;
        let local = SocketAddr::from((plan.addresses_of(&to)?.v4, to.port()));
        Some(Row { name: route.name, local, destination: to.to_string(), streams: 0 })
    });
    let board = Arc::new(Board::new(rows.collect()));
    let device = device::open(&plan).await?;
    let names =
        uses_dns.then(|| Redirected::begin(Path::new(resolver::FILE), RESOLVER.into())).transpose()?;
    let (open, cut) = (TaskTracker::new(), CancellationToken::new());
    let (shown, kept) = (board.clone(), reach.clone());
    let flows = Flows { plan, reach: reach.clone(), board, open: open.clone(), cut: cut.clone() };
    shown.show();
    let ended = tokio::select! {
        stopped = stop_signal() => stopped,
        ended = flows.serve(device) => ended.map_err(|error| TunError::Gone(error).into()),
        () = keep(names.as_ref()) => Ok(()),
        () = kept.keep_up(&shown) => Ok(()),
        () = kept.own().keep_reporting() => Ok(()),
        () = kept.own().keep_warning(|told| shown.tell(told)) => Ok(()),
    };
    drop(names);
    cut.cancel();
    open.close();
    // What does not end by then ends with the process.
    let _late = timeout(CUT_TIMEOUT, open.wait()).await;
    reach.close().await;
    connections.close();
    ended
}

async fn keep(names: Option<&Redirected>) {
    match names {
        Some(names) => names.keep().await,
        None => std::future::pending().await,
    }
}
