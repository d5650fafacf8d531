//! The last lines that a program has written. Pure.

use api::program::MAX_WORDS;
use std::collections::VecDeque;

/// How much of a line is kept, in bytes.
const MAX_LINE: usize = 400;

/// The last lines, and the one that has no end yet.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    lines: VecDeque<Vec<u8>>,
    unfinished: Vec<u8>,
}

impl LastWords {
    /// Takes what was written.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = part.strip_suffix(b"\n").unwrap_or(part);
            let room = MAX_LINE - self.unfinished.len();
            self.unfinished.extend(&line[..line.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.unfinished);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if self.lines.len() == MAX_WORDS {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// All of it, in lines.
    pub(super) fn lines(mut self) -> Vec<String> {
        self.end_line();
        self.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let mut words = LastWords::default();
        for part in [&b"one\ntw"[..], b"o\n\n \nthr", b"ee"] {
            words.take(part);
        }
        assert_eq!(words.lines(), ["one", "two", "three"]);
        let mut words = LastWords::default();
        for number in 0..100 {
            words.take(format!("{number}\n").as_bytes());
        }
        words.take(&[b'x'; 10_000]);
        let lines = words.lines();
        assert_eq!((lines.len(), &*lines[0], lines[MAX_WORDS - 1].len()), (MAX_WORDS, "81", MAX_LINE));
    }
}
