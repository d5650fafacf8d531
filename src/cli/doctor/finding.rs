//! What `doctor` finds, as lines and as a document.
//!
//! Pure.

use crate::cli::show::table::{Colour, painted};
use crate::cli::show::terminal::Terminal;
use api::exit::chain;
use api::shown::shown_lines;
use serde::Serialize;
use std::error::Error;

/// The result of one trial: what works, or what is wrong.
pub(super) type Trial = Result<String, Box<dyn Error + Send + Sync>>;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// It works.
    Ok,
    /// Volumes work without it.
    Warning,
    /// Volumes do not work.
    Failure,
}

/// One finding. docs/json.md describes its members.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Found {
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    /// What to do about it.
    pub(super) advice: Option<String>,
}

impl Found {
    /// Something that works.
    pub(super) fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, message: message.into(), advice: None }
    }

    /// Something that volumes work without.
    pub(super) fn warning(name: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, level: Level::Warning, message: message.into(), advice: Some(advice.into()) }
    }

    /// What came of the trial of something that volumes need.
    pub(super) fn needed(name: &'static str, advice: &str, trial: Trial) -> Self {
        Self::of(name, Level::Failure, advice, trial)
    }

    /// The same of something that volumes work without.
    pub(super) fn useful(name: &'static str, advice: &str, trial: Trial) -> Self {
        Self::of(name, Level::Warning, advice, trial)
    }

    fn of(name: &'static str, bad: Level, advice: &str, trial: Trial) -> Self {
        match trial {
            Ok(message) => Self::ok(name, message),
            Err(error) => Self { name, level: bad, message: chain(error.as_ref()), advice: Some(advice.to_owned()) },
        }
    }

    /// For people.
    pub(super) fn text(&self, terminal: Terminal) -> String {
        let (word, colour) = match self.level {
            Level::Ok => ("ok  ", Colour::Good),
            Level::Warning => ("warn", Colour::Doubtful),
            Level::Failure => ("FAIL", Colour::Bad),
        };
        let advice = self.advice.iter().map(|advice| format!("      {}\n", shown_lines(advice))).collect::<String>();
        let message = shown_lines(&self.message).replace('\n', "\n      ");
        format!("{}  {}: {message}\n{advice}", painted(word, colour, terminal), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do() {
        let text = |found: Found| found.text(Terminal::default());
        assert_eq!(text(Found::ok("a", "works\nso")), "ok    a: works\n      so\n");
        assert_eq!(text(Found::warning("a", "\u{1b}[2J", "do this")), "warn  a: \\u{1b}[2J\n      do this\n");
        assert_eq!(text(Found::needed("a", "do this", Err("why".into()))), "FAIL  a: why\n      do this\n");
        let json = serde_json::to_string(&Found::useful("a", "b", Err("c".into()))).unwrap();
        assert_eq!(json, r#"{"name":"a","level":"warning","message":"c","advice":"b"}"#);
    }
}
