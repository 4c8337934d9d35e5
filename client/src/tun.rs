//! TUN mode: programs reach routes by their names and own ports, with no forward between.
//!
//! [`plan`] gives each route host an address and says which port is which route. [`device`] makes the TUN device and has the kernel send
//! it those addresses and nothing else; the netstack of `shared` makes flows of its packets, and [`flows`] opens a stream for each.
//! [`resolver`] has the system ask for names there first. Linux alone; ADR 0025.

pub(crate) mod device;
pub(crate) mod flows;
pub(crate) mod plan;
pub(crate) mod resolver;

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
            Self::ForeignResolver { .. } => {
                "Run it with --no-dns, and tell that program: for systemd-resolved, `resolvectl dns pomerium0 100.64.0.2` and \
                 `resolvectl domain pomerium0 ~corp.example`."
            }
        }
    }
}
