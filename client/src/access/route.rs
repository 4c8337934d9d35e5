//! A route, as the gateway lists it.

use serde::{Deserialize, Serialize};

/// A route as the gateway lists it.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
