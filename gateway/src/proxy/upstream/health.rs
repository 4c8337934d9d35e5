//! Which upstreams are in: what active checks found, and what answers to real requests told. No I/O; the moment is an
//! argument.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::config::{HealthCheck, OutlierDetection};

/// What a request told of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer below 500.
    Fine,
    /// An answer of 500 or above that the app itself gave.
    ServerError,
    /// 502, 503, 504, no connection, or no answer in time.
    GatewayError,
}

impl Outcome {
    pub(crate) fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Self::GatewayError,
            500.. => Self::ServerError,
            _ => Self::Fine,
        }
    }
}

/// The health of the upstreams of one route.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    members: Vec<Member>,
    detection: Option<OutlierDetection>,
    /// `healthy_panic_threshold`: with fewer in than this many per cent, all are tried.
    panic_threshold: u8,
}

#[derive(Debug, Clone)]
struct Member {
    checks: Vec<Streak>,
    ejection: Ejection,
}

/// What one check found of one upstream.
#[derive(Debug, Clone, Default)]
struct Streak {
    is_out: bool,
    /// Results in a row that speak against the present state.
    against: u32,
}

#[derive(Debug, Clone, Default)]
struct Ejection {
    server_errors: u32,
    gateway_errors: u32,
    /// How often it was ejected; forgotten when it stayed in for long enough.
    times: u32,
    until: Option<Instant>,
}

impl Health {
    /// All are in until something is known.
    pub(crate) fn new(
        members: usize,
        checks: usize,
        detection: Option<OutlierDetection>,
        panic_threshold: u8,
    ) -> Self {
        let member = Member { checks: vec![Streak::default(); checks], ejection: Ejection::default() };
        Self { members: vec![member; members], detection, panic_threshold }
    }

    /// Takes over what `other` knows of its upstream `theirs`, if it is checked in the same way.
    pub(crate) fn take_over(&mut self, ours: usize, other: &Self, theirs: usize) {
        if self.members[ours].checks.len() == other.members[theirs].checks.len() {
            self.members[ours] = other.members[theirs].clone();
        }
    }

    /// Notes what the check number `check` found; `true` if the upstream came in or went out by it.
    pub(crate) fn checked(&mut self, place: usize, check: usize, passed: bool, by: &HealthCheck) -> bool {
        let streak = &mut self.members[place].checks[check];
        if passed != streak.is_out {
            streak.against = 0;
            return false;
        }
        streak.against += 1;
        let threshold = if passed { by.healthy_threshold } else { by.unhealthy_threshold };
        if streak.against < threshold {
            return false;
        }
        *streak = Streak { is_out: !passed, against: 0 };
        true
    }

    /// Notes how a request went; says for how long the upstream is ejected by it, if it is.
    pub(crate) fn answered(&mut self, place: usize, outcome: Outcome, now: Instant) -> Option<Duration> {
        let detection = self.detection?;
        if self.members[place].is_ejected(now) {
            return None;
        }
        let ejection = &mut self.members[place].ejection;
        match outcome {
            Outcome::Fine => {
                (ejection.server_errors, ejection.gateway_errors) = (0, 0);
                return None;
            }
            Outcome::ServerError => ejection.gateway_errors = 0,
            Outcome::GatewayError => ejection.gateway_errors = ejection.gateway_errors.saturating_add(1),
        }
        ejection.server_errors = ejection.server_errors.saturating_add(1);
        let reached = |count: u32, limit: Option<u32>| limit.is_some_and(|limit| count >= limit);
        let is_outlier = reached(ejection.server_errors, detection.consecutive_5xx)
            || reached(ejection.gateway_errors, detection.consecutive_gateway_failure);
        if !is_outlier || !self.may_eject(place, detection, now) {
            return None;
        }
        let ejection = &mut self.members[place].ejection;
        if ejection.until.is_some_and(|until| now >= until + detection.max_ejection_time) {
            ejection.times = 0;
        }
        let times = ejection.times.saturating_add(1);
        let time = detection.base_ejection_time.saturating_mul(times).min(detection.max_ejection_time);
        *ejection = Ejection { times, until: now.checked_add(time), ..Ejection::default() };
        Some(time)
    }

    /// Not too many at once, and never the last that is in: a bad answer is better than none.
    fn may_eject(&self, place: usize, detection: OutlierDetection, now: Instant) -> bool {
        let ejected = self.members.iter().filter(|member| member.is_ejected(now)).count();
        let others_in = (0..self.members.len()).any(|other| other != place && self.is_in(other, now));
        let percent = usize::from(detection.max_ejection_percent);
        let is_within = ejected == 0 || (ejected + 1) * 100 <= percent * self.members.len();
        others_in && is_within
    }

    /// Whether an upstream is neither found down nor ejected.
    pub(crate) fn is_in(&self, place: usize, now: Instant) -> bool {
        let member = &self.members[place];
        member.checks.iter().all(|check| !check.is_out) && !member.is_ejected(now)
    }

    /// Which upstreams may get requests now.
    pub(crate) fn usable(&self, now: Instant) -> impl Fn(usize) -> bool + '_ {
        let count = (0..self.members.len()).filter(|place| self.is_in(*place, now)).count();
        let is_panic = count * 100 < usize::from(self.panic_threshold) * self.members.len();
        move |place| is_panic || self.is_in(place, now)
    }
}

impl Member {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejection.until.is_some_and(|until| now < until)
    }
}

/// How long to wait for the next check: the interval, shorter or longer by up to a tenth, so that gateways side by side
/// do not all ask at once.
pub(crate) fn jittered(interval: Duration, random: u64) -> Duration {
    let per_mille = u32::try_from(900 + random % 201).unwrap_or(1000);
    interval.saturating_mul(per_mille) / 1000
}
