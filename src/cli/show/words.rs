//! Times and sizes in words.
//!
//! Pure.

use jiff::Timestamp;

/// A time in RFC 3339, in UTC; given in seconds since 1970.
pub(in crate::cli) fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).map_or_else(String::new, |time| time.to_string())
}

/// How long ago, as kubectl says it: in one unit, or in two while the second says much; given in seconds.
pub(in crate::cli) fn age(seconds: u64) -> String {
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

/// A size in bytes, as Kubernetes writes quantities: `512Ki`, `1.5Gi`.
pub(in crate::cli) fn size(bytes: u64) -> String {
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
pub(in crate::cli) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

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
