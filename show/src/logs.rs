//! Which lines of a helper's are asked for, and how one is shown.
//!
//! Pure.

use crate::words;
use api::shown::shown;

/// The command line of `logs`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where it is, was or should have been mounted
    pub target: String,
    /// Go on with what is written from now on, until the volume has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only what was written since then: 90s, 10m, 2h30m, 3d, or a time as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = words::since)]
    since: Option<u64>,
    /// Show when each line was read
    #[arg(long)]
    timestamps: bool,
}

impl Arguments {
    /// Whether a line is asked for that was read then.
    pub fn wants(&self, time: u64) -> bool {
        self.since.is_none_or(|since| time >= since)
    }

    /// A line as it is shown.
    pub fn line(&self, time: u64, text: &str) -> String {
        let text = shown(text);
        if self.timestamps { format!("{} {text}", words::time(time)) } else { text.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn lines_are_shown_as_asked_for() {
        let arguments =
            |words: &str| Line::parse_from(["logs", "/mnt/a"].into_iter().chain(words.split(' '))).arguments;
        assert_eq!(arguments("--follow").line(7, "told\u{1b}c"), "told\\u{1b}c");
        assert_eq!(arguments("--timestamps").line(7, "told"), "1970-01-01T00:00:07Z told");
        let since = arguments("--since 1970-01-01T00:00:07Z");
        assert_eq!([6, 7].map(|time| since.wants(time)), [false, true]);
    }
}
