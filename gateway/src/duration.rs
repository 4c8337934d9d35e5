//! Durations as Go writes them: `30s`, `1h5m`, `1.5h`, `100ms`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    #[error("expected a duration with its unit, like 30s, 5m or 1h30m")]
    NotADuration,
    #[error("a duration must not be negative")]
    Negative,
    #[error("this duration is too long")]
    TooLong,
}

/// Reads a duration; units are `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`, and `0` needs none.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    use DurationError::{Negative, NotADuration, TooLong};
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if let Some(positive) = text.strip_prefix('-') {
        return parse(positive).and(Err(Negative));
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(NotADuration);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(NotADuration)?;
        let (number, behind) = rest.split_at(number_len);
        let unit_len = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_len);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(NotADuration),
        };
        total = total.checked_add(Duration::from_nanos(nanoseconds(number, unit)?)).ok_or(TooLong)?;
        rest = next;
    }
    // What Go can hold, which is 292 years.
    if total.as_nanos() > i64::MAX as u128 { Err(TooLong) } else { Ok(total) }
}

fn nanoseconds(number: &str, unit: u64) -> Result<u64, DurationError> {
    use DurationError::{NotADuration, TooLong};
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(NotADuration);
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| TooLong)? };
    let mut nanoseconds = u128::from(whole) * u128::from(unit);
    let mut scale = u128::from(unit);
    for digit in fraction.bytes() {
        // Digits below a nanosecond are cut off, as Go does.
        if scale == 0 {
            break;
        }
        nanoseconds += u128::from(digit - b'0') * scale / 10;
        scale /= 10;
    }
    u64::try_from(nanoseconds).map_err(|_| TooLong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("30s", 30_000),
            ("1h5m", 3_900_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("100ms", 100),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        use DurationError::{Negative, NotADuration, TooLong};
        for (text, error) in [
            ("", NotADuration),
            ("30", NotADuration),
            ("s", NotADuration),
            ("1d", NotADuration),
            ("1 s", NotADuration),
            ("1.2.3s", NotADuration),
            (".s", NotADuration),
            ("-5s", Negative),
            ("300000000h", TooLong),
            ("99999999999999999999h", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-+0-9.nuµmsh x]{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn whole_seconds_survive(seconds in 0_u64..1_000_000_000) {
            prop_assert_eq!(parse(&format!("{seconds}s")), Ok(Duration::from_secs(seconds)));
        }
    }
}
