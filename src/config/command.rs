//! `command = […]`: a program and its arguments, with placeholders for each volume's values.
//!
//! Read by the mounter, `doctor` and `install`, in the container; pure.

use api::options::MountOptions;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::Path;

/// A program and its arguments, with `{source}`, `{target}` and `{options}` for the parts of the volume's request, and
/// `{file:NAME}` for the path of one of the helper's files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct CommandTemplate {
    program: String,
    arguments: Vec<Vec<Placeholder>>,
}

/// A part of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Placeholder {
    Text(String),
    Source,
    Target,
    Options,
    File(String),
}

/// Why a command is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// `command = []`.
    #[error("a command begins with a program")]
    Empty,
    /// The caller must not choose the program.
    #[error("a command's program cannot hold a placeholder")]
    Program,
    /// Another placeholder.
    #[error("a command may hold {{source}}, {{target}}, {{options}} and {{file:NAME}}, and not '{{{0}}}'")]
    Unknown(String),
    /// Other processes can read it.
    #[error("a command cannot hold a secret: every process may read it; use {{file:NAME}}, environment or stdin")]
    Secret,
    /// Without it the program would not know where to mount.
    #[error("a command needs {{target}}")]
    NoTarget,
    /// A NUL byte cannot be passed to a program.
    #[error("a command cannot hold a NUL byte")]
    Nul,
}

impl CommandTemplate {
    /// The program, by name or path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether a volume's options are among the arguments.
    pub fn takes_options(&self) -> bool {
        self.has(&Placeholder::Options)
    }

    fn has(&self, piece: &Placeholder) -> bool {
        self.arguments.iter().flatten().any(|found| found == piece)
    }

    /// The names of the files whose paths are among the arguments.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().flatten().filter_map(|piece| match piece {
            Placeholder::File(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The arguments for one volume whose helper has its files in `files`. Without options, an argument for them is
    /// left out, and a `-o` before it.
    pub fn arguments(&self, source: &str, target: &Path, options: &MountOptions, files: &Path) -> Vec<OsString> {
        let text = options.to_string();
        let mut arguments: Vec<OsString> = Vec::new();
        for pieces in &self.arguments {
            if options.is_empty() && pieces.contains(&Placeholder::Options) {
                arguments.pop_if(|before| before == "-o");
                continue;
            }
            arguments.push(pieces.iter().fold(OsString::new(), |mut argument, piece| {
                match piece {
                    Placeholder::Text(text) => argument.push(text),
                    Placeholder::Source => argument.push(source),
                    Placeholder::Target => argument.push(target),
                    Placeholder::Options => argument.push(&text),
                    Placeholder::File(name) => argument.push(files.join(name)),
                }
                argument
            }));
        }
        arguments
    }
}

impl TryFrom<Vec<String>> for CommandTemplate {
    type Error = CommandError;

    fn try_from(words: Vec<String>) -> Result<Self, CommandError> {
        if words.iter().any(|word| word.contains('\0')) {
            return Err(CommandError::Nul);
        }
        let [program, rest @ ..] = words.as_slice() else { return Err(CommandError::Empty) };
        if program.is_empty() {
            return Err(CommandError::Empty);
        }
        if program.contains('{') {
            return Err(CommandError::Program);
        }
        let arguments = rest.iter().map(|word| pieces(word)).collect::<Result<Vec<_>, _>>()?;
        let command = Self { program: program.clone(), arguments };
        if !command.has(&Placeholder::Target) {
            return Err(CommandError::NoTarget);
        }
        Ok(command)
    }
}

fn pieces(word: &str) -> Result<Vec<Placeholder>, CommandError> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some((text, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else { return Err(CommandError::Unknown(behind.to_owned())) };
        pieces.push(Placeholder::Text(text.to_owned()));
        pieces.push(match name {
            "source" => Placeholder::Source,
            "target" => Placeholder::Target,
            "options" => Placeholder::Options,
            _ if name.starts_with("secret:") || name.starts_with("token:") => return Err(CommandError::Secret),
            _ => match name.strip_prefix("file:") {
                Some(file) => Placeholder::File(file.to_owned()),
                None => return Err(CommandError::Unknown(name.to_owned())),
            },
        });
        rest = behind;
    }
    pieces.push(Placeholder::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Result<CommandTemplate, CommandError> {
        CommandTemplate::try_from(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn options(text: &str) -> MountOptions {
        MountOptions::parse(text).unwrap()
    }

    #[test]
    fn placeholders_are_filled_once() {
        let words = ["p", "mount", "{source}", "{target}", "-o", "{options}", "--x=a{source}b", "-f{file:g}"];
        let command = command(&words).unwrap();
        let arguments = |text| command.arguments("{target}:", Path::new("/t"), &options(text), Path::new("/d"));
        assert_eq!(arguments("a=1,b"), ["mount", "{target}:", "/t", "-o", "a=1,b", "--x=a{target}:b", "-f/d/g"]);
        assert_eq!(arguments(""), ["mount", "{target}:", "/t", "--x=a{target}:b", "-f/d/g"]);
    }

    #[test]
    fn commands_that_cannot_work() {
        let all = "{source} {target} {options}";
        assert_eq!(command(&[]).unwrap_err(), CommandError::Empty);
        assert_eq!(command(&["{source}", all]).unwrap_err(), CommandError::Program);
        assert_eq!(command(&["p", all, "{fd}"]).unwrap_err(), CommandError::Unknown("fd".into()));
        assert_eq!(command(&["p", all, "{source"]).unwrap_err(), CommandError::Unknown("source".into()));
        assert_eq!(command(&["p", "{source}", "{options}"]).unwrap_err(), CommandError::NoTarget);
        assert_eq!(command(&["p", all, "a\0b"]).unwrap_err(), CommandError::Nul);
    }
}
