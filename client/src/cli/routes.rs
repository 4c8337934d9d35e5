//! `routes`: what the gateway lists for this person.

use clap::{Args, Subcommand};
use tokio_util::task::TaskTracker;

use super::{GatewayArg, Shared, print, remember, user_cache};
use crate::{access::Route, failure::Failure, forward::board::aligned, link::answer::shown};

/// List the routes that you may use. The list is a hint: policy decides again when you connect.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Routes {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the routes that you may use
    List(List),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    gateway: GatewayArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shared: Shared,
}

impl Routes {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let list = match self.verb {
            Some(Verb::List(list)) => list,
            None => self.list,
        };
        let gateway = list.gateway.resolve(user_cache().as_ref())?;
        let reach = list.shared.reach(gateway, &TaskTracker::new())?;
        let routes = reach.routes().await;
        reach.close().await;
        let routes = routes?;
        remember(reach.gateway());
        if list.json {
            let text = serde_json::to_string_pretty(&routes).map_err(std::io::Error::other)?;
            return print(&format!("{text}\n"));
        }
        print(&table(&routes))
    }
}

fn table(routes: &[Route]) -> String {
    let lines = routes.iter().map(|route| {
        [&route.name, &route.kind, &route.from, &route.description, &route.connect_command]
            .map(|text| shown(text))
    });
    aligned(["NAME", "TYPE", "FROM", "DESCRIPTION", "COMMAND"].map(str::to_owned), lines)
}
