//! `status`: what this machine knows; asks nobody.

use clap::Args;
use pomerium_shared::{clock::Now, posture::PostureReport};
use serde::Serialize;

use super::{device_folder, named_or_last, print, user_cache};
use crate::{
    device::{key::DeviceKey, posture},
    ending::Ending,
    failure::Failure,
    token::Token,
};

/// Show the gateway used last, who you are there and until when, and what it is told of this device. Asks nobody: the
/// gateway decides in the end.
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
    posture: PostureReport,
}

impl Status {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let cache = user_cache().ok_or(Failure::NoCache)?;
        let gateway = named_or_last(self.gateway.as_deref(), Some(&cache))?;
        let key = device_folder().and_then(|folder| DeviceKey::load(&folder).ok().flatten());
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
            device: key.map(|key| key.thumbprint().to_owned()),
            posture: posture::collect().await,
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
        text.push_str(&format!("posture  {}\n", in_words(&shown.posture)));
        print(&text)
    }
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
