//! When a session ends: after a length, at a time of day, or whichever comes first.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, ToSpan, civil::Time, tz::TimeZone};

/// `session_expires_at`: a local time of day, like `03:00 Europe/Zurich`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOfDay {
    time: Time,
    zone: TimeZone,
}

/// Why a text is no time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a local time and its zone, like \"03:00 Europe/Zurich\"")]
pub struct TimeOfDayError;

impl FromStr for TimeOfDay {
    type Err = TimeOfDayError;

    /// `HH:MM` and the name of a zone in the IANA database.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, zone) = text.split_once(' ').ok_or(TimeOfDayError)?;
        let (hour, minute) = time.split_once(':').ok_or(TimeOfDayError)?;
        let number = |text: &str| {
            let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_plain { text.parse::<i8>().map_err(|_| TimeOfDayError) } else { Err(TimeOfDayError) }
        };
        let time = Time::new(number(hour)?, number(minute)?, 0, 0).map_err(|_| TimeOfDayError)?;
        let zone = TimeZone::get(zone).map_err(|_| TimeOfDayError)?;
        Ok(Self { time, zone })
    }
}

impl TimeOfDay {
    /// The next such moment after `now`. On a day whose clocks skip it, it is as much later; where they show it twice, the
    /// first counts. `None` beyond the calendar.
    #[must_use]
    pub fn next_after(&self, now: SystemTime) -> Option<SystemTime> {
        let now = Timestamp::try_from(now).ok()?;
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        [0, 1, 2].into_iter().find_map(|days| {
            let day = today.checked_add(days.days()).ok()?;
            let moment = self.zone.to_zoned_datetime(day.to_datetime(self.time)).ok()?.timestamp();
            if moment > now { moment.try_into().ok() } else { None }
        })
    }
}

/// When a session that begins at `now` ends.
#[must_use]
pub fn session_end(
    length: Option<Duration>,
    at: Option<&TimeOfDay>,
    longest: Duration,
    now: SystemTime,
) -> SystemTime {
    let by_clock = at.and_then(|at| at.next_after(now));
    let by_length = length.map(|length| now + length);
    // Neither: the clock is beyond the calendar, and only the limit is left.
    [by_clock, by_length].into_iter().flatten().min().unwrap_or(now + longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().try_into().unwrap()
    }

    fn next(time: &str, now: &str) -> String {
        let next = time.parse::<TimeOfDay>().unwrap().next_after(at(now)).unwrap();
        Timestamp::try_from(next).unwrap().to_string()
    }

    #[test]
    fn the_night_is_local_and_follows_the_clocks() {
        let three = "03:00 Europe/Zurich";
        assert_eq!(next(three, "2026-01-15T12:00:00Z"), "2026-01-16T02:00:00Z");
        assert_eq!(next(three, "2026-07-15T12:00:00Z"), "2026-07-16T01:00:00Z");
        assert_eq!(next(three, "2026-07-15T00:59:59Z"), "2026-07-15T01:00:00Z");
        assert_eq!(next(three, "2026-07-15T01:00:00Z"), "2026-07-16T01:00:00Z", "the moment itself is over");
        // 2026-03-29: 02:00 to 03:00 does not exist; 2026-10-25: it comes twice.
        assert_eq!(next("02:30 Europe/Zurich", "2026-03-28T12:00:00Z"), "2026-03-29T01:30:00Z");
        assert_eq!(next("02:30 Europe/Zurich", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
    }

    #[test]
    fn what_is_no_time_of_day_is_refused() {
        for text in
            ["", "03:00", "3:00 Europe/Zurich", "24:00 UTC", "03:00 Mars/Olympus", "03:60 UTC", "+3:00 UTC"]
        {
            assert_eq!(text.parse::<TimeOfDay>(), Err(TimeOfDayError), "{text}");
        }
    }

    #[test]
    fn the_earlier_of_length_and_clock_ends_a_session() {
        let (hour, now) = (Duration::from_secs(3600), at("2026-01-15T12:00:00Z"));
        let three = "03:00 UTC".parse().unwrap();
        assert_eq!(session_end(Some(hour), Some(&three), hour, now), now + hour);
        assert_eq!(session_end(Some(20 * hour), Some(&three), hour, now), now + 15 * hour);
        assert_eq!(session_end(None, Some(&three), hour, now), now + 15 * hour);
    }

    proptest! {
        #[test]
        fn the_next_time_is_ahead_within_a_day_and_what_the_clock_shows(
            seconds in 1_600_000_000_i64..2_000_000_000, hour in 0_i8..24, minute in 0_i8..60,
            zone in prop_oneof![Just("UTC"), Just("Europe/Zurich"), Just("America/St_Johns"), Just("Pacific/Apia")],
        ) {
            let time: TimeOfDay = format!("{hour:02}:{minute:02} {zone}").parse().unwrap();
            let now = Timestamp::from_second(seconds).unwrap();
            let next = Timestamp::try_from(time.next_after(now.try_into().unwrap()).unwrap()).unwrap();
            // A night on which the clocks change has up to 25 hours.
            prop_assert!(next > now && next.as_second() - seconds <= 26 * 3600);
            let shown = next.to_zoned_datetime(time.zone).time();
            let is_skipped = shown.hour() == hour + 1 && shown.minute() == minute;
            prop_assert!(is_skipped || (shown.hour() == hour && shown.minute() == minute), "{}", shown);
        }
    }
}
