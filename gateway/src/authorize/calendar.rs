//! Matchers of the clock: dates, days of the week, times of day, ages.
//!
//! Every range holds from its first moment on and ends just before its last, so that ranges side by side leave no gap
//! and share no moment. What depends on a place's clock is answered by the clock on its wall: an hour that a place skips
//! is no time there, an hour that it repeats counts twice.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, civil::Time, tz::TimeZone};

use super::reason::Reason;

/// The days of the week by their words, Monday first.
pub(super) const DAY_WORDS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// One question to the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockTest {
    /// `date`.
    Date(DateRange),
    /// `day_of_week`.
    DayOfWeek(Days),
    /// `time_of_day`.
    TimeOfDay(DayTime),
}

impl ClockTest {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Date(_) => "date",
            Self::DayOfWeek(_) => "day_of_week",
            Self::TimeOfDay(_) => "time_of_day",
        }
    }

    /// The reasons of a yes and of a no.
    pub(super) const fn reasons(&self) -> (Reason, Reason) {
        match self {
            Self::Date(_) => (Reason::DateOk, Reason::DateUnauthorized),
            Self::DayOfWeek(_) => (Reason::DayOfWeekOk, Reason::DayOfWeekUnauthorized),
            Self::TimeOfDay(_) => (Reason::TimeOfDayOk, Reason::TimeOfDayUnauthorized),
        }
    }

    pub(super) fn matches(&self, now: SystemTime) -> bool {
        let now = timestamp(now);
        match self {
            Self::Date(range) => range.matches(now),
            Self::DayOfWeek(days) => days.matches(now),
            Self::TimeOfDay(times) => times.matches(now),
        }
    }

    /// The next moment after `now` at which the answer may change. It may be one at which it does not.
    pub(super) fn next_edge(&self, now: SystemTime) -> Option<SystemTime> {
        let now = timestamp(now);
        let edge = match self {
            Self::Date(range) => range.next_edge(now),
            Self::DayOfWeek(days) => next_on_wall(&days.zone, now, &[Time::midnight()]),
            Self::TimeOfDay(times) => times.next_edge(now),
        };
        edge.and_then(|edge| SystemTime::try_from(edge).ok())
    }

    /// The zone in which people read this clock.
    pub(super) fn zone(&self) -> TimeZone {
        match self {
            Self::Date(_) => TimeZone::UTC,
            Self::DayOfWeek(days) => days.zone.clone(),
            Self::TimeOfDay(times) => times.zone.clone(),
        }
    }
}

/// `date`: from one moment until just before another; at least one of them is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateRange {
    pub(super) after: Option<Timestamp>,
    pub(super) before: Option<Timestamp>,
}

impl DateRange {
    fn matches(&self, now: Timestamp) -> bool {
        self.after.is_none_or(|after| now >= after) && self.before.is_none_or(|before| now < before)
    }

    fn next_edge(&self, now: Timestamp) -> Option<Timestamp> {
        [self.after, self.before].into_iter().flatten().filter(|edge| *edge > now).min()
    }
}

/// `day_of_week`: some days, as a place counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Days {
    pub(super) zone: TimeZone,
    /// A bit a day, Monday the lowest; at least one is set.
    pub(super) days: u8,
}

impl Days {
    fn matches(&self, now: Timestamp) -> bool {
        let day = self.zone.to_datetime(now).weekday();
        self.days & (1 << day.to_monday_zero_offset()) != 0
    }
}

/// `time_of_day`: from one time until just before another, over midnight where the first is the later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayTime {
    pub(super) zone: TimeZone,
    pub(super) range: TimeRange,
}

/// The times of one day that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeRange {
    After(Time),
    Before(Time),
    /// The two differ.
    Between {
        after: Time,
        before: Time,
    },
}

impl DayTime {
    fn matches(&self, now: Timestamp) -> bool {
        let time = self.zone.to_datetime(now).time();
        match self.range {
            TimeRange::After(after) => time >= after,
            TimeRange::Before(before) => time < before,
            TimeRange::Between { after, before } if after < before => time >= after && time < before,
            TimeRange::Between { after, before } => time >= after || time < before,
        }
    }

    fn next_edge(&self, now: Timestamp) -> Option<Timestamp> {
        let midnight = Time::midnight();
        let edges = match self.range {
            TimeRange::After(edge) | TimeRange::Before(edge) => [edge, midnight],
            TimeRange::Between { after, before } => [after, before],
        };
        next_on_wall(&self.zone, now, &edges)
    }
}

/// How long something counts: while less than this has passed since it happened. What is said to happen in the future
/// does not count: the clock has jumped, or somebody lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeLimit(pub(super) Duration);

impl AgeLimit {
    pub(super) fn holds(self, since: SystemTime, now: SystemTime) -> bool {
        now.duration_since(since).is_ok_and(|age| age < self.0)
    }

    pub(super) fn next_edge(self, since: SystemTime, now: SystemTime) -> Option<SystemTime> {
        if since > now {
            return Some(since);
        }
        since.checked_add(self.0).filter(|end| *end > now)
    }
}

/// The first moment after `now` at which the clock on the wall of `zone` shows one of `times`, or jumps. It may be a
/// moment too early, never one too late.
fn next_on_wall(zone: &TimeZone, now: Timestamp, times: &[Time]) -> Option<Timestamp> {
    let today = zone.to_datetime(now).date();
    let days = [Some(today), today.tomorrow().ok()];
    let shown = days.into_iter().flatten().flat_map(|day| {
        times.iter().flat_map(move |time| {
            let moment = zone.to_ambiguous_timestamp(day.to_datetime(*time));
            [moment.earlier().ok(), moment.later().ok()]
        })
    });
    let jump = zone.following(now).map(|transition| transition.timestamp()).find(|moment| *moment > now);
    shown.chain([jump]).flatten().filter(|moment| *moment > now).min()
}

/// The moment, or the last one that the calendar knows.
fn timestamp(wall: SystemTime) -> Timestamp {
    let beyond = if wall < UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(wall).unwrap_or(beyond)
}

/// A time zone's name as it is written in policies.
pub(super) fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

impl fmt::Display for ClockTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date(range) => range.fmt(f),
            Self::DayOfWeek(days) => days.fmt(f),
            Self::TimeOfDay(times) => times.fmt(f),
        }
    }
}

impl fmt::Display for DateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.after, self.before) {
            (Some(after), Some(before)) => write!(f, "after {after} and before {before}"),
            (Some(after), None) => write!(f, "after {after}"),
            (None, Some(before)) => write!(f, "before {before}"),
            (None, None) => f.write_str("at any time"),
        }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = DAY_WORDS.iter().enumerate().filter(|(index, _)| self.days & (1 << index) != 0);
        for (index, (_, word)) in words.enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            f.write_str(word)?;
        }
        write!(f, " in {}", zone_name(&self.zone))
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range {
            TimeRange::After(after) => write!(f, "after {after}")?,
            TimeRange::Before(before) => write!(f, "before {before}")?,
            TimeRange::Between { after, before } => write!(f, "after {after} and before {before}")?,
        }
        write!(f, " in {}", zone_name(&self.zone))
    }
}

impl fmt::Display for AgeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at_most {:?}", self.0)
    }
}
