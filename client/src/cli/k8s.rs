//! `k8s`: the credential plugin of `kubectl` (client.authentication.k8s.io).

use std::io::{self, IsTerminal as _};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::{Shared, print, remember, user_cache};
use crate::{failure::Failure, token::Token};

/// What `kubectl` tells its plugin, as JSON.
const INFO_VARIABLE: &str = "KUBERNETES_EXEC_INFO";
/// The versions of the plugin's API that are spoken, the newest first.
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// How `kubectl` is told of the plugin.
const KUBECONFIG: &str = "In the kubeconfig, with the URL of the cluster's route:

  users:
  - name: via-gateway
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: pomerium-cli
        args: [k8s, exec-credential, https://k8s.corp.example]
        interactiveMode: IfAvailable";

/// Give kubectl its token, for clusters behind the gateway.
#[derive(Debug, Args)]
pub(crate) struct K8s {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print an ExecCredential for kubectl, signing in if there is no session
    #[command(after_help = KUBECONFIG)]
    ExecCredential(ExecCredential),
    /// Forget the tokens of kubectl
    FlushCredentials {
        /// Those of this route alone
        #[arg(value_name = "URL")]
        url: Option<String>,
    },
}

#[derive(Debug, Args)]
struct ExecCredential {
    /// The URL of the cluster's route
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    shared: Shared,
}

impl K8s {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.verb {
            Verb::ExecCredential(command) => command.run().await,
            Verb::FlushCredentials { url } => {
                let cache = user_cache().ok_or(Failure::NoCache)?.for_kubernetes();
                match url {
                    None => Ok(cache.clear_kubernetes()?),
                    Some(url) => Ok(cache.forget_any(&url.parse()?).map(drop)?),
                }
            }
        }
    }
}

impl ExecCredential {
    async fn run(self) -> Result<(), Failure> {
        let asked = Asked::of(std::env::var(INFO_VARIABLE).ok().as_deref());
        let may_ask = asked.is_interactive || io::stderr().is_terminal();
        // The token goes to another program, which has no key of this device.
        let shared = self.shared.without_device_key();
        let shared = if may_ask { shared } else { shared.without_browser() };
        let cache = user_cache().map(crate::cache::Cache::for_kubernetes);
        let access = shared.access_with(cache, shared.caller()?, self.url.parse()?, &TaskTracker::new())?;
        let mut page = access.page();
        let token = tokio::select! {
            token = access.signed_in() => token,
            Ok(_) = page.wait_for(Option::is_some), if !may_ask => Err(Failure::NobodyToAsk { url: self.url }),
        };
        access.link().close().await;
        let token = token?;
        remember(access.gateway());
        print(&format!("{}\n", credential(&asked.version, &token)))
    }
}

/// What `kubectl` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    version: String,
    /// Whether a person sits at it.
    is_interactive: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    api_version: String,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    interactive: bool,
}

impl Asked {
    /// Without a word of `kubectl`, a person has typed the command.
    fn of(info: Option<&str>) -> Self {
        let info: Option<Info> = info.and_then(|text| serde_json::from_str(text).ok());
        let is_interactive = info.as_ref().is_none_or(|info| info.spec.interactive);
        let version = info
            .map(|info| info.api_version)
            .filter(|version| VERSIONS.contains(&version.as_str()))
            .unwrap_or_else(|| VERSIONS[0].to_owned());
        Self { version, is_interactive }
    }
}

fn credential(version: &str, token: &Token) -> serde_json::Value {
    let mut status = json!({"token": format!("Pomerium-{}", token.expose())});
    if let Some(end) = token.expires().and_then(|end| jiff::Timestamp::try_from(end).ok()) {
        // Whole seconds, as Kubernetes writes its times.
        status["expirationTimestamp"] = format!("{end:.0}").into();
    }
    json!({"apiVersion": version, "kind": "ExecCredential", "status": status})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::token_until;

    #[test]
    fn kubectl_is_answered_in_the_version_that_it_asks_in() {
        let info = |version: &str, interactive: bool| {
            json!({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": interactive}})
                .to_string()
        };
        for version in VERSIONS {
            let asked = Asked::of(Some(&info(version, false)));
            assert_eq!(asked, Asked { version: version.to_owned(), is_interactive: false });
        }
        assert_eq!(Asked::of(Some(&info("client.authentication.k8s.io/v9", true))).version, VERSIONS[0]);
        for by_hand in [None, Some("{"), Some("")] {
            assert!(Asked::of(by_hand).is_interactive, "{by_hand:?}");
        }
    }

    #[test]
    fn the_credential_has_the_token_and_its_end() {
        let said = credential(VERSIONS[0], &token_until(1_700_000_000));
        assert_eq!(said["status"]["expirationTimestamp"], "2023-11-14T22:13:20Z");
        assert!(said["status"]["token"].as_str().unwrap().starts_with("Pomerium-e30."));
        let endless = credential(VERSIONS[0], &Token::parse("e30.e30.c2ln").unwrap());
        assert!(endless["status"].get("expirationTimestamp").is_none(), "no end, rather than year 1");
    }
}
