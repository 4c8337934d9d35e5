//! TUN mode: programs reach routes by their names and own ports, with no forward between.
//!
//! [`plan`] gives each route host an address and says which port is which route. [`device`] makes the TUN device and has the kernel send
//! it those addresses and nothing else; the netstack of `shared` makes flows of its packets, and [`flows`] opens a stream for each.
//! [`leads`] is where it leads now, as the gateway's list has it. [`names`] has the system ask there for names, and [`running`] is all of it at once. Linux alone; ADR 0025, 0040.

pub(crate) mod device;
mod flows;
mod leads;
mod names;
pub(crate) mod plan;
pub(crate) mod privilege;
mod resolved;
pub(crate) mod resolver;
mod rewrite;
pub(crate) mod running;

use std::{io, path::PathBuf};

/// Why TUN mode does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunError {
    /// The device is another process's, or making it is not allowed.
    #[error("cannot make the network device {name}")]
    Device {
        /// Its name.
        name: &'static str,
        /// What the system said.
        source: tun::Error,
    },
    /// `ip` is not there.
    #[error("cannot run `ip`, which gives the device its addresses")]
    NoIp(#[source] io::Error),
    /// `ip` refused.
    #[error("the device did not get its addresses: {0}")]
    Addresses(String),
    /// Taken away.
    #[error("the network device is gone")]
    Gone(#[source] io::Error),
    /// systemd-resolved asks nobody here.
    #[error("systemd-resolved does not take our name server")]
    Resolved(#[source] resolved::ResolvedError),
    /// The list of name servers.
    #[error("cannot change {}", path.display())]
    Resolver {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another program keeps that list.
    #[error("{} belongs to another program ({})", path.display(), target.display())]
    ForeignResolver {
        /// Which file.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
}

impl TunError {
    /// What to do.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::Device { .. } | Self::Addresses(_) => {
                "Run it as root or with CAP_NET_ADMIN, and one at a time; `modprobe tun` if /dev/net/tun is missing."
            }
            Self::Gone(_) => "Run it again.",
            Self::NoIp(_) => "Install iproute2.",
            Self::Resolver { .. } => "Run it as root, or look names up yourself: --no-dns",
            Self::Resolved(_) => {
                "Run it as root, or let polkit allow it (packaging/polkit), or look names up yourself: --no-dns"
            }
            Self::ForeignResolver { .. } => {
                "Start that program if it is systemd-resolved. Else run it with --no-dns, and tell that program to ask 100.64.0.2 for \
                 the names of your routes."
            }
        }
    }
}
