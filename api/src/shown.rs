//! Words of others as a terminal may show them.
//!
//! Pure. Targets, sources, types and what helpers write may hold anything: a control character would move the cursor, change
//! colours or titles, or make a terminal answer as if somebody had typed. Answers in JSON are for programs and stay exact.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` in one line: with every character escaped that a terminal would act upon and not show.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, false)
}

/// The same for words of several lines: line feeds stay.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, true)
}

/// The same for JSON that is written out: only strings hold such characters there, and they are escaped as JSON has it.
pub fn shown_json(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let safe = text.chars().fold(String::with_capacity(text.len() + 16), |mut safe, character| {
        // All of them have four digits. Writing to a String cannot fail.
        let _ =
            if acts(character) { write!(safe, "\\u{:04x}", u32::from(character)) } else { safe.write_char(character) };
        safe
    });
    Cow::Owned(safe)
}

/// A path, or another word that need not be text.
pub fn shown_path(path: &std::path::Path) -> String {
    shown(&path.to_string_lossy()).into_owned()
}

fn escaped(text: &str, lines: bool) -> Cow<'_, str> {
    let acts = |character: char| acts(character) && !(lines && character == '\n');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = match character {
            '\n' | '\r' if acts(character) => write!(safe, "{}", character.escape_default()),
            _ if acts(character) => write!(safe, "\\u{{{:x}}}", u32::from(character)),
            _ => safe.write_char(character),
        };
    }
    Cow::Owned(safe)
}

/// Whether a terminal acts upon it: control characters but the tab (C0, DEL, C1), and what breaks lines or turns the order of writing round.
fn acts(character: char) -> bool {
    let turns =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (character.is_control() && character != '\t') || turns || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_lose_their_power_and_words_stay() {
        assert_eq!(shown("\u{1b}[2J\u{1b}]0;title\u{7}"), "\\u{1b}[2J\\u{1b}]0;title\\u{7}");
        assert_eq!(shown("a\r\n\tb\u{9b}31m\u{7f}"), "a\\r\\n\tb\\u{9b}31m\\u{7f}");
        assert_eq!(shown("\u{202e}txt.exe"), "\\u{202e}txt.exe");
        assert_eq!(shown("host:/übung \\040 日本 🙂"), "host:/übung \\040 日本 🙂");
        assert_eq!(shown_lines("one\ntwo\u{1b}c"), "one\ntwo\\u{1b}c");
    }

    proptest! {
        #[test]
        fn nothing_shown_acts(text in any::<String>()) {
            let safe = shown(&text);
            prop_assert!(!safe.contains(acts));
            prop_assert_eq!(shown(&safe), safe.clone(), "what is safe stays as it is");
            prop_assert_eq!(text.contains(acts), safe != text);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(!shown_json(&json).contains(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&shown_json(&json)).unwrap(), text.clone());
            prop_assert!(!shown_lines(&text).contains(|character| acts(character) && character != '\n'));
        }
    }
}
