//! What tells flows apart, how many there may be, and when each has to be looked at.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

/// Both ends of a flow, as its opener sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// Names a flow of one stack; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub(super) u64);

/// Counts places, in all and by source.
#[derive(Debug)]
pub(super) struct Quota {
    total: usize,
    total_max: usize,
    by_source: HashMap<IpAddr, usize>,
    per_source_max: usize,
}

impl Quota {
    pub(super) fn new(total_max: usize, per_source_max: usize) -> Self {
        Self { total: 0, total_max, by_source: HashMap::new(), per_source_max }
    }

    /// Takes a place for `source`, if there is one.
    #[must_use]
    pub(super) fn take(&mut self, source: IpAddr) -> bool {
        let held = self.by_source.get(&source).copied().unwrap_or(0);
        if self.total >= self.total_max || held >= self.per_source_max {
            return false;
        }
        self.total += 1;
        self.by_source.insert(source, held + 1);
        true
    }

    /// Gives a place back that [`Self::take`] gave out.
    pub(super) fn give(&mut self, source: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(held) = self.by_source.get_mut(&source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// When each flow has to be looked at again.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Instant, FlowId)>,
    of: HashMap<FlowId, Instant>,
}

impl Timers {
    pub(super) fn set(&mut self, id: FlowId, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.of.insert(id, at),
            None => self.of.remove(&id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, id));
        }
        if let Some(at) = at {
            self.by_time.insert((at, id));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes a flow whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<FlowId> {
        let (at, id) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(id, None);
        Some(id)
    }
}

/// So many a second, and no more at once.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    left: u32,
    since: Instant,
}

impl Rate {
    pub(super) const fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: per_second, since: now }
    }

    #[must_use]
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since).as_secs() >= 1 {
            self.since = now;
            self.left = self.per_second;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}
