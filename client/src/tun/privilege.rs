//! CAP_NET_ADMIN, where a unit of systemd gives it and nothing else: for this process, and for `ip`. Browsers, notifiers and all else that it
//! starts go without.

use std::io;

use rustix::thread::{CapabilitySet, configure_capability_in_ambient_set as configure};

/// Keeps the privilege from what is started. To be called before any other thread begins: each thread has a set of its own.
///
/// # Errors
/// The kernel knows no such set; then there is nothing in it.
pub(crate) fn withhold() -> io::Result<()> {
    Ok(configure(CapabilitySet::NET_ADMIN, false)?)
}

/// Does `work`, and gives what it starts the privilege, where this process was given it to hand on. Root needs no such help.
pub(super) fn lend<T>(work: impl FnOnce() -> T) -> T {
    let is_lent = configure(CapabilitySet::NET_ADMIN, true).is_ok();
    let done = work();
    if is_lent && let Err(error) = withhold() {
        tracing::warn!(%error, "programs that are started from here keep a privilege");
    }
    done
}
