//! Who asks at the device for names, and has to stop when it goes.

use std::path::Path;

use super::{
    TunError,
    plan::{Plan, RESOLVER},
    resolved::Resolved,
    resolver::{self, Redirected},
};

/// How questions for names come to the device.
#[derive(Debug)]
pub(crate) enum Names {
    /// Not at all: the person asked for that.
    Untouched,
    /// systemd-resolved asks for our hosts alone.
    Resolved(Resolved),
    /// Every program asks here first.
    File(Redirected),
}

impl Names {
    /// Has the system ask here for the plan's hosts.
    pub(crate) async fn begin(plan: &Plan) -> Result<Self, TunError> {
        if let Some(resolved) = Resolved::begin(plan.hosts()).await.map_err(TunError::Resolved)? {
            return Ok(Self::Resolved(resolved));
        }
        Redirected::begin(Path::new(resolver::FILE), RESOLVER.into()).map(Self::File)
    }

    /// Has the system ask here for other hosts from now on. Programs that ask here for everything need not be told.
    pub(crate) async fn change(&mut self, plan: &Plan) -> Result<(), TunError> {
        match self {
            Self::Resolved(resolved) => resolved.change(plan.hosts()).await.map_err(TunError::Resolved),
            Self::Untouched | Self::File(_) => Ok(()),
        }
    }

    /// Who asks.
    pub(crate) const fn asked_by(&self) -> &'static str {
        match self {
            Self::Untouched => "nobody (--no-dns)",
            Self::Resolved(_) => "systemd-resolved",
            Self::File(_) => resolver::FILE,
        }
    }

    /// Keeps it so, whatever other programs do; never returns.
    pub(crate) async fn keep(&self) {
        match self {
            Self::Untouched => std::future::pending().await,
            Self::Resolved(resolved) => resolved.keep().await,
            Self::File(file) => file.keep().await,
        }
    }

    /// Puts everything back.
    pub(crate) async fn end(self) {
        match self {
            Self::Untouched => {}
            Self::Resolved(resolved) => resolved.end().await,
            Self::File(file) => drop(file),
        }
    }
}
