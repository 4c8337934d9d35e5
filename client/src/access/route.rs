//! A route, as the gateway lists it.

use http::{HeaderMap, header::AUTHORIZATION};
#[cfg(target_os = "linux")]
use pomerium_shared::clock::Now;
use serde::{Deserialize, Serialize};

use super::{Access, ROUTES_PATH};
use crate::{failure::Failure, link::answer::Refusal, token::Token};

/// A route as the gateway lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Route {
    /// Its id.
    #[serde(default)]
    pub(crate) id: String,
    /// What people call it.
    #[serde(default)]
    pub(crate) name: String,
    /// `http`, `tcp`, `udp` or `mcp`.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    /// The URL that leads to it.
    #[serde(default)]
    pub(crate) from: String,
    /// What it is for.
    #[serde(default)]
    pub(crate) description: String,
    /// The command that connects to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) connect_command: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct RouteList {
    pub(super) routes: Vec<Route>,
}

impl Access {
    /// The routes that the gateway lists for whoever is signed in; `None`: nobody is, and nobody is asked to.
    #[cfg(target_os = "linux")]
    pub(crate) async fn routes_at_hand(&self) -> Result<Option<Vec<Route>>, Failure> {
        match self.token_at_hand().filter(|token| !token.is_expired(Now::read().wall)) {
            Some(token) => self.routes_of(&token).await,
            None => Ok(None),
        }
    }

    /// The routes that the gateway lists for a token; `None`: it does not take it.
    pub(super) async fn routes_of(&self, token: &Token) -> Result<Option<Vec<Route>>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.authorization());
        let response = self.link.get(ROUTES_PATH, headers).await?;
        if Refusal::of(&response).is_some() {
            return Ok(None);
        }
        let list: RouteList = serde_json::from_slice(response.body())
            .map_err(|_| Failure::BadAnswer { what: "the list of routes" })?;
        Ok(Some(list.routes))
    }
}
