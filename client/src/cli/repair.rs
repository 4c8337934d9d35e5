//! `repair`: what `connect --tun` leaves behind when it is killed.

use std::path::Path;

use clap::Args;

use super::print;
use crate::{
    failure::Failure,
    tun::{TunError, resolver},
};

/// Put the list of name servers back as it was, after `connect --tun` was killed.
///
/// The network device and its routes end with the process. Safe to run at any time, also twice; not while `connect --tun` runs.
#[derive(Debug, Args)]
pub(crate) struct Repair {}

impl Repair {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let path = Path::new(resolver::FILE);
        let repaired =
            resolver::repair(path).map_err(|source| TunError::Resolver { path: path.to_owned(), source })?;
        print(if repaired { "Repaired: names are asked for as before.\n" } else { "Nothing to repair.\n" })
    }
}
