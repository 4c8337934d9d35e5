//! When a certificate is due. Pure: the moment is an argument.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pomerium_shared::clock::Now;

use super::seconds;
use crate::x509::Validity;

/// The first wait after a failure; doubles with each further one. An authority bears few failures an hour.
const BACK_OFF_MIN: Duration = Duration::from_secs(300);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(12 * 3600);

/// What was tried in vain, by host.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    waits: BTreeMap<String, Wait>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    failures: u32,
    until: Instant,
}

impl Schedule {
    /// The most urgent host: one without a certificate, or else the one whose certificate ends first and is in the last third of
    /// its life.
    pub(super) fn due<'a>(
        &mut self,
        hosts: &BTreeMap<&'a str, Option<Validity>>,
        now: Now,
    ) -> Option<&'a str> {
        self.waits.retain(|host, _| hosts.contains_key(host.as_str()));
        let is_ready = |host: &str| self.waits.get(host).is_none_or(|wait| wait.until <= now.monotonic);
        let is_due = |validity: &Option<Validity>| {
            validity.is_none_or(|validity| {
                let life = validity.not_after.saturating_sub(validity.not_before);
                seconds(now.wall) >= validity.not_after.saturating_sub(life / 3)
            })
        };
        let due = hosts.iter().filter(|(host, validity)| is_due(validity) && is_ready(host));
        due.min_by_key(|(_, validity)| validity.map(|validity| validity.not_after)).map(|(host, _)| *host)
    }

    /// It worked.
    pub(super) fn succeeded(&mut self, host: &str) {
        self.waits.remove(host);
    }

    /// It did not; gives the time until it is tried again.
    pub(super) fn failed(&mut self, host: &str, now: Now) -> Duration {
        let failures = self.failures(host) + 1;
        let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        let pause = BACK_OFF_MIN.saturating_mul(factor).min(BACK_OFF_MAX);
        self.waits.insert(host.to_owned(), Wait { failures, until: now.monotonic + pause });
        pause
    }

    /// Not now: somebody else is at it.
    pub(super) fn wait(&mut self, host: &str, pause: Duration, now: Now) {
        let wait = Wait { failures: self.failures(host), until: now.monotonic + pause };
        self.waits.insert(host.to_owned(), wait);
    }

    /// Failures in a row.
    pub(super) fn failures(&self, host: &str) -> u32 {
        self.waits.get(host).map_or(0, |wait| wait.failures)
    }
}
