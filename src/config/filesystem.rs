//! `[filesystem.TYPE]`: how volumes of one type are served, where the ordinary way will not do.
//!
//! Pure. What the caller of a mount may not decide (capabilities, environment, forced options) is decided here.

use super::handover::{File, Template};
use super::{ConfigError, OnHang};
use api::options::MountOptions;
use api::request::Request;
use caps::Capability;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// What may be set for a type. All of it is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filesystem {
    /// The program and its arguments, instead of the program that would be found by the type's name.
    pub command: Option<Command>,
    /// The program stays in the foreground: it is ready when its filesystem answers, not when it has exited.
    pub foreground: bool,
    /// Environment variables for it.
    pub environment: BTreeMap<String, Template>,
    /// Files that only it sees, by their names.
    pub files: BTreeMap<String, File>,
    /// What it reads from its standard input, which is empty otherwise.
    pub stdin: Option<Template>,
    /// Directories that it writes to, beside the usual ones: each is an empty tmpfs of its own, which ends with it.
    pub writable: Vec<PathBuf>,
    /// What it may keep of the mounter's capabilities: `CAP_DAC_READ_SEARCH`.
    capabilities: BTreeSet<String>,
    /// How much memory all of its processes together may use, and what they write to their own directories.
    pub memory_limit: Option<MemoryLimit>,
    /// How long it may take until its filesystem answers, in seconds.
    pub ready_timeout_seconds: Option<u64>,
    /// Whether a volume whose helper died gets a fresh one.
    pub heal: Option<bool>,
    /// After how many seconds without a sign of life a volume hangs; 0: never.
    pub hang_seconds: Option<u64>,
    /// What is done about it.
    pub on_hang: Option<OnHang>,
    /// Options for volumes whose caller says nothing under the same name.
    pub default_options: MountOptions,
    /// Options that every volume gets, last; what the caller says under the same name does not count.
    pub forced_options: MountOptions,
}

/// A helper with one of these could leave its mount namespace, move its root, or enter the mounter: what keeps it in
/// its place, and lets it be ended, is that it cannot.
const NEVER_KEPT: [Capability; 4] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT, Capability::CAP_SYS_MODULE, Capability::CAP_SYS_PTRACE];

impl Filesystem {
    /// A request with the default and forced options of its type.
    pub fn complete(&self, mut request: Request) -> Request {
        let named = |options: &MountOptions, name: &str| options.iter().any(|option| option.name == name);
        let mut options = self.default_options.clone();
        options.retain(|option| !named(&request.options, &option.name));
        options.append(request.options);
        options.retain(|option| !named(&self.forced_options, &option.name));
        options.append(self.forced_options.clone());
        request.options = options;
        request
    }

    /// The capabilities that the program keeps.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        // Names that are none were refused when the configuration was read.
        self.capabilities.iter().filter_map(|name| name.parse().ok())
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError::Value { key, problem });
        for name in &self.capabilities {
            match name.parse::<Capability>() {
                Ok(capability) if NEVER_KEPT.contains(&capability) => {
                    return bad("capabilities", format!("cannot hold {name}: with it a helper could leave its place"));
                }
                Ok(_) => {}
                Err(_) => return bad("capabilities", format!("cannot hold '{name}': no capability has this name")),
            }
        }
        if let Some(name) = self.environment.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return bad("environment", format!("cannot hold '{}': it is no variable's name", name.escape_debug()));
        }
        if self.environment.values().any(Template::has_nul) {
            return bad("environment", "cannot hold a NUL byte".into());
        }
        if let Some(path) = self.writable.iter().find(|path| !path.is_absolute() || *path == Path::new("/")) {
            return bad("writable", format!("cannot hold '{}': absolute paths below / are needed", path.display()));
        }
        if self.ready_timeout_seconds == Some(0) {
            return bad("ready_timeout_seconds", "must be at least 1".into());
        }
        self.check_handover()
    }
}

/// An amount of memory, written as Kubernetes does: `512Mi`, `2Gi`, `300M`, or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MemoryLimit(u64);

/// Not an amount, or one that no program could run with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a memory limit is written as 512Mi, 2Gi, 300M or a number of bytes, and is 1Mi at least")]
pub struct MemoryLimitError;

impl MemoryLimit {
    const LEAST: u64 = 1 << 20;

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

impl TryFrom<String> for MemoryLimit {
    type Error = MemoryLimitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(MemoryLimitError),
        };
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        bytes.filter(|bytes| *bytes >= Self::LEAST).map(Self).ok_or(MemoryLimitError)
    }
}

/// A program and its arguments, with `{source}`, `{target}` and `{options}` where a volume's own words go, and
/// `{file:NAME}` for the path of one of the helper's files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Command {
    program: String,
    arguments: Vec<Vec<Piece>>,
}

/// A part of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Source,
    Target,
    Options,
    File(String),
}

/// Why a command is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// `command = []`.
    #[error("a command begins with a program")]
    Empty,
    /// A caller's words must not choose the program.
    #[error("a command's program cannot hold a placeholder")]
    Program,
    /// Braces around something else.
    #[error("a command knows {{source}}, {{target}}, {{options}} and {{file:NAME}}, and not '{{{0}}}'")]
    Unknown(String),
    /// Other processes can read it.
    #[error("a command cannot hold a secret: every process may read it; use {{file:NAME}}, environment or stdin")]
    Secret,
    /// The program could not know where to mount.
    #[error("a command needs {{target}}")]
    NoTarget,
    /// A NUL byte cannot be passed to a program.
    #[error("a command cannot hold a NUL byte")]
    Nul,
}

impl Command {
    /// The program, by name or path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether the program is told a volume's options.
    pub fn takes_options(&self) -> bool {
        self.has(&Piece::Options)
    }

    fn has(&self, piece: &Piece) -> bool {
        self.arguments.iter().flatten().any(|found| found == piece)
    }

    /// The names of the files that it is told the paths of.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.arguments.iter().flatten().filter_map(|piece| match piece {
            Piece::File(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The arguments for one volume whose helper has its files in `files`. Without options, an argument for them is left
    /// out, and a `-o` before it.
    pub fn arguments(&self, source: &str, target: &Path, options: &MountOptions, files: &Path) -> Vec<OsString> {
        let text = options.to_string();
        let mut arguments: Vec<OsString> = Vec::new();
        for pieces in &self.arguments {
            if options.is_empty() && pieces.contains(&Piece::Options) {
                arguments.pop_if(|before| before == "-o");
                continue;
            }
            arguments.push(pieces.iter().fold(OsString::new(), |mut argument, piece| {
                match piece {
                    Piece::Text(text) => argument.push(text),
                    Piece::Source => argument.push(source),
                    Piece::Target => argument.push(target),
                    Piece::Options => argument.push(&text),
                    Piece::File(name) => argument.push(files.join(name)),
                }
                argument
            }));
        }
        arguments
    }
}

impl TryFrom<Vec<String>> for Command {
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
        if !command.has(&Piece::Target) {
            return Err(CommandError::NoTarget);
        }
        Ok(command)
    }
}

fn pieces(word: &str) -> Result<Vec<Piece>, CommandError> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some((text, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else { return Err(CommandError::Unknown(behind.to_owned())) };
        pieces.push(Piece::Text(text.to_owned()));
        pieces.push(match name {
            "source" => Piece::Source,
            "target" => Piece::Target,
            "options" => Piece::Options,
            _ if name.starts_with("secret:") => return Err(CommandError::Secret),
            _ => match name.strip_prefix("file:") {
                Some(file) => Piece::File(file.to_owned()),
                None => return Err(CommandError::Unknown(name.to_owned())),
            },
        });
        rest = behind;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::request::Switches;

    fn command(words: &[&str]) -> Result<Command, CommandError> {
        Command::try_from(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
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

    #[test]
    fn the_caller_overrides_defaults_and_is_overridden() {
        let settings = Filesystem {
            default_options: options("uid=5,retries=3"),
            forced_options: options("ro,url=https://s3"),
            ..Filesystem::default()
        };
        let request = Request {
            fstype: "s3fs".into(),
            source: "b".into(),
            target: "/t".into(),
            options: options("url=http://evil,rw,uid=7"),
            switches: Switches::default(),
            secrets: Default::default(),
        };
        assert_eq!(settings.complete(request).options.to_string(), "retries=3,rw,uid=7,ro,url=https://s3");
    }
}
