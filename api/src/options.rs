//! Mount options, as they are written after `-o` (mount(8)).
//!
//! Runs in every program; pure.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An ordered list of mount options; the order matters, as the last of two that contradict each other counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountOptions(Vec<MountOption>);

/// One option: `ro`, `uid=1000`, `context="a,b"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    /// The part before `=`.
    pub name: String,
    /// The part after `=`, with its quotes, just as it was written.
    pub value: Option<String>,
}

/// Why an option string is not one. It names an option but never a value: values may be secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A `"` that is never closed.
    #[error("mount options: the quote opened in option '{name}' is never closed")]
    UnbalancedQuote {
        /// The option that holds the quote.
        name: String,
    },
    /// `=value` with nothing before it.
    #[error("mount options: an option has a value but no name ('=…')")]
    NoName,
    /// A NUL byte cannot be passed to a program.
    #[error("mount options: option '{name}' holds a NUL byte")]
    Nul {
        /// The option that holds it.
        name: String,
    },
}

impl MountOptions {
    /// Reads the argument of one `-o`, by the rules of libmount: options are separated by commas, except for commas
    /// within double quotes; empty ones are skipped.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut options = Vec::new();
        let mut start = 0;
        let mut quoted = false;
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    options.extend(MountOption::parse(&text[start..at])?);
                    start = at + 1;
                }
                _ => {}
            }
        }
        let last = &text[start..];
        if quoted {
            let name = last.split('=').next().unwrap_or_default().to_owned();
            return Err(OptionsError::UnbalancedQuote { name });
        }
        options.extend(MountOption::parse(last)?);
        Ok(Self(options))
    }

    /// Adds the options of a further `-o`.
    pub fn append(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Adds an option at the end.
    pub fn push(&mut self, option: MountOption) {
        self.0.push(option);
    }

    /// Adds one option without a value at the end.
    pub fn push_flag(&mut self, name: &str) {
        self.0.push(MountOption { name: name.to_owned(), value: None });
    }

    /// Adds `name=value` at the end.
    pub fn push_value(&mut self, name: &str, value: impl fmt::Display) {
        self.0.push(MountOption { name: name.to_owned(), value: Some(value.to_string()) });
    }

    /// Whether an option without a value of this name is there.
    pub fn has_flag(&self, name: &str) -> bool {
        self.0.iter().any(|option| option.name == name && option.value.is_none())
    }

    /// The last value given for `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|option| option.name == name)?.value.as_deref()
    }

    /// Keeps the options for which `keep` returns true.
    pub fn retain(&mut self, keep: impl FnMut(&MountOption) -> bool) {
        self.0.retain(keep);
    }

    /// Puts these at the end, in the place of all of the same names.
    pub fn force(&mut self, forced: &Self) {
        self.0.retain(|option| !forced.0.iter().any(|forced| forced.name == option.name));
        self.append(forced.clone());
    }

    /// The options in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &MountOption> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl MountOption {
    fn parse(text: &str) -> Result<Option<Self>, OptionsError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if text.contains('\0') {
            return Err(OptionsError::Nul { name: name.replace('\0', "\\0") });
        }
        match (name.is_empty(), value) {
            (true, None) => Ok(None),
            (true, Some(_)) => Err(OptionsError::NoName),
            (false, value) => Ok(Some(Self { name: name.to_owned(), value: value.map(str::to_owned) })),
        }
    }
}

impl fmt::Display for MountOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, option) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(f, "{comma}{option}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for MountOptions {
    type Error = OptionsError;
    fn try_from(text: String) -> Result<Self, OptionsError> {
        Self::parse(&text)
    }
}

impl From<MountOptions> for String {
    fn from(options: MountOptions) -> Self {
        options.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commas_within_quotes_do_not_separate() {
        let options = MountOptions::parse(r#"ro,context="system_u:object_r:t:s0:c1,c2",,uid=5"#).unwrap();
        assert_eq!(options.iter().count(), 3);
        assert_eq!(options.value("context"), Some(r#""system_u:object_r:t:s0:c1,c2""#));
        assert!(options.has_flag("ro"));
    }

    #[test]
    fn errors_name_the_option_and_never_the_value() {
        let error = MountOptions::parse(r#"ro,password="hunter2"#).unwrap_err();
        assert_eq!(error, OptionsError::UnbalancedQuote { name: "password".into() });
        assert!(!error.to_string().contains("hunter2"));
        assert_eq!(MountOptions::parse("=x").unwrap_err(), OptionsError::NoName);
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_written_back(text in r#"([a-z_-]{1,8}(=([a-z0-9:/=]{0,8}|"[a-z,=]{0,8}"))?,?){0,6}"#) {
            let options = MountOptions::parse(&text).unwrap();
            prop_assert_eq!(MountOptions::parse(&options.to_string()).unwrap(), options);
        }

        #[test]
        fn no_text_panics(text in ".{0,64}") {
            let _ = MountOptions::parse(&text);
        }
    }
}
