//! `log`: what the mounter logs.
//!
//! Pure. A word that is misspelt would be taken for the name of a part of the program, and is an error here.

use serde::Deserialize;
use std::str::FromStr;
use tracing_subscriber::filter::LevelFilter;

/// A level (`debug`), levels of parts (`hostmount::engine=trace`), or both with a comma between.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LogLevels(String);

impl LogLevels {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LogLevels {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_part = |part: &str| {
            let of_words = part.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == ':');
            of_words && part.split("::").next() == Some("hostmount")
        };
        let is_one = |word: &str| {
            let (part, level) = word.split_once('=').map_or((None, word), |(part, level)| (Some(part), level));
            let level = !level.is_empty() && !level.contains(char::is_numeric) && LevelFilter::from_str(level).is_ok();
            level && part.is_none_or(is_part)
        };
        if text.split(',').all(is_one) {
            Ok(Self(text))
        } else {
            Err("it is one of off, error, warn, info, debug and trace, or of a part: info,hostmount::engine=trace")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_part() {
        let is_one = |text: &str| LogLevels::try_from(text.to_owned()).is_ok();
        for good in
            ["off", "info", "debug,hostmount::engine=trace", "hostmount::mounter::volume=debug", "hostmount=warn"]
        {
            assert!(is_one(good), "{good}");
        }
        for wrong in
            ["", "verbose", "3", "info,", "hostmount", "hostmount=", "engine=trace", "info;debug", "hostmount[x]=info"]
        {
            assert!(!is_one(wrong), "{wrong}");
        }
    }
}
