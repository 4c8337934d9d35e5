//! Dates, days, times and ages as they are written.

use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    tz::{TimeZone, TimeZoneDatabase},
};

use super::{PolicyProblem, Reader};
use crate::{
    authorize::calendar::{AgeLimit, ClockTest, DAY_WORDS, DateRange, DayTime, Days, TimeRange},
    duration,
    yaml::{Node, Value},
};

const DATE: &str = "a date or a moment, such as 2026-03-01 or 2026-03-01T09:00:00Z";
const TIME: &str = "a time of day, such as 9AM, 5:30 PM or 17:30";
const DAYS: &str = "days of the week, such as mon-fri or \"mon,wed\", or \"*\" for all";
const ZONE: &str = "a time zone by its name, such as Europe/Zurich or UTC";
const BOUNDS: &str = "`after` or `before`";
const DURATION: &str = "a duration above zero with its unit, such as 30m or 8h";

impl Reader {
    /// `{after, before, timezone}`; a date without an offset is one of that zone, or of UTC.
    pub(super) fn date(&mut self, node: &Node) -> Option<ClockTest> {
        let keys = &["after", "before", "timezone"];
        let [after, before, zone] = self.fields(node, keys, "a mapping such as `after: 2026-03-01`")?;
        let zone = self.optional(zone, Self::zone)?.unwrap_or(TimeZone::UTC);
        let moment = |reader: &mut Self, node: &Node| reader.parsed(node, DATE, |text| moment(text, &zone));
        let (after, before) = (self.optional(after, moment), self.optional(before, moment));
        let range = DateRange { after: after?, before: before? };
        match (range.after, range.before) {
            (None, None) => self.missing(node, BOUNDS),
            (Some(after), Some(before)) if after >= before => self.fail(node.at, PolicyProblem::EmptyRange),
            _ => return Some(ClockTest::Date(range)),
        }
        None
    }

    /// `mon-fri`, in UTC, or `{is, timezone}`.
    pub(super) fn day_of_week(&mut self, node: &Node) -> Option<ClockTest> {
        let (node, zone) = match &node.value {
            Value::Map(_) => {
                let [days, zone] = self.fields(node, &["is", "timezone"], DAYS)?;
                let (days, zone) =
                    (self.required(node, days, "`is`"), self.required(node, zone, "`timezone`"));
                (days?, self.zone(zone?)?)
            }
            _ => (node, TimeZone::UTC),
        };
        let days = self.parsed(node, DAYS, days)?;
        Some(ClockTest::DayOfWeek(Days { zone, days }))
    }

    /// `{timezone, after, before}`.
    pub(super) fn time_of_day(&mut self, node: &Node) -> Option<ClockTest> {
        let keys = &["after", "before", "timezone"];
        let [after, before, zone] =
            self.fields(node, keys, "a mapping with `timezone`, `after` and `before`")?;
        let zone = self.required(node, zone, "`timezone`").and_then(|zone| self.zone(zone));
        let time = |reader: &mut Self, node: &Node| reader.parsed(node, TIME, time);
        let (after, before) = (self.optional(after, time), self.optional(before, time));
        let range = match (after?, before?) {
            (Some(after), Some(before)) if after != before => TimeRange::Between { after, before },
            (Some(_), Some(_)) => {
                self.fail(node.at, PolicyProblem::EmptyRange);
                return None;
            }
            (Some(after), None) => TimeRange::After(after),
            (None, Some(before)) => TimeRange::Before(before),
            (None, None) => {
                self.missing(node, BOUNDS);
                return None;
            }
        };
        Some(ClockTest::TimeOfDay(DayTime { zone: zone?, range }))
    }

    /// `{at_most: 8h}`.
    pub(super) fn age(&mut self, node: &Node) -> Option<AgeLimit> {
        let [at_most] = self.fields(node, &["at_most"], "a mapping such as `at_most: 8h`")?;
        let at_most = self.required(node, at_most, "`at_most`")?;
        let limit = |text: &str| duration::parse(text).ok().filter(|limit| !limit.is_zero());
        self.parsed(at_most, DURATION, limit).map(AgeLimit)
    }

    /// Of the built-in zones: a policy means the same on every machine, and reading it touches no file.
    fn zone(&mut self, node: &Node) -> Option<TimeZone> {
        let known = |text: &str| TimeZoneDatabase::bundled().get(text).ok().filter(|zone| !zone.is_unknown());
        self.parsed(node, ZONE, known)
    }
}

fn moment(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    // A zone in brackets would be read and ignored.
    if text.contains('[') {
        return None;
    }
    text.parse().ok().or_else(|| {
        let on_wall: DateTime = text.parse().ok()?;
        zone.to_ambiguous_timestamp(on_wall).compatible().ok()
    })
}

/// `mon-fri,sun` as bits, Monday the lowest; a range may go over Sunday.
fn days(text: &str) -> Option<u8> {
    if text == "*" {
        return Some(0b111_1111);
    }
    let day = |word: &str| DAY_WORDS.iter().position(|known| known.eq_ignore_ascii_case(word.trim()));
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let count = (last + DAY_WORDS.len() - first) % DAY_WORDS.len();
        Some((first..=first + count).fold(days, |days, index| days | 1 << (index % DAY_WORDS.len())))
    })
}

/// `9AM`, `5:30 PM`, `17:30`, `17:30:15.250`.
fn time(text: &str) -> Option<Time> {
    let text = text.trim().to_ascii_lowercase();
    let half =
        [("am", 0), ("pm", 12)].iter().find_map(|(word, hours)| Some((text.strip_suffix(word)?, *hours)));
    let clock = half.map_or(text.as_str(), |(clock, _)| clock.trim_end());
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, part)| (clock, Some(part)));
    let mut parts = clock.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next(), parts.next());
    let has_shape = parts.next().is_none()
        && (minute.is_some() || half.is_some())
        && (second.is_some() || fraction.is_none());
    let hour = match half {
        Some((_, hours)) if (1..=12).contains(&hour) => hour % 12 + hours,
        Some(_) => return None,
        None => hour,
    };
    let nanosecond = match fraction {
        Some(digits) => number(digits, 9)? * 10_i32.pow(9 - u32::try_from(digits.len()).ok()?),
        None => 0,
    };
    let small = |part: Option<Option<i32>>| part.map_or(Some(0), |part| i8::try_from(part?).ok());
    let time = Time::new(small(Some(Some(hour)))?, small(minute)?, small(second)?, nanosecond).ok()?;
    has_shape.then_some(time)
}

/// One to `len_max` digits, and nothing else.
fn number(text: &str, len_max: usize) -> Option<i32> {
    let is_number =
        !text.is_empty() && text.len() <= len_max && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}
