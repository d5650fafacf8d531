//! What the doctor finds: how it is made, and how people see it.
//!
//! Pure.

use crate::document::{Finding, Level};
use crate::table::{Colour, painted};
use crate::terminal::Terminal;
use api::exit::chain;
use api::shown::{shown, shown_lines};
use std::error::Error;

/// The result of one trial: what works, or what is wrong.
pub type Trial = Result<String, Box<dyn Error + Send + Sync>>;

impl Finding {
    /// Something that works.
    pub fn ok(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level: Level::Ok, message: message.into(), advice: None }
    }

    /// Something that volumes work without.
    pub fn warning(name: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(name, message) }
    }

    /// What came of the trial of something that volumes need.
    pub fn needed(name: &str, advice: &str, trial: Trial) -> Self {
        Self::of(name, Level::Failure, advice, trial)
    }

    /// The same of something that volumes work without.
    pub fn useful(name: &str, advice: &str, trial: Trial) -> Self {
        Self::of(name, Level::Warning, advice, trial)
    }

    fn of(name: &str, level: Level, advice: &str, trial: Trial) -> Self {
        match trial {
            Ok(message) => Self::ok(name, message),
            Err(error) => Self { level, advice: Some(advice.to_owned()), ..Self::ok(name, chain(error.as_ref())) },
        }
    }

    /// For people: what was found, and below it what to do.
    pub fn text(&self, terminal: Terminal) -> String {
        let (word, colour) = match self.level {
            Level::Ok => ("ok  ", Colour::Good),
            Level::Warning => ("warn", Colour::Doubtful),
            Level::Failure => ("FAIL", Colour::Bad),
        };
        let below = |words: &str| shown_lines(words).replace('\n', "\n      ");
        let advice = self.advice.iter().map(|advice| format!("      {}\n", below(advice))).collect::<String>();
        format!("{}  {}: {}\n{advice}", painted(word, colour, terminal), shown(&self.name), below(&self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_and_words_of_others_begin_no_line() {
        let text = |found: Finding| found.text(Terminal::default());
        assert_eq!(text(Finding::ok("a", "works\nso")), "ok    a: works\n      so\n");
        assert_eq!(
            text(Finding::warning("a", "\u{1b}[2J", "do this\nFAIL")),
            "warn  a: \\u{1b}[2J\n      do this\n      FAIL\n"
        );
        assert_eq!(text(Finding::needed("a", "do this", Err("why".into()))), "FAIL  a: why\n      do this\n");
        let json = serde_json::to_string(&Finding::useful("a", "b", Err("c".into()))).unwrap();
        assert_eq!(json, r#"{"name":"a","level":"warning","message":"c","advice":"b"}"#);
    }
}
