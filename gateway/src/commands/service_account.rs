//! `service-account`: programs with a token of their own, beside a gateway that runs or not.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use pomerium_shared::clock::Now;

use super::on_store;
use crate::{
    app::{self, keys},
    config::Settings,
    secret::Secret,
    session::handle::HandleKey,
    store::{ServiceAccount, Store},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Arguments of `service-account`.
#[derive(Debug, Clone, Args)]
pub struct ServiceAccountArguments {
    /// The gateway's YAML file.
    #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Makes an account and prints its token, this once.
    Add {
        /// What policy calls it: its user is service-account/NAME.
        name: String,
        /// A group that policy sees; may be given several times.
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
        /// When the token ends.
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
    },
    /// Lists the accounts; never their tokens.
    List,
    /// Ends an account at once, with all that is open for it.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// Makes, lists or revokes service accounts; 78 if the configuration cannot be used.
#[must_use]
pub fn service_account(arguments: &ServiceAccountArguments) -> ExitCode {
    let Some(file) = &arguments.config else {
        app::report("pomerium-gateway: give the configuration with --config FILE");
        return ExitCode::from(64);
    };
    on_store(file, async |settings, store| act(settings, store, &arguments.action).await)
}

async fn act(settings: &Settings, store: &Store, action: &Action) -> anyhow::Result<String> {
    let now = Now::read().wall;
    Ok(match action {
        Action::Add { name, group, days } => {
            let token = add(settings, store, name, group, *days, now).await?;
            format!("{}\n", token.expose())
        }
        Action::List => list(&store.service_accounts().await?, now),
        Action::Revoke { name } => {
            if !store.revoke_service_account(name, now).await? {
                bail!("there is no service account {name:?} that could be revoked");
            }
            format!("revoked {name}\n")
        }
    })
}

async fn add(
    settings: &Settings,
    store: &Store,
    name: &str,
    groups: &[String],
    days: u16,
    now: SystemTime,
) -> anyhow::Result<Secret<String>> {
    const NAME_LEN_MAX: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_plain) {
        bail!("a name has 1 to {NAME_LEN_MAX} letters, digits, dashes, dots and underscores");
    }
    let account = ServiceAccount::new(name, groups.to_vec(), now + u32::from(days) * DAY, now);
    if !store.add_service_account(&account).await? {
        bail!("there is a service account {name:?} already: revoke it first");
    }
    let secrets = keys::secrets(settings, store).await?;
    let host = settings.authenticate_url.host_str().unwrap_or_default().to_owned();
    let key = HandleKey::new(*secrets.shared().expose(), host.as_str());
    key.mint(&account.session(), &[host], now).context("the token cannot be signed")
}

/// A line an account: name, state, end, groups.
fn list(accounts: &[ServiceAccount], now: SystemTime) -> String {
    let line = |account: &ServiceAccount| {
        let state = match account.revoked_at {
            Some(_) => "revoked",
            None if account.expires_at <= now => "expired",
            None => "active",
        };
        let end =
            jiff::Timestamp::try_from(account.expires_at).map(|end| end.to_string()).unwrap_or_default();
        format!("{}\t{state}\tuntil {end}\t{}\n", account.name, account.groups.join(","))
    };
    accounts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_state_an_account_is_in() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let account = ServiceAccount::new("ci", vec!["deploy".into(), "ops".into()], at(100), at(0));
        let revoked = ServiceAccount { revoked_at: Some(at(5)), ..account.clone() };
        let said = list(&[account.clone(), revoked], at(10)) + &list(&[account], at(100));
        let end = "until 1970-01-01T00:01:40Z\tdeploy,ops";
        assert_eq!(said, format!("ci\tactive\t{end}\nci\trevoked\t{end}\nci\texpired\t{end}\n"));
    }
}
