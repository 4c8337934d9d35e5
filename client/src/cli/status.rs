//! `status`: what this machine knows; asks nobody.

use clap::Args;
use pomerium_shared::clock::Now;
use serde::Serialize;

use super::{named_or_last, print, user_cache};
use crate::failure::Failure;

/// Show the gateway used last, who you are there and until when. Reads the cache only: the gateway decides in the end.
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
}

impl Status {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let cache = user_cache().ok_or(Failure::NoCache)?;
        let gateway = named_or_last(self.gateway.as_deref(), Some(&cache))?;
        let token = cache.token(&gateway)?;
        let expires = token.as_ref().and_then(crate::token::Token::expires);
        let shown = Shown {
            gateway: gateway.to_string(),
            signed_in: token.as_ref().is_some_and(|token| !token.is_expired(Now::read().wall)),
            person: token.as_ref().and_then(crate::token::Token::person),
            expires: expires
                .and_then(|end| jiff::Timestamp::try_from(end).ok())
                .map(|end| format!("{end:.0}")),
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
        print(&text)
    }
}
