//! The icon in the desktop's panel: whether the gateway is reached and who is signed in, routes to copy and open, recent refusals.
//!
//! [`state`] decides what is shown and what a click does, without I/O; [`run`] asks the daemon and does it. How an icon gets into
//! a panel is one module a system: `linux` by StatusNotifierItem.

mod icon;
mod linux;
mod state;

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use url::Url;

pub(crate) use self::linux::PanelError;
use self::{
    linux::StatusNotifierItem,
    state::{Action, Effect, Event, State, View},
};
use crate::{
    exit,
    failure::Failure,
    local_api::{
        caller::Caller,
        wire::{DaemonStatus, Reply, Request},
    },
    login::browser::Browser,
    notify::notify,
};

/// How often the daemon is asked; each time it asks its gateways for a sign of life.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Clicks and answers that wait; one more is dropped, as people click again.
const EVENTS_MAX: usize = 64;
/// Programs that put a text on the clipboard, and their arguments: Wayland's first.
const CLIPBOARDS: [(&str, &[&str]); 3] =
    [("wl-copy", &[]), ("xclip", &["-selection", "clipboard"]), ("xsel", &["--clipboard", "--input"])];
/// What shows the daemon's log as it goes on.
const LOG: [&str; 6] = ["x-terminal-emulator", "-e", "journalctl", "--user", "-fu", "pomerium-cli"];

/// Where an icon with a menu can be shown.
pub(crate) trait Panel {
    /// Shows what there is now.
    fn show(&self, view: View) -> impl Future<Output = ()> + Send;
}

/// Shows the icon until somebody ends it by its menu, or `stopped`.
pub(crate) async fn run(
    daemon: Caller,
    stopped: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let (clicks, events) = mpsc::channel(EVENTS_MAX);
    let panel = StatusNotifierItem::begin(clicks).await.map_err(|source| Failure::Tray { source })?;
    tokio::select! {
        () = keep(&panel, &daemon, events) => Ok(()),
        stopped = stopped => stopped,
    }
}

/// Feeds the state and does what it says, until it says that this is the end.
async fn keep(panel: &impl Panel, daemon: &Caller, mut clicks: mpsc::Receiver<Action>) {
    let (mut state, mut work) = (State::default(), JoinSet::new());
    let mut event = Some(Event::Tick);
    loop {
        for effect in event.take().map(|event| state.handle(event)).unwrap_or_default() {
            if effect == Effect::End {
                return;
            }
            let daemon = daemon.clone();
            work.spawn(async move { perform(&daemon, effect).await });
        }
        panel.show(state.view()).await;
        event = tokio::select! {
            () = sleep(LOOK_EVERY) => Some(Event::Tick),
            Some(action) = clicks.recv() => Some(Event::Clicked(action)),
            Some(done) = work.join_next() => done.unwrap_or_else(|error| {
                tracing::error!(%error, "the tray failed by its own fault");
                None
            }),
        };
    }
}

/// Does something, and says what came of it.
async fn perform(daemon: &Caller, effect: Effect) -> Option<Event> {
    match effect {
        Effect::Look => Some(Event::Heard(look(daemon).await)),
        Effect::ListRoutes(gateway) => {
            let mut line = daemon.line().await?;
            match line.ask(Request::Routes { gateway: gateway.clone() }, |_| {}).await {
                Ok(Reply::Routes { routes }) => Some(Event::Routes(gateway, routes)),
                _ => None,
            }
        }
        Effect::SignIn(gateway) => {
            let asked = ask(daemon, Request::Login { gateway: gateway.clone() }).await;
            tell("Not signed in", asked).await;
            Some(Event::Done(Action::SignIn(gateway)))
        }
        Effect::SignOut(gateway) => {
            let asked = ask(daemon, Request::Logout { gateway: gateway.clone() }).await;
            tell("Not signed out", asked).await;
            Some(Event::Done(Action::SignOut(gateway)))
        }
        Effect::Copy(text) => {
            if !copy(&text).await {
                notify("Pomerium", &text).await;
            }
            None
        }
        Effect::Open(url) => {
            let is_opened = Url::parse(&url).is_ok_and(|page| Browser::Desktop.open(&page).is_ok());
            if !is_opened {
                notify("Pomerium: the browser was not opened", &url).await;
            }
            None
        }
        Effect::ShowLog => {
            let [program, arguments @ ..] = LOG;
            if tokio::process::Command::new(program).args(arguments).spawn().is_err() {
                notify("Pomerium", "The log: journalctl --user -fu pomerium-cli").await;
            }
            None
        }
        Effect::End => None,
    }
}

async fn look(daemon: &Caller) -> Option<DaemonStatus> {
    match daemon.line().await?.ask(Request::Status, |_| {}).await {
        Ok(Reply::Status(status)) => Some(status),
        _ => None,
    }
}

async fn ask(daemon: &Caller, request: Request) -> Result<(), String> {
    let Some(mut line) = daemon.line().await else { return Err("the daemon does not run".to_owned()) };
    // The daemon opens the browser itself.
    line.ask(request, |_| {}).await.map(drop).map_err(|failure| exit::message(&failure))
}

async fn tell(title: &str, asked: Result<(), String>) {
    if let Err(why) = asked {
        notify(&format!("Pomerium: {title}"), &why).await;
    }
}

async fn copy(text: &str) -> bool {
    use std::process::Stdio;
    use tokio::io::AsyncWriteExt as _;
    for (program, arguments) in CLIPBOARDS {
        let started = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else { continue };
        let Some(mut input) = child.stdin.take() else { continue };
        let written = input.write_all(text.as_bytes()).await;
        drop(input);
        // It goes on in the background, as the owner of the clipboard.
        if written.is_ok() && child.wait().await.is_ok_and(|status| status.success()) {
            return true;
        }
    }
    false
}
