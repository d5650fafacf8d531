//! What callers from one origin may have of one type: the defaults, and what an administrator has written.
//!
//! Runs in the mounter; pure. The operator, who is root, may have what there is. Kubelet asks for what a pod's author has
//! written, and the CSI server for what a user of an API server has: they may have a [type that is known](super::known_types) with a source
//! elsewhere and options that do nothing but shape the volume, below kubelet's directory. Rules open more, or less.

use super::known_types::{FUSE_OPTIONS, FUSE_REFUSED, KnownType, Source, lists};
use super::plan::SUBDIR;
use super::sources::{is_label, is_text, is_word};
use crate::config::Config;
use crate::config::policy::{OptionPattern, Pattern, Rules, TypeRules, has_parent};
use api::explained::Rule;
use api::mount_words::{self, Kind};
use api::options::MountOption;
use api::origin::Origin;
use std::path::Path;

/// For wildcards in sources of the container's: what separates paths there, or is a pattern to the helper.
const SEPARATORS: &str = ":=,*?[]{}\\\"";

/// Options that name a label of SELinux's.
const LABELS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// A request that a rule refuses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is refused by {rule}: {why}{advice}")]
pub struct Refusal {
    what: String,
    rule: String,
    why: String,
    advice: String,
}

/// The rules for one origin and type.
#[derive(Debug, Clone, Copy)]
pub(super) struct RulesFor<'a> {
    pub(super) origin: Origin,
    /// The type's name, without `fuse.`.
    pub(super) name: &'a str,
    pub(super) written: &'a Rules,
    pub(super) of_type: Option<&'a TypeRules>,
    pub(super) known: Option<&'static KnownType>,
    /// Whether the administrator has given it a command: then the administrator says what its sources are, too.
    has_command: bool,
    kubelet_dir: &'a Path,
}

impl<'a> RulesFor<'a> {
    pub(super) fn new(config: &'a Config, origin: Origin, name: &'a str) -> Self {
        let written = config.policy.rules(origin);
        let of_type = written.filesystem.get(name);
        let has_command = config.settings_of(name).command.is_some();
        let (known, kubelet_dir) = (KnownType::named(name), &config.kubelet_dir);
        Self { origin, name, written, of_type, known, has_command, kubelet_dir }
    }

    /// What its sources are, if hostmount knows it.
    pub(super) fn source(&self) -> Option<Source> {
        self.known.filter(|_| !self.has_command).map(|known| known.source)
    }

    /// Whether everything is open that no rule closes.
    fn is_open(&self) -> bool {
        self.origin == Origin::Operator
    }

    fn refusal(&self, what: String, key: &str, default: bool, why: String, line: Option<String>) -> Refusal {
        let origin = self.origin;
        let rule = if default { format!("the default policy for {origin}") } else { format!("policy.{origin}{key}") };
        let advice = line.map(|line| format!("; to allow it, an administrator writes {line} in config.toml"));
        Refusal { what, rule, why, advice: advice.unwrap_or_default() }
    }

    /// A line in this type's section.
    fn in_section(&self, line: &str) -> Option<String> {
        Some(format!("`{line}` below `[policy.{}.filesystem.{}]`", self.origin, self.name))
    }

    /// What is judged, and by what.
    pub(super) fn named(&self) -> Vec<Rule> {
        let (origin, name, written, of_type) = (self.origin, self.name, self.written, self.of_type);
        let section = |key: &str| format!("policy.{origin}.filesystem.{name}{key}");
        let of_all = |key: &str| format!("policy.{origin}.{key}");
        let by_default = || match self.is_open() {
            true => format!("the default policy for {origin}: all that no rule closes"),
            false => format!("the default policy for {origin}"),
        };
        let types = match (of_type, &written.types) {
            (Some(_), _) => section(""),
            (None, Some(_)) => of_all("types"),
            (None, None) => by_default(),
        };
        let targets = if written.targets.is_some() { of_all("targets") } else { by_default() };
        let has_sources = of_type.is_some_and(|rules| rules.sources.is_some());
        let sources = if has_sources { section(".sources") } else { by_default() };
        let lists = [
            (!written.forbidden_options.is_empty()).then(|| of_all("forbidden_options")),
            of_type.filter(|rules| !rules.forbidden_options.is_empty()).map(|_| section(".forbidden_options")),
            written.options.is_some().then(|| of_all("options")),
            of_type.filter(|rules| !rules.options.is_empty()).map(|_| section(".options")),
        ];
        let closed = self.is_open() && written.options.is_some();
        let lists = lists.into_iter().flatten().chain((!closed).then(by_default));
        let options = lists.collect::<Vec<_>>().join("; ");
        let rules = [("type", types), ("target", targets), ("source", sources), ("options", options)];
        rules.into_iter().map(|(about, rule)| Rule { about: about.to_owned(), rule }).collect()
    }

    pub(super) fn check_type(&self) -> Result<(), Refusal> {
        let (origin, name) = (self.origin, self.name);
        let refused = |default, why: &str| {
            let line = Some(format!("a section `[policy.{origin}.filesystem.{name}]` with `sources = [...]`"));
            Err(self.refusal(format!("type '{name}'"), ".types", default, why.to_owned(), line))
        };
        match &self.written.types {
            _ if self.of_type.is_some() => Ok(()),
            Some(types) if types.iter().any(|listed| listed == name) => Ok(()),
            Some(_) => refused(false, "it is not among them"),
            None if self.is_open() || self.source().is_some() => Ok(()),
            None => refused(true, "hostmount does not know what its sources name and its options do"),
        }
    }

    pub(super) fn check_target(&self, target: &Path) -> Result<(), Refusal> {
        let what = || format!("target {}", target.display());
        match &self.written.targets {
            Some(patterns) => match target.to_str() {
                Some(target) if patterns.iter().any(|pattern| pattern.matches(target, "")) => Ok(()),
                _ => Err(self.refusal(what(), ".targets", false, "it is like none of them".to_owned(), None)),
            },
            None if self.is_open() || target.starts_with(self.kubelet_dir) && target != self.kubelet_dir => Ok(()),
            None => {
                let why = format!("it is not below kubelet's directory, {}", self.kubelet_dir.display());
                let line = Some(format!("`targets = [...]` below `[policy.{}]`", self.origin));
                let mut refusal = self.refusal(what(), ".targets", true, why, line);
                if self.origin == Origin::Kubelet {
                    refusal.advice.push_str("; by hand, `hostmount mount` asks as the operator");
                }
                Err(refusal)
            }
        }
    }

    pub(super) fn check_source(&self, source: &str) -> Result<(), Refusal> {
        let patterns = self.of_type.and_then(|rules| rules.sources.as_ref());
        // What it must look like anyway, as more than that would be an option, or a program.
        let form = self.source().filter(|_| !self.is_open());
        let what = || "the source".to_owned();
        let line = || self.in_section("sources = [...]");
        if let Some(Source::Elsewhere(form, is_source)) = form
            && !is_source(source)
        {
            let why = format!("a source of type '{}' is {form}", self.name);
            return Err(self.refusal(what(), "", true, why, None));
        }
        let in_container = matches!(form, Some(Source::Container));
        let is_known = form.is_some() || self.is_open();
        match patterns {
            Some(patterns) => {
                let never = if in_container { SEPARATORS } else { "" };
                let is_like = |pattern: &Pattern| {
                    pattern.text() == source || pattern.matches(source, never) && !has_parent(source)
                };
                if patterns.iter().any(is_like) {
                    return Ok(());
                }
                let key = format!(".filesystem.{}.sources", self.name);
                Err(self.refusal(what(), &key, false, "it is like none of them".to_owned(), None))
            }
            None if in_container => {
                let why = format!("a source of type '{}' is in the container's own files", self.name);
                Err(self.refusal(what(), "", true, why, line()))
            }
            None if !is_known => {
                let why = format!("hostmount does not know what sources of type '{}' name", self.name);
                Err(self.refusal(what(), "", true, why, line()))
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_option(&self, option: &MountOption) -> Result<(), Refusal> {
        let (name, fstype) = (&option.name, self.name);
        let what = || format!("option '{name}'");
        let of_type = || self.of_type.into_iter();
        let forbidden = |patterns: &[OptionPattern]| patterns.iter().any(|pattern| pattern.matches(option));
        if forbidden(&self.written.forbidden_options) {
            return Err(self.refusal(what(), ".forbidden_options", false, "it is among them".to_owned(), None));
        }
        if of_type().any(|rules| forbidden(&rules.forbidden_options)) {
            let key = format!(".filesystem.{fstype}.forbidden_options");
            return Err(self.refusal(what(), &key, false, "it is among them".to_owned(), None));
        }
        if self.is_open() && self.written.options.is_none() {
            return Ok(());
        }
        let kernels = self.known.is_some_and(KnownType::is_the_kernels);
        let value = option.value.as_deref().unwrap_or_default();
        let is_label = LABELS.contains(&name.as_str()) && is_label(value);
        // Kubelet's own words, or a PersistentVolume's: no pod's author writes them.
        if is_label && self.known.is_some() && matches!(self.origin, Origin::Kubelet | Origin::Csi) {
            return Ok(());
        }
        // Programs read lists of options in their own ways: what is one value to us must be one to them.
        if !self.is_open() && !is_label && !(is_text(value) && (kernels || !value.contains('\\'))) {
            let why =
                "a value with a comma, quote, backslash or control character may be more than one option to the helper";
            return Err(self.refusal(what(), "", true, why.to_owned(), None));
        }
        let listed = self.written.options.iter().flatten().chain(of_type().flat_map(|rules| &rules.options));
        if listed.into_iter().any(|pattern| pattern.matches(option)) {
            return Ok(());
        }
        match self.why_not(option) {
            None => Ok(()),
            Some(why) => {
                let line = self.in_section(&format!("options = [\"{name}\"]"));
                Err(self.refusal(what(), ".options", !self.is_open(), format!("{why} (type '{fstype}')"), line))
            }
        }
    }

    /// Why an option is none that does nothing but shape a volume of this type.
    fn why_not(&self, option: &MountOption) -> Option<&'static str> {
        let name = option.name.as_str();
        let value = option.value.as_deref().unwrap_or_default();
        let not_a_word = "its value names a file, or is not plain";
        let kernels = self.known.is_some_and(KnownType::is_the_kernels);
        match generic(option) {
            // Some helpers are scripts, which take a value apart.
            Some(Generic::Word) => return (!is_word(value) && !kernels).then_some(not_a_word),
            Some(Generic::Comment) => return None,
            // It has been looked at, and what is shown is never more than the source.
            None if name == SUBDIR => return None,
            None => {}
        }
        let Some(known) = self.known else { return Some("it is not known") };
        if known.exactly.contains(&(name, value)) || name == "log-file" && self.is_kubelets_log(value) {
            return None;
        }
        let refused = known.refused.iter().chain(FUSE_REFUSED.iter().filter(|_| !known.is_the_kernels()));
        if let Some((_, why)) = refused.into_iter().find(|(refused, _)| lists(refused, name)) {
            return Some(why);
        }
        let fuse = || !known.is_the_kernels() && lists(FUSE_OPTIONS, name);
        if lists(known.words, name) || fuse() {
            return (!is_word(value)).then_some(not_a_word);
        }
        if lists(known.texts, name) {
            return None;
        }
        Some("it is not among those that do nothing but shape the volume")
    }

    /// What kubelet gives for GlusterFS, which has a rule of its own (`node::log_file`).
    fn is_kubelets_log(&self, path: &str) -> bool {
        let directory = self.kubelet_dir.join("plugins/kubernetes.io/glusterfs");
        self.known.is_some_and(|known| known.names[0] == "glusterfs")
            && Path::new(path).starts_with(directory)
            && is_word(path.trim_start_matches('/'))
    }
}

/// What an option is that every type has.
enum Generic {
    /// A word of mount(8)'s.
    Word,
    /// No helper gets it.
    Comment,
}

fn generic(option: &MountOption) -> Option<Generic> {
    let name = option.name.as_str();
    let others = name.strip_prefix("x-").or_else(|| name.strip_prefix("X-"));
    if name == "comment" || others.is_some_and(|rest| !rest.starts_with("mount")) {
        return Some(Generic::Comment);
    }
    let (known, _) = mount_words::find_option(option)?;
    (known.kind != Kind::Existing).then_some(Generic::Word)
}

#[cfg(test)]
mod tests;
