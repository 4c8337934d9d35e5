//! `status`: what this machine knows, and what the daemon holds.

use clap::Args;
use pomerium_shared::{clock::Now, posture::PostureReport};
use serde::Serialize;

use super::{daemon_status, device_folder, keeping, named_or_last, print, user_cache};
use crate::{
    device::{key::DeviceKey, posture},
    ending::Ending,
    failure::Failure,
    forward::board::aligned,
    link::answer::shown as safe,
    local_api::wire::{DaemonStatus, Transport},
    token::Token,
};

/// Show the gateway used last, who you are there and until when, and what it is told of this device; and, where the daemon
/// runs, how its connections and forwards fare now. The gateway decides in the end.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The gateway to show instead of the one used last
    #[arg(long, env = "POMERIUM_URL")]
    gateway: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    gateway: String,
    signed_in: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// What the gateway calls this device.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// Whether the session is worth nothing on another one.
    bound_to_device: bool,
    /// How token and device key lie on disk.
    kept: String,
    posture: PostureReport,
    /// What the daemon holds, if it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<DaemonStatus>,
}

impl Status {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let cache = user_cache().ok_or(Failure::NoCache)?;
        let gateway = named_or_last(self.gateway.as_deref(), Some(&cache))?;
        let key = device_folder()
            .and_then(|folder| DeviceKey::load(&folder, keeping::seal().as_deref()).ok().flatten());
        let token = match cache.clone().for_device().token(&gateway)? {
            Some(bound) => Some(bound),
            None => cache.token(&gateway)?,
        };
        let bound_to = token.as_ref().and_then(Token::bound_to);
        let expires = token.as_ref().and_then(Token::expires);
        let shown = Shown {
            gateway: gateway.to_string(),
            signed_in: token.as_ref().is_some_and(|token| !token.is_expired(Now::read().wall)),
            person: token.as_ref().and_then(Token::person),
            expires: expires
                .and_then(|end| jiff::Timestamp::try_from(end).ok())
                .map(|end| format!("{end:.0}")),
            bound_to_device: bound_to.is_some()
                && bound_to.as_deref() == key.as_ref().map(DeviceKey::thumbprint),
            kept: keeping::decided().map(ToString::to_string).unwrap_or_default(),
            device: key.map(|key| key.thumbprint().to_owned()),
            posture: posture::collect().await,
            daemon: daemon_status().await?,
        };
        if self.json {
            let text = serde_json::to_string_pretty(&shown).map_err(std::io::Error::other)?;
            return print(&format!("{text}\n"));
        }
        let state = match (&token, shown.signed_in) {
            (None, _) => "not signed in",
            (Some(_), false) => "session expired",
            (Some(_), true) => "signed in",
        };
        let mut text = format!("gateway  {}\nstate    {state}\n", shown.gateway);
        if let Some(person) = &shown.person {
            text.push_str(&format!("person   {person}\n"));
        }
        if let Some(end) = &shown.expires {
            text.push_str(&format!("expires  {end}\n"));
        }
        let ending = token.as_ref().and_then(|token| Ending::of(token, Now::read().wall));
        if let Some(ending) = ending {
            text.push_str(&format!("warning  {ending}\n"));
        }
        if let Some(device) = &shown.device {
            let bound = if shown.bound_to_device { "session bound to it" } else { "session not bound to it" };
            text.push_str(&format!("device   {device} ({bound})\n"));
        }
        text.push_str(&format!("kept     {}\n", shown.kept));
        text.push_str(&format!("posture  {}\n", in_words(&shown.posture)));
        if let Some(daemon) = &shown.daemon {
            text.push_str(&held(daemon));
        }
        print(&text)
    }
}

/// What the daemon holds, as text: a gateway a paragraph, with its routes below.
fn held(daemon: &DaemonStatus) -> String {
    let mut text = format!("daemon   version {}, process {}\n", safe(&daemon.program), daemon.pid);
    #[cfg(target_os = "linux")]
    if let Some(tun) = &daemon.tun {
        text.push_str(&format!("TUN mode {}\n", super::tun::in_words(tun)));
    }
    for gateway in &daemon.gateways {
        let carried = gateway.transport.as_str();
        text.push_str(&format!("\n{}: {carried}", safe(&gateway.gateway)));
        match (gateway.transport, gateway.round_trip_ms) {
            (Transport::None, _) => {}
            (_, Some(ms)) => text.push_str(&format!(", round trip {ms} ms")),
            (_, None) => text.push_str(", does not answer"),
        }
        if gateway.transport == Transport::Quic {
            text.push_str(&format!(", {} of {} packets lost", gateway.packets_lost, gateway.packets_sent));
        }
        let person = gateway.person.as_deref().filter(|_| gateway.signed_in).map(safe);
        match (person, &gateway.expires) {
            (Some(person), Some(end)) => text.push_str(&format!(", {person} until {}", safe(end))),
            (Some(person), None) => text.push_str(&format!(", {person}")),
            (None, _) => text.push_str(", not signed in"),
        }
        text.push('\n');
        if let Some(page) = &gateway.portal {
            let page = safe(page);
            text.push_str(&format!("this network wants you to sign in first: open {page} in the browser\n"));
        }
        if let Some(page) = &gateway.sign_in_page {
            text.push_str(&format!("sign in with your browser: {}\n", safe(page)));
        }
        let lines = gateway.routes.iter().map(|route| {
            [
                safe(route.name.as_deref().unwrap_or("-")),
                safe(route.listen.as_deref().unwrap_or("-")),
                safe(&route.destination),
                route.streams.to_string(),
                route.bytes_up.to_string(),
                route.bytes_down.to_string(),
                safe(route.last_end.as_deref().unwrap_or("")),
            ]
        });
        let head = ["NAME", "LOCAL", "DESTINATION", "STREAMS", "UP", "DOWN", "LAST END"].map(str::to_owned);
        if !gateway.routes.is_empty() {
            text.push_str(&aligned(head, lines));
        }
    }
    text
}

fn in_words(report: &PostureReport) -> String {
    let known = |fact| match fact {
        Some(true) => "on",
        Some(false) => "off",
        None => "not known",
    };
    format!(
        "{} {}; disk encryption {}, firewall {}, screen lock {}",
        report.os.as_str(),
        report.os_version,
        known(report.disk_encryption),
        known(report.firewall),
        known(report.screen_lock),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_api::wire::{GatewayStatus, RouteStatus};

    #[test]
    fn the_daemons_connections_and_routes_are_told() {
        let route = RouteStatus {
            destination: "db:5432".to_owned(),
            name: Some("db".to_owned()),
            listen: Some("127.70.1.2:5432".to_owned()),
            streams: 3,
            ..RouteStatus::default()
        };
        let gateway = GatewayStatus {
            gateway: "https://g.example".to_owned(),
            transport: Transport::Quic,
            round_trip_ms: Some(12),
            packets_sent: 100,
            packets_lost: 1,
            portal: Some("http://wifi.example/".to_owned()),
            routes: vec![route],
            ..GatewayStatus::default()
        };
        let text = held(&DaemonStatus { gateways: vec![gateway], ..DaemonStatus::default() });
        for said in [
            "https://g.example: QUIC, round trip 12 ms, 1 of 100 packets lost, not signed in",
            "127.70.1.2:5432",
            "sign in first: open http://wifi.example/ in the browser",
        ] {
            assert!(text.contains(said), "{text}");
        }
    }
}
