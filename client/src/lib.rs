//! The person's end of the gateway: signs in through the browser and carries TCP streams over one QUIC connection.
//!
//! `cli` has a file for each command and knows all the rest; `access` asks the gateway as the person, over `link`, and
//! signs in with `login` when it must; `forward` are the local ports. What must agree with the gateway is in
//! `pomerium-shared`, nothing of policy is here.
#![forbid(unsafe_code)]

mod access;
mod bug_report;
mod cache;
mod cli;
mod daemon;
mod device;
mod doctor;
mod ending;
mod exit;
mod failure;
mod forward;
mod gateway;
#[cfg(target_os = "linux")]
mod keyring;
mod link;
mod local_api;
mod login;
#[cfg(target_os = "linux")]
mod notify;
mod reach;
mod seal;
#[cfg(test)]
mod simulation;
mod target;
mod token;
#[cfg(all(target_os = "linux", feature = "tray"))]
mod tray;
mod trust;
#[cfg(target_os = "linux")]
mod tun;
mod visitor;

pub use cli::run;
