//! `device`: what an administrator does about people's devices. Works on the store; a running gateway follows within a
//! second.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::{on_store, people};
use crate::{
    device::Device,
    store::{Store, User},
};

/// Arguments of `device`.
#[derive(Debug, Clone, Args)]
pub struct DeviceArguments {
    /// The gateway's YAML file: it says where the store is.
    #[arg(long, short, value_name = "FILE", env = "POMERIUM_CONFIG")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Shows all devices, or those of one person.
    List {
        /// The person's id or email address.
        #[arg(long, value_name = "PERSON")]
        user: Option<String>,
    },
    /// Approves a device.
    Approve(Which),
    /// Takes the approval back; the person stays signed in on it.
    Revoke(Which),
    /// Forgets a device and ends its sessions.
    Remove(Which),
}

/// Names a device.
#[derive(Debug, Clone, Args)]
struct Which {
    /// Its id, or the beginning of it.
    #[arg(value_name = "DEVICE", allow_hyphen_values = true)]
    id: String,
    /// Whose it is, by id or email address, where several people use it.
    #[arg(long, value_name = "PERSON")]
    user: Option<String>,
}

/// Runs the command; 78 if the configuration cannot be used.
#[must_use]
pub fn run(arguments: &DeviceArguments) -> ExitCode {
    on_store(&arguments.config, async |_, store| act(store, &arguments.command).await)
}

/// Does what is asked, and says what was done.
async fn act(store: &Store, command: &Command) -> anyhow::Result<String> {
    let (users, devices) = (store.users().await?, store.devices(None).await?);
    let text = match command {
        Command::List { user } => return Ok(table(&devices, &users, user.as_deref())),
        Command::Approve(which) => {
            let device = one(&devices, &users, which)?;
            store.approve_device(device, true).await?;
            format!("Approved {} of {}.\n", device.id, people::name(&users, &device.user_id))
        }
        Command::Revoke(which) => {
            let device = one(&devices, &users, which)?;
            store.approve_device(device, false).await?;
            format!("{} of {} is not approved any more.\n", device.id, people::name(&users, &device.user_id))
        }
        Command::Remove(which) => {
            let device = one(&devices, &users, which)?;
            let ended = store.remove_device(device).await?;
            let whose = people::name(&users, &device.user_id);
            format!("Removed {} of {whose}; sessions ended: {ended}.\n", device.id)
        }
    };
    store.announce_outside_change().await?;
    Ok(text)
}

fn one<'a>(devices: &'a [Device], users: &[User], which: &Which) -> anyhow::Result<&'a Device> {
    let mut found = devices.iter().filter(|device| {
        device.id.starts_with(&which.id) && people::is_meant(users, &device.user_id, which.user.as_deref())
    });
    let first = found.next().with_context(|| {
        format!("no device begins with {}: `pomerium-gateway device list` shows them", which.id)
    })?;
    if found.next().is_some() {
        bail!("several devices begin with {}: give the whole id, or --user", which.id);
    }
    Ok(first)
}

fn table(devices: &[Device], users: &[User], of: Option<&str>) -> String {
    let mut text =
        format!("{:43}  {:8}  {:20}  {:20}  {}\n", "DEVICE", "APPROVED", "ENROLLED", "REPORTED", "WHOSE");
    for device in devices.iter().filter(|device| people::is_meant(users, &device.user_id, of)) {
        let moment = |at| jiff::Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default();
        let (os, reported) = match &device.posture {
            Some((report, at)) => (format!("{} {}", report.os.as_str(), report.os_version), moment(*at)),
            None => (String::new(), "never".to_owned()),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:43}  {:8}  {:20}  {:20}  {} {} {}",
            device.id,
            if device.is_approved { "yes" } else { "no" },
            moment(device.enrolled_at),
            reported,
            people::name(users, &device.user_id),
            device.name,
            os.trim(),
        );
    }
    text
}
