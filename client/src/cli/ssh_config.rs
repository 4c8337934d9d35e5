//! `ssh-config`: the lines that let `ssh HOST` go through the gateway.

use clap::Args;
use tokio_util::task::TaskTracker;

use super::{GatewayArg, Shared, print, user_cache};
use crate::{access::Route, failure::Failure, gateway::Gateway, target::Target};

/// Print lines for ~/.ssh/config, so that plain ssh, scp and rsync reach your SSH routes.
///
/// Keep them apart: pomerium-cli ssh-config > ~/.ssh/pomerium, and write "Include pomerium" on top of ~/.ssh/config.
#[derive(Debug, Args)]
pub(crate) struct SshConfig {
    #[command(flatten)]
    gateway: GatewayArg,
    #[command(flatten)]
    shared: Shared,
}

impl SshConfig {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let gateway = self.gateway.resolve(user_cache().as_ref())?;
        let reach = self.shared.reach(gateway, &TaskTracker::new())?;
        let routes = reach.routes().await;
        reach.close().await;
        print(&blocks(&routes?, reach.gateway()))
    }
}

/// A block for each TCP route to port 22. Names that ssh would read as a pattern, or as more than one word, are left out: the
/// gateway lists them, and a line of its making must not become a command.
fn blocks(routes: &[Route], gateway: &Gateway) -> String {
    let mut text = format!("# By pomerium-cli ssh-config, for {gateway}\n");
    for route in routes.iter().filter(|route| route.kind == "tcp") {
        let Ok(target) = route.from.parse::<Target>() else { continue };
        let host = target.destination.host();
        let is_plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if target.destination.port() != 22 || !is_plain || host.starts_with('-') {
            continue;
        }
        text.push_str(&format!(
            "\nHost {host}\n    ProxyCommand pomerium-cli tcp --pomerium-url {gateway} --listen - %h:22\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(from: &str) -> Route {
        serde_json::from_value(serde_json::json!({"type": "tcp", "from": from})).unwrap()
    }

    #[test]
    fn each_ssh_route_has_a_block_and_nothing_else_can_stand_in_the_file() {
        let routes =
            ["tcp+https://ssh.corp.example:22", "tcp+https://db.corp.example:5432", "tcp+https://g/*:22"];
        let gateway = "https://gate.example:8443".parse().unwrap();
        let text = blocks(&routes.map(route), &gateway);
        assert!(text.contains("\nHost ssh.corp.example\n"), "{text}");
        assert!(text.contains("--pomerium-url https://gate.example:8443 --listen - %h:22"), "{text}");
        assert_eq!(text.matches("Host ").count(), 1, "{text}");
    }
}
