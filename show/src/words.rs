//! Times and sizes in words.
//!
//! Pure, but for the time of day.

use jiff::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time in RFC 3339, in UTC; given in seconds since 1970.
pub fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map_or_else(String::new, |time| time.to_string())
}

/// How long ago, as kubectl says it: in one unit, or in two while the second says much; given in seconds.
pub fn age(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    let two = |unit: u64, name: &str, next: u64, next_name: &str| match seconds % unit / next {
        0 => format!("{}{name}", seconds / unit),
        rest => format!("{}{name}{rest}{next_name}", seconds / unit),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(DAY, "d", HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// When that is, in seconds since 1970: a time in RFC 3339, or how long ago, as [`age`] says it.
pub fn since(text: &str) -> Result<u64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(u64::try_from(time.as_second()).unwrap_or(0));
    }
    let wrong = || "it is a time like 90s, 10m, 2h30m or 3d, or like 2026-11-29T02:40:00Z".to_owned();
    let mut ago: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = match &rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return Err(wrong()),
        };
        ago = number.checked_mul(unit).and_then(|part| ago.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[end + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(now().saturating_sub(ago)) }
}

/// In seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A size in bytes, as Kubernetes writes quantities: `512Ki`, `1.5Gi`.
pub fn size(bytes: u64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    // One digit behind the point where there is one before it.
    if unit > 0 && value < 9.95 { format!("{value:.1}{}", units[unit]) } else { format!("{value:.0}{}", units[unit]) }
}

/// `1 volume`, `2 volumes`.
pub fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_people_say_it() {
        let ago = |text: &str| now() - since(text).unwrap();
        for (text, seconds) in [("90s", 90), ("2h30m", 9000), ("3d", 259_200), ("0s", 0)] {
            assert!((seconds..seconds + 5).contains(&ago(text)), "{text}");
        }
        assert_eq!(since("1970-01-01T00:16:40Z"), Ok(1000));
        assert_eq!(since("999999d"), Ok(0));
        for wrong in ["", "10", "m", "10x", "10µ", "-5m", "5m ", "99999999999999999999s", "yesterday"] {
            assert!(since(wrong).unwrap_err().contains("2h30m"), "{wrong}");
        }
    }

    #[test]
    fn times_ages_sizes_and_numbers() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_796_006_400), "2026-11-30T02:40:00Z");
        assert_eq!(time(u64::MAX), "");
        for (seconds, words) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (3_000, "50m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (900_000, "10d"),
            (100_000_000, "3y62d"),
            (300_000_000, "9y"),
        ] {
            assert_eq!(age(seconds), words, "{seconds}");
        }
        for (bytes, words) in
            [(0, "0"), (1023, "1023"), (1024, "1.0Ki"), (10_236, "10Ki"), (36 << 20, "36Mi"), (3 << 29, "1.5Gi")]
        {
            assert_eq!(size(bytes), words, "{bytes}");
        }
        assert!(size(u64::MAX).ends_with("Ei"));
        assert_eq!((count(1, "volume"), count(0, "volume")), ("1 volume".into(), "0 volumes".into()));
    }
}
