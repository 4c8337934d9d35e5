//! `connect --tun`: routes by their names and own ports, through a network device: the daemon's, if it has one, else one of this process
//! until Ctrl-C.

use std::{pin::pin, sync::Arc};

use pomerium_shared::names::Host;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    connect::{stop_signal, tell},
    daemon_status, print, remember,
};
use crate::{
    failure::Failure,
    forward::{
        Seen,
        board::{Board, BoardRow, Row},
        chosen::Chosen,
    },
    link::answer::shown,
    local_api::{
        caller::Line,
        wire::{Reply, Request, TunStatus},
    },
    login,
    reach::Reach,
    tun::running::Running,
};

/// A line to the daemon, if it runs and has the device.
pub(super) async fn holder(reach: &Reach) -> Result<Option<Line>, Failure> {
    let Some(line) = reach.line().await else { return Ok(None) };
    Ok(daemon_status().await?.and_then(|status| status.tun).map(|_| line))
}

/// Has the daemon switch its device on for these routes; all if none is named.
pub(super) async fn on(mut line: Line, reach: &Reach, routes: Vec<String>, dns: bool) -> Result<(), Failure> {
    let request = Request::TunOn { gateway: reach.gateway().to_string(), routes, dns };
    match line.ask(request, login::tell_page).await? {
        Reply::Tun(status) => {
            remember(reach.gateway());
            let off = "Off again: pomerium-cli connect --tun --off";
            print(&format!("TUN mode  {}\n{off}\n", in_words(&status)))
        }
        _ => Err(Failure::BadAnswer { what: "TUN mode" }),
    }
}

/// Has the daemon switch its device off.
pub(super) async fn off(line: Option<Line>) -> Result<(), Failure> {
    let Some(mut line) = line else { return Err(Failure::NoTunDaemon) };
    match line.ask(Request::TunOff, |_| {}).await? {
        Reply::Tun(_) => print("TUN mode is off.\n"),
        _ => Err(Failure::BadAnswer { what: "the end of TUN mode" }),
    }
}

/// The daemon's device, on one line.
pub(super) fn in_words(status: &TunStatus) -> String {
    let mut text = match &status.gateway {
        Some(gateway) => format!(
            "on {} for {}: {} hosts, asked for by {}, {} flows",
            status.device,
            shown(gateway),
            status.hosts,
            shown(status.asked_by.as_deref().unwrap_or("nobody")),
            status.flows
        ),
        None => "off".to_owned(),
    };
    if let Some(trouble) = &status.trouble {
        text.push_str(&format!(" ({})", shown(trouble)));
    }
    let dropped: Vec<_> =
        status.dropped.iter().map(|(reason, count)| format!("{count} {}", shown(reason))).collect();
    if !dropped.is_empty() {
        text.push_str(&format!("; dropped: {}", dropped.join(", ")));
    }
    text
}

/// Serves the routes on a device of this process until Ctrl-C, which ends what is open: those of the names, or all if there are
/// none, as the gateway's list changes.
pub(super) async fn serve(
    reach: Arc<Reach>,
    chosen: Vec<Chosen>,
    names: Vec<String>,
    uses_dns: bool,
    connections: TaskTracker,
) -> Result<(), Failure> {
    for route in &chosen {
        if route.target.destination.host().parse::<Host>().is_err() {
            tell(&format!(
                "note: {} is a bare address, which has no name to ask for: use pomerium-cli tcp",
                shown(&route.name)
            ));
        }
    }
    let board = Arc::new(Board::new(Vec::new()));
    let hearing = {
        let board = Arc::clone(&board);
        move |route: &Chosen, local| {
            let destination = route.target.destination.to_string();
            let row = board.add(Row { name: route.name.clone(), local, destination, streams: 0 });
            Arc::new(BoardRow { board: Arc::clone(&board), row }) as Arc<dyn Seen>
        }
    };
    // Listened for from here on: a signal that comes before anybody listens is lost.
    let mut signalled = pin!(stop_signal());
    let running = tokio::select! {
        biased;
        stopped = &mut signalled => return stopped,
        begun = Running::begin(&chosen, names, uses_dns, Arc::clone(&reach), Box::new(hearing)) => begun?,
    };
    board.show();
    let (lists, listed) = watch::channel(None);
    let stopped = async {
        tokio::select! {
            stopped = signalled => stopped,
            () = reach.keep_up(&board) => Ok(()),
            () = reach.own().keep_reporting() => Ok(()),
            () = reach.own().keep_warning(|told| board.tell(told)) => Ok(()),
            () = reach.keep_following(&lists, |told| board.tell(told)) => Ok(()),
        }
    };
    let ended = Box::pin(running.run(listed, stopped)).await;
    reach.close().await;
    connections.close();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_device_is_told_on_one_line() {
        let off = TunStatus { trouble: Some("the device is gone\n".to_owned()), ..TunStatus::default() };
        assert_eq!(in_words(&TunStatus::default()), "off");
        let told = in_words(&off);
        assert!(told.starts_with("off (the device is gone") && !told.contains('\n'), "{told}");
        let on = TunStatus {
            device: "pomerium0".to_owned(),
            gateway: Some("https://gate.example".to_owned()),
            hosts: 3,
            asked_by: Some("systemd-resolved".to_owned()),
            flows: 2,
            dropped: [("fragment".to_owned(), 7), ("martian".to_owned(), 1)].into(),
            trouble: None,
        };
        let expected = "on pomerium0 for https://gate.example: 3 hosts, asked for by systemd-resolved, 2 flows; \
                        dropped: 7 fragment, 1 martian";
        assert_eq!(in_words(&on), expected);
    }
}
