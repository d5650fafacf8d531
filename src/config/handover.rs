//! How a volume's secrets reach its helper: in files, in its environment, or at its standard input; never in its
//! arguments, which every process of the node may read.
//!
//! Runs in the mounter; pure. `{secret:KEY}` and `{file:NAME}` are filled in here; the mounter writes the files where
//! only the helper sees them.

use super::ConfigError;
use super::command::CommandTemplate;
use api::options::MountOptions;
use api::secret::{Secrets, TOKEN};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use zeroize::Zeroizing;

/// A file for the helper.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its content. With a service-account token in it the file is replaced whenever there is a new one.
    pub content: Template,
    /// The helper's option for its path.
    pub option: Option<String>,
}

/// A text with `{secret:KEY}` for a secret, `{token:AUDIENCE}` for a service-account token, and `{file:NAME}` for the path of a file. Other braces are kept: files may
/// be JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Secret(String),
    File(String),
}

/// The input of a type's helpers beside their arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandoverTemplates {
    /// Environment variables, by their names.
    pub environment: BTreeMap<String, Template>,
    /// Files that only the helper sees, by their names.
    pub files: BTreeMap<String, File>,
    /// The helper's standard input, which is empty otherwise.
    pub stdin: Option<Template>,
}

/// Why a template is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {0}…}} has no name, or is never closed")]
pub struct BadTemplate(&'static str);

/// Bytes with secrets in them.
pub type Filled = Zeroizing<Vec<u8>>;

/// A helper's input beside its arguments.
#[derive(Default)]
pub struct Handover {
    /// Environment variables.
    pub environment: Vec<(String, Filled)>,
    /// Files: name and content.
    pub files: Vec<(String, Filled)>,
    /// Its standard input, which is empty otherwise.
    pub stdin: Option<Filled>,
}

/// Why a volume's secrets cannot be passed to its helper.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// No secret is dropped silently.
    #[error(
        "the volume has a secret '{0}', which the mounter's configuration does not use: \
         name it as {{secret:{0}}} in a file, the environment or the stdin of its type, or take it out of the secret"
    )]
    Unused(String),
    /// Without it the helper would fail with a message of its own, or wait for input.
    #[error("the volume has no secret '{0}', which the mounter's configuration uses for its type")]
    Missing(String),
    /// Kubelet gives them to a pod's own volume alone.
    #[error(
        "the volume has no service-account token for the audience '{0}', which the mounter's configuration uses for its type: the \
         CSIDriver must name the audience in tokenRequests, and the volume must have 'mode: pod', or be in a pod's own specification"
    )]
    NoToken(String),
    /// The kernel would end the variable there.
    #[error("the environment variable {0} cannot be set: a secret in it holds a NUL byte")]
    Nul(String),
}

const SECRET: &str = "{secret:";
const FILE: &str = "{file:";
const AUDIENCE: &str = "{token:";

impl TryFrom<String> for Template {
    type Error = BadTemplate;

    fn try_from(text: String) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some((at, kind)) =
            [SECRET, FILE, AUDIENCE].into_iter().filter_map(|kind| Some((rest.find(kind)?, kind))).min()
        {
            let named = &rest[at + kind.len()..];
            // An audience is mostly a URL.
            let good = |name: &str| if kind == AUDIENCE { !name.is_empty() } else { is_name(name) };
            let (name, behind) = named.split_once('}').filter(|(name, _)| good(name)).ok_or(BadTemplate(kind))?;
            pieces.push(Piece::Text(rest[..at].to_owned()));
            pieces.push(match kind {
                SECRET => Piece::Secret(name.to_owned()),
                AUDIENCE => Piece::Secret(format!("{TOKEN}{name}")),
                _ => Piece::File(name.to_owned()),
            });
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }
}

/// Whether this can be the name of a file, or of a Kubernetes secret's key.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.chars().all(good) && !name.chars().all(|c| c == '.')
}

impl Template {
    fn fill(&self, secrets: &Secrets, directory: &Path) -> Filled {
        let mut filled = Zeroizing::new(Vec::new());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.extend(text.bytes()),
                // It was checked before that it is there.
                Piece::Secret(key) => filled.extend(secrets.get(key).into_iter().flat_map(|secret| secret.reveal())),
                Piece::File(name) => filled.extend(directory.join(name).as_os_str().as_bytes()),
            }
        }
        filled
    }

    /// Whether a token is filled into it.
    fn has_token(&self) -> bool {
        self.0.iter().filter_map(secret_key).any(|key| key.starts_with(TOKEN))
    }

    /// Whether a NUL byte was written into it.
    fn has_nul(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Text(text) if text.contains('\0')))
    }
}

impl HandoverTemplates {
    /// The input of the helper of a volume with these secrets, with its files in `directory`.
    pub fn hand_over(&self, secrets: &Secrets, directory: &Path) -> Result<Handover, SecretsError> {
        let wanted: BTreeSet<&str> = self.pieces().filter_map(secret_key).collect();
        // A driver's tokens are for all of its volumes, whether they use one or not.
        let unused = |key: &&String| !wanted.contains(key.as_str()) && !key.starts_with(TOKEN);
        if let Some(key) = secrets.keys().find(unused) {
            return Err(SecretsError::Unused(key.clone()));
        }
        if let Some(key) = wanted.iter().find(|key| !secrets.contains_key(**key)) {
            return Err(match key.strip_prefix(TOKEN) {
                Some(audience) => SecretsError::NoToken(audience.to_owned()),
                None => SecretsError::Missing((*key).to_owned()),
            });
        }
        let fill = |template: &Template| template.fill(secrets, directory);
        let handover = Handover {
            environment: self.environment.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            files: self.files.iter().map(|(name, file)| (name.clone(), fill(&file.content))).collect(),
            stdin: self.stdin.as_ref().map(fill),
        };
        match handover.environment.iter().find(|(_, value)| value.contains(&0)) {
            Some((name, _)) => Err(SecretsError::Nul(name.clone())),
            None => Ok(handover),
        }
    }

    /// Adds the options for the paths of the files in `directory`. They replace the caller's options of the same name.
    pub fn point_to_files(&self, options: &mut MountOptions, directory: &Path) {
        let named = || self.files.iter().filter_map(|(name, file)| Some((name, file.option.as_ref()?)));
        options.retain(|option| named().all(|(_, name)| *name != option.name));
        for (name, option) in named() {
            options.push_value(option, directory.join(name).display());
        }
    }

    /// The names of the files that hold a token.
    pub fn files_of_tokens(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, file)| file.content.has_token()).map(|(name, _)| name.as_str())
    }

    /// The keys of the secrets that are wanted, each once.
    pub fn secrets(&self) -> Vec<String> {
        let wanted: BTreeSet<&str> = self.pieces().filter_map(secret_key).collect();
        wanted.into_iter().map(str::to_owned).collect()
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        let files = self.files.values().map(|file| &file.content);
        self.environment.values().chain(files).chain(&self.stdin).flat_map(|template| &template.0)
    }

    /// Whether they can be filled. `command` is the type's own, if it has one.
    pub(super) fn check(&self, command: Option<&CommandTemplate>) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError::Value { key, problem });
        if let Some(name) = self.environment.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return bad("environment", format!("cannot hold '{}': it is no variable's name", name.escape_debug()));
        }
        if self.environment.values().any(Template::has_nul) {
            return bad("environment", "cannot hold a NUL byte".into());
        }
        if self.environment.values().chain(&self.stdin).any(Template::has_token) {
            let problem = "a token is for a file, which is replaced when there is a new one".to_owned();
            return bad("environment or stdin", problem);
        }
        if let Some(name) = self.files.keys().find(|name| !is_name(name)) {
            return bad("files", format!("cannot hold '{}': it is no file's name", name.escape_debug()));
        }
        let wrong = |option: &&String| option.is_empty() || option.contains([',', '=', '"', '\0']);
        if let Some(option) = self.files.values().filter_map(|file| file.option.as_ref()).find(wrong) {
            return bad("files", format!("cannot have the option '{}': it is no option's name", option.escape_debug()));
        }
        let in_templates = self.pieces().filter_map(|piece| match piece {
            Piece::File(name) => Some(name.as_str()),
            _ => None,
        });
        let in_command = command.into_iter().flat_map(CommandTemplate::files);
        if let Some(name) = in_templates.chain(in_command).find(|name| !self.files.contains_key(*name)) {
            return bad("files", format!("lacks '{name}', which {{file:{name}}} refers to"));
        }
        Ok(())
    }
}

/// Whether options hold what only a template may.
pub(super) fn hold_placeholders(options: &MountOptions) -> bool {
    let text = options.to_string();
    [SECRET, FILE, AUDIENCE].iter().any(|placeholder| text.contains(placeholder))
}

fn secret_key(piece: &Piece) -> Option<&str> {
    if let Piece::Secret(key) = piece { Some(key) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Section, Settings};
    use api::secret::Secret;

    fn settings(text: &str) -> Result<Settings, String> {
        let section: Section = toml::from_str(text).map_err(|error| error.to_string())?;
        section.resolve(&Settings::default()).map_err(|error| error.to_string())
    }

    fn secrets(given: &[(&str, &[u8])]) -> Secrets {
        given.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(value.to_vec()))).collect()
    }

    const ALL: &str = r#"
        stdin = "{secret:a}\n"
        environment = { A = "{not:me} {secret:b}", F = "{file:f}" }
        [files.f]
        content = '{"id": "{secret:a}:{secret:b}", "x": {}}'
        option = "key_file"
    "#;

    #[test]
    fn templates_are_filled_once_and_other_braces_stay() {
        let settings = settings(ALL).unwrap();
        let handover =
            settings.handover.hand_over(&secrets(&[("a", b"{secret:b}"), ("b", b"\xff")]), Path::new("/d")).unwrap();
        assert_eq!(**handover.stdin.as_ref().unwrap(), b"{secret:b}\n");
        let environment: Vec<_> = handover.environment.iter().map(|(name, value)| (name.as_str(), &***value)).collect();
        assert_eq!(environment, [("A", b"{not:me} \xff".as_slice()), ("F", b"/d/f")]);
        assert_eq!(*handover.files[0].1, b"{\"id\": \"{secret:b}:\xff\", \"x\": {}}");
        let mut options = MountOptions::parse("key_file=/etc/shadow,ro").unwrap();
        settings.handover.point_to_files(&mut options, Path::new("/d"));
        assert_eq!(options.to_string(), "ro,key_file=/d/f");
    }

    #[test]
    fn all_secrets_and_no_others() {
        let settings = settings(ALL).unwrap();
        let error = |given: &[_]| settings.handover.hand_over(&secrets(given), Path::new("/d")).err().unwrap();
        assert_eq!(error(&[("a", b"1"), ("b", b"2"), ("c", b"3")]), SecretsError::Unused("c".into()));
        assert_eq!(error(&[("a", b"1")]), SecretsError::Missing("b".into()));
        assert_eq!(error(&[("a", b"1"), ("b", b"2\0")]), SecretsError::Nul("A".into()));
        let none = Settings::default();
        assert_eq!(
            none.handover.hand_over(&secrets(&[("a", b"1")]), Path::new("/d")).err(),
            Some(SecretsError::Unused("a".into()))
        );
        assert!(none.handover.hand_over(&Secrets::new(), Path::new("/d")).is_ok());
    }

    #[test]
    fn a_token_is_for_an_audience_and_for_a_file() {
        let settings =
            settings("[files.t]\ncontent = '{token:https://sts.example.org}'\n[files.k]\ncontent = 'x'").unwrap();
        let with =
            |given: &[_]| settings.handover.hand_over(&secrets(given), Path::new("/d")).map(|handover| handover.files);
        let files = with(&[("token:https://sts.example.org", b"t1"), ("token:other", b"t2")]).unwrap();
        assert_eq!(*files[1].1, b"t1");
        let missing = with(&[("token:other", b"t2")]).err();
        assert_eq!(missing, Some(SecretsError::NoToken("https://sts.example.org".into())));
        assert_eq!(settings.handover.files_of_tokens().collect::<Vec<_>>(), ["t"]);
    }

    #[test]
    fn configurations_that_cannot_work() {
        for (wrong, words) in [
            ("stdin = '{secret:}'", "{secret:…} has no name"),
            ("stdin = '{secret:a'", "never closed"),
            ("stdin = '{token:}'", "{token:…} has no name"),
            ("stdin = '{token:a}'", "is for a file"),
            ("environment = { A = '{token:a}' }", "is for a file"),
            ("command = ['p', '{target}', '{options}', '{token:x}']", "cannot hold a secret"),
            ("forced_options = 'password={token:a}'", "cannot hold a secret"),
            ("environment = { A = '{file:x}' }", "lacks 'x'"),
            ("command = ['p', '{target}', '{options}', '{file:x}']", "lacks 'x'"),
            ("command = ['p', '{target}', '{options}', '{secret:x}']", "cannot hold a secret"),
            ("forced_options = 'password={secret:a}'", "cannot hold a secret"),
            ("default_options = 'key={file:a}'", "use the file's option"),
            ("[files.'../x']\ncontent = ''", "no file's name"),
            ("[files.x]\ncontent = ''\noption = 'a,b'", "no option's name"),
            ("[files.x]\ncontent = ''\nmode = 3", "unknown field"),
        ] {
            let error = settings(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }
}
