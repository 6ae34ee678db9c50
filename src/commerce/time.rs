//! Milliseconds since the Unix epoch as RFC 3339 UTC strings, and durations as people write them.

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z: RFC 3339 has four digits for the year.
const LAST_MS: u64 = 253_402_300_799_999;

/// `2026-11-23T21:20:24.007Z`. Times past the year 9999 are shown as its last millisecond.
pub fn rfc3339(ms: u64) -> String {
    let ms = ms.min(LAST_MS);
    let (year, month, day) = civil_from_days(ms / DAY_MS);
    let in_day = ms % DAY_MS;
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The first whole millisecond that is not before an RFC 3339 time (`2026-11-23T21:20:24.0071Z`,
/// `2026-11-23T22:20:24+01:00`). Times before 1970 are 0.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, zone) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let (fraction_ms, zone) = fraction_ms(zone)?;
    let offset_min = offset_min(zone)?;
    // A leap second counts as the one after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    let minutes = days * 1440 + hour * 60 + minute - offset_min;
    Some(u64::try_from((minutes * 60 + second) * 1000 + fraction_ms).unwrap_or(0))
}

/// Three numbers of so many digits each.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// A fraction of a second, rounded up to milliseconds, and what stands behind it.
fn fraction_ms(text: &str) -> Option<(i64, &str)> {
    let Some(fraction) = text.strip_prefix('.') else { return Some((0, text)) };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, rest) = fraction.split_at(digits);
    let digit = |at: usize| fraction.as_bytes().get(at).map_or(0, |digit| i64::from(digit - b'0'));
    let more = fraction.bytes().skip(3).any(|digit| digit != b'0');
    (digits > 0).then_some((digit(0) * 100 + digit(1) * 10 + digit(2) + i64::from(more), rest))
}

fn offset_min(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let [_, hours, minutes] = numbers(&format!("0:{}", zone.strip_prefix(['+', '-'])?), ':', [1, 2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// Days since 1970-01-01 of a date, if there is one: the inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=in_month).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// `"500ms"`, `"90s"`, `"15m"`, `"24h"` or `"1d"` in milliseconds: one whole number and one unit.
pub fn duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

/// Year, month, day of the proleptic Gregorian calendar, by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>), for days since 1970-01-01.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_000_000_000_123, "2001-09-09T01:46:40.123Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for ms in (0..LAST_MS).step_by(86_399_997_431).chain([LAST_MS, 951_782_400_000, 951_868_800_000]) {
            assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms), "{}", rfc3339(ms));
        }
    }

    #[test]
    fn times_of_every_form_are_read() {
        for (text, ms) in [
            ("2001-09-09T01:46:40Z", 1_000_000_000_000),
            ("2001-09-09t01:46:40z", 1_000_000_000_000),
            ("2001-09-09T03:16:40+01:30", 1_000_000_000_000),
            ("2001-09-08T23:46:40.5-02:00", 1_000_000_000_500),
            ("2001-09-09T01:46:40.1234Z", 1_000_000_000_124),
            ("2001-09-09T01:46:40.123000Z", 1_000_000_000_123),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("1969-12-31T23:59:59Z", 0),
            ("0000-02-29T00:00:00Z", 0),
        ] {
            assert_eq!(parse_rfc3339(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-09-09T01:46Z",
            "2001-09-09 01:46:40Z",
            "2001-09-09T01:46:40 01:00",
            "2001-09-09T01:46:40+0100",
            "2001-09-09T01:46:40+24:00",
            "2001-09-09T01:46:40.Z",
            "2001-02-29T01:46:40Z",
            "2001-13-01T01:46:40Z",
            "2001-00-01T01:46:40Z",
            "2001-09-31T01:46:40Z",
            "2001-09-09T24:00:00Z",
            "2001-09-09T01:60:00Z",
            "+001-09-09T01:46:40Z",
            "2001-09-09T01:46:40ZZ",
            "２001-09-09T01:46:40Z",
            "1000000000",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_one_number_and_one_unit() {
        let known = [("0s", 0), ("500ms", 500), ("90s", 90_000), ("15m", 900_000), ("24h", DAY_MS), ("1d", DAY_MS)];
        for (text, ms) in known {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for bad in [
            "",
            "15",
            "m",
            "-1m",
            "+1m",
            "1.5h",
            "1h30m",
            "1 m",
            "1M",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert_eq!(duration_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil_from_days(0);
        for day in 1..200_000 {
            let (year, month, dom) = civil_from_days(day);
            let next_day = before == (year, month, dom - 1);
            let next_month = dom == 1 && (before.0, before.1 + 1) == (year, month) && before.2 >= 28;
            let next_year = (month, dom) == (1, 1) && before == (year - 1, 12, 31);
            assert!(next_day || next_month || next_year, "{before:?} then {:?}", (year, month, dom));
            before = (year, month, dom);
        }
    }
}
