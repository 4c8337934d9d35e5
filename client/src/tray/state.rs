//! What the icon shows and what a click does: a state machine without I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    access::Route,
    link::answer::shown,
    local_api::wire::{DaemonStatus, GatewayStatus, RouteStatus, Transport},
};

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 5;
/// Routes of a gateway in the menu; `pomerium-cli routes` has all.
const ROUTES_MAX: usize = 40;
/// Characters of an entry at most: menus are narrow.
const LABEL_LEN_MAX: usize = 80;

/// What the icon says at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Light {
    /// The daemon does not run.
    #[default]
    Off,
    /// Nobody is signed in.
    SignedOut,
    /// Somebody is, and a gateway does not answer.
    Trouble,
    /// All is well.
    Good,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    pub(super) light: Light,
    /// The state in words, for the tip and for who cannot see the icon.
    pub(super) title: String,
    pub(super) menu: Vec<Entry>,
}

/// A line of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// To read.
    Text(String),
    /// A line between.
    Line,
    /// To click.
    Do(String, Action),
    /// More lines.
    More(String, Vec<Self>),
}

/// What a click means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    SignIn(String),
    SignOut(String),
    Copy(String),
    Open(String),
    ShowLog,
    Quit,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// It is time to look.
    Tick,
    /// The daemon's state; `None`: it does not run.
    Heard(Option<DaemonStatus>),
    /// The routes of a gateway.
    Routes(String, Vec<Route>),
    /// Somebody clicked.
    Clicked(Action),
    /// A sign-in or sign-out has ended, one way or the other.
    Done(Action),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Look,
    ListRoutes(String),
    SignIn(String),
    SignOut(String),
    Copy(String),
    Open(String),
    ShowLog,
    End,
}

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct State {
    status: Option<DaemonStatus>,
    is_looking: bool,
    routes: BTreeMap<String, Vec<Route>>,
    /// Gateways of which a sign-in or sign-out is under way: never two at a time.
    busy: BTreeSet<String>,
    /// The newest last.
    refusals: VecDeque<String>,
    /// How the last stream to each destination ended when it was looked at last.
    ends: BTreeMap<(String, String), (u64, String)>,
}

impl State {
    /// Takes in what happened, and says what to do.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Tick => self.look(),
            Event::Heard(status) => self.heard(status),
            Event::Routes(gateway, routes) => {
                self.routes.insert(gateway, routes);
                Vec::new()
            }
            Event::Clicked(action) => self.clicked(action),
            Event::Done(Action::SignIn(gateway) | Action::SignOut(gateway)) => {
                self.busy.remove(&gateway);
                self.look()
            }
            Event::Done(_) => Vec::new(),
        }
    }

    /// Asks, unless an answer is under way.
    fn look(&mut self) -> Vec<Effect> {
        let is_first = !std::mem::replace(&mut self.is_looking, true);
        if is_first { vec![Effect::Look] } else { Vec::new() }
    }

    fn heard(&mut self, status: Option<DaemonStatus>) -> Vec<Effect> {
        self.is_looking = false;
        let Some(status) = status else {
            self.status = None;
            self.busy.clear();
            return Vec::new();
        };
        let signed_in: BTreeSet<&str> = status
            .gateways
            .iter()
            .filter(|gateway| gateway.signed_in)
            .map(|gateway| gateway.gateway.as_str())
            .collect();
        // Whoever signs in next has other routes.
        self.routes.retain(|gateway, _| signed_in.contains(gateway.as_str()));
        let unknown = signed_in.into_iter().filter(|gateway| !self.routes.contains_key(*gateway));
        let effects = unknown.map(|gateway| Effect::ListRoutes(gateway.to_owned())).collect();
        for gateway in &status.gateways {
            for route in &gateway.routes {
                self.note_end(&gateway.gateway, route);
            }
        }
        self.status = Some(status);
        effects
    }

    /// Remembers a refusal that is news.
    fn note_end(&mut self, gateway: &str, route: &RouteStatus) {
        let Some(end) = &route.last_end else { return };
        let key = (gateway.to_owned(), route.destination.clone());
        let now = (route.streams_total, end.clone());
        let is_news = self.ends.get(&key) != Some(&now);
        self.ends.insert(key, now);
        // The words of `exit` for what policy or the gateway refused.
        let is_refusal = end.contains("not allowed") || end.contains("no such route");
        if is_news && is_refusal {
            let why = end.lines().next().unwrap_or_default().trim_start_matches("pomerium-cli: ");
            self.refusals.push_back(shown(why));
            while self.refusals.len() > REFUSALS_MAX {
                self.refusals.pop_front();
            }
        }
    }

    fn clicked(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::SignIn(gateway) if self.busy.insert(gateway.clone()) => vec![Effect::SignIn(gateway)],
            Action::SignOut(gateway) if self.busy.insert(gateway.clone()) => vec![Effect::SignOut(gateway)],
            Action::SignIn(_) | Action::SignOut(_) => Vec::new(),
            Action::Copy(text) => vec![Effect::Copy(text)],
            Action::Open(url) => vec![Effect::Open(url)],
            Action::ShowLog => vec![Effect::ShowLog],
            Action::Quit => vec![Effect::End],
        }
    }

    /// What is shown now.
    pub(super) fn view(&self) -> View {
        let mut menu = Vec::new();
        let (light, title) = match &self.status {
            None => {
                menu.push(Entry::Text("The daemon does not run".to_owned()));
                let start = "systemctl --user start pomerium-cli";
                menu.push(Entry::Do(
                    "Copy the command that starts it".to_owned(),
                    Action::Copy(start.to_owned()),
                ));
                (Light::Off, "Pomerium: the daemon does not run".to_owned())
            }
            Some(status) if status.gateways.is_empty() => {
                menu.push(Entry::Text("No gateway is in use".to_owned()));
                (Light::SignedOut, "Pomerium: no gateway is in use".to_owned())
            }
            Some(status) => {
                for gateway in &status.gateways {
                    if !menu.is_empty() {
                        menu.push(Entry::Line);
                    }
                    menu.extend(self.gateway(gateway));
                }
                let light = status.gateways.iter().map(light_of).min().unwrap_or_default();
                (light, format!("Pomerium: {}", words(&status.gateways)))
            }
        };
        if !self.refusals.is_empty() {
            let refusals = self.refusals.iter().rev().map(|why| Entry::Text(label(why))).collect();
            menu.extend([Entry::Line, Entry::More("Refused lately".to_owned(), refusals)]);
        }
        menu.extend([
            Entry::Line,
            Entry::Do("Show the log".to_owned(), Action::ShowLog),
            Entry::Do("Quit this icon".to_owned(), Action::Quit),
        ]);
        View { light, title, menu }
    }

    fn gateway(&self, gateway: &GatewayStatus) -> Vec<Entry> {
        let address = gateway.gateway.clone();
        let host = shown(gateway.gateway.trim_start_matches("https://"));
        let mut menu = vec![Entry::Text(label(&format!("{host}: {}", carried(gateway))))];
        let is_busy = self.busy.contains(&address);
        if gateway.signed_in {
            let person = gateway.person.as_deref().map_or_else(|| "Signed in".to_owned(), shown);
            let until =
                gateway.expires.as_deref().map(|end| format!(", until {}", clock(end))).unwrap_or_default();
            menu.push(Entry::Text(label(&format!("{person}{until}"))));
            menu.extend(self.routes_of(gateway));
            menu.push(match is_busy {
                true => Entry::Text("Signing out …".to_owned()),
                false => Entry::Do("Sign out".to_owned(), Action::SignOut(address)),
            });
            return menu;
        }
        menu.push(Entry::Text("Not signed in".to_owned()));
        menu.push(match (&gateway.sign_in_page, is_busy) {
            (Some(page), _) => Entry::Do("Open the page that waits".to_owned(), Action::Open(page.clone())),
            (None, true) => Entry::Text("Signing in: look at your browser".to_owned()),
            (None, false) => Entry::Do("Sign in".to_owned(), Action::SignIn(address)),
        });
        menu
    }

    /// A submenu of routes: where each is on this machine, to copy; pages, to open.
    fn routes_of(&self, gateway: &GatewayStatus) -> Option<Entry> {
        let routes = self.routes.get(&gateway.gateway)?;
        let entries: Vec<Entry> = routes
            .iter()
            .take(ROUTES_MAX)
            .map(|route| {
                let name = if route.name.is_empty() { &route.from } else { &route.name };
                if route.kind == "http" {
                    return Entry::Do(
                        label(&format!("Open {}", shown(name))),
                        Action::Open(route.from.clone()),
                    );
                }
                let listen = gateway.routes.iter().find(|held| route.from.ends_with(&held.destination));
                match listen.and_then(|held| held.listen.clone()) {
                    Some(at) => {
                        Entry::Do(label(&format!("Copy {}: {}", shown(name), shown(&at))), Action::Copy(at))
                    }
                    None => {
                        let command = format!("pomerium-cli connect {}", quoted(name));
                        Entry::Do(
                            label(&format!("Copy the command for {}", shown(name))),
                            Action::Copy(command),
                        )
                    }
                }
            })
            .collect();
        (!entries.is_empty()).then(|| Entry::More("Routes".to_owned(), entries))
    }
}

/// A name as one word of a shell: what a gateway calls its routes must not become a command.
fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
    if is_plain && !name.starts_with('-') {
        return name.to_owned();
    }
    let clean: String = shown(name).chars().filter(|c| *c != '\'').collect();
    format!("'{clean}'")
}

fn light_of(gateway: &GatewayStatus) -> Light {
    match (gateway.signed_in, gateway.transport, gateway.round_trip_ms) {
        (false, ..) => Light::SignedOut,
        (true, Transport::None, _) | (true, _, None) => Light::Trouble,
        (true, _, Some(_)) => Light::Good,
    }
}

fn carried(gateway: &GatewayStatus) -> String {
    match (gateway.transport, gateway.round_trip_ms) {
        (Transport::None, _) => "not connected".to_owned(),
        (_, None) => "does not answer".to_owned(),
        (transport, Some(ms)) => format!("{}, {ms} ms", transport.as_str()),
    }
}

fn words(gateways: &[GatewayStatus]) -> String {
    let signed_in = gateways.iter().filter(|gateway| gateway.signed_in).count();
    match gateways.iter().map(light_of).min().unwrap_or_default() {
        Light::Good => "connected".to_owned(),
        Light::Trouble => "a gateway does not answer".to_owned(),
        Light::SignedOut | Light::Off if signed_in == 0 => "not signed in".to_owned(),
        Light::SignedOut | Light::Off => format!("signed in to {signed_in} of {} gateways", gateways.len()),
    }
}

/// The time of day of a timestamp in UTC, as the command line says it.
fn clock(end: &str) -> String {
    match end.parse::<jiff::Timestamp>() {
        Ok(end) => end.strftime("%b %-d, %H:%M UTC").to_string(),
        Err(_) => shown(end),
    }
}

fn label(text: &str) -> String {
    match text.char_indices().nth(LABEL_LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
