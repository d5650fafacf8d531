//! `[policy]`: what callers of each kind may have, where the defaults do not suit.
//!
//! Read by the mounter, in the container; pure. What the defaults are is in [`policy`](crate::policy): here is what an
//! administrator has written. Patterns are those of paths: `*` is any text without `/`, `**` is any text.

use super::ConfigError;
use api::options::{MountOption, MountOptions};
use api::origin::Origin;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What is written for each origin; nothing: the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    operator: Rules,
    kubelet: Rules,
    flexvolume: Rules,
    csi: Rules,
}

/// What callers from one origin may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The types that they may have beside those with a section of their own, named without `fuse.`; none: the default ones.
    pub types: Option<Vec<String>>,
    /// Where they may mount; none: the default places.
    pub targets: Option<Vec<Pattern>>,
    /// Options that they may give for all types, beside the default ones.
    pub options: Option<Vec<OptionPattern>>,
    /// Options that they may not give, whatever else allows it.
    pub forbidden_options: Vec<OptionPattern>,
    /// Options that all their volumes get, whatever they ask for.
    pub forced_options: MountOptions,
    /// For some types, by their names without `fuse.`.
    pub filesystem: BTreeMap<String, TypeRules>,
}

/// The same for one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TypeRules {
    /// The sources that they may name; none: the default ones.
    pub sources: Option<Vec<Pattern>>,
    /// Options that they may give beside the others.
    pub options: Vec<OptionPattern>,
    /// Options that they may not give.
    pub forbidden_options: Vec<OptionPattern>,
    /// Options that these volumes get, after those for all types.
    pub forced_options: MountOptions,
}

/// A pattern of sources or targets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

/// An option, by its name alone or with a pattern of its value: `uid`, `lowerdir=/srv/**`. `*` is any option.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct OptionPattern {
    text: String,
    value: Option<Pattern>,
}

impl Policy {
    /// What is written for `origin`.
    pub fn rules(&self, origin: Origin) -> &Rules {
        match origin {
            Origin::Operator => &self.operator,
            Origin::Kubelet => &self.kubelet,
            Origin::FlexVolume => &self.flexvolume,
            Origin::Csi => &self.csi,
        }
    }

    /// The options that are forced onto a volume of this type.
    pub fn forced(&self, origin: Origin, name: &str) -> MountOptions {
        let rules = self.rules(origin);
        let mut forced = rules.forced_options.clone();
        forced.append(rules.filesystem.get(name).map(|of_type| of_type.forced_options.clone()).unwrap_or_default());
        forced
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let bad = |problem: String| Err(ConfigError::Value { key: "policy", problem });
        for rules in Origin::ALL.map(|origin| self.rules(origin)) {
            let names = rules.types.iter().flatten().chain(rules.filesystem.keys());
            if let Some(name) = names.into_iter().find(|name| name.starts_with("fuse.")) {
                return bad(format!("cannot hold '{name}': a type is named without 'fuse.', which changes nothing"));
            }
            let mut patterns = rules.targets.iter().flatten();
            if let Some(Pattern(target)) = patterns.find(|pattern| !pattern.0.starts_with(['/', '*'])) {
                return bad(format!("cannot hold the target '{target}': targets are absolute paths"));
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// The pattern as it is written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` is like the pattern. What stands for `*` and `**` has none of the characters in `never`:
    /// those count only where they are written.
    pub fn matches(&self, text: &str, never: &str) -> bool {
        let may = |text: &str| !text.contains(|c| never.contains(c));
        let (pattern, text) = (self.0.as_str(), text);
        // For each position in the pattern, by which the text before it was matched, the ends in the text. Patterns are the
        // administrator's, texts are not: this takes no more than their lengths multiplied.
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        let mut rest = pattern;
        while !rest.is_empty() {
            let (any, stops) = match () {
                () if rest.starts_with("**") => (2, None),
                () if rest.starts_with('*') => (1, Some('/')),
                () => (0, None),
            };
            let mut next = vec![false; text.len() + 1];
            if any == 0 {
                let literal = rest.chars().next().unwrap_or_default();
                for at in (0..text.len()).filter(|at| ends[*at]) {
                    if text[at..].starts_with(literal) {
                        next[at + literal.len_utf8()] = true;
                    }
                }
                rest = &rest[literal.len_utf8()..];
            } else {
                let mut open = false;
                for (at, c) in text.char_indices() {
                    open |= ends[at];
                    next[at] |= open;
                    open &= Some(c) != stops && may(c.encode_utf8(&mut [0; 4]));
                }
                next[text.len()] |= open || ends[text.len()];
                rest = &rest[any..];
            }
            ends = next;
        }
        ends[text.len()]
    }
}

impl OptionPattern {
    /// The pattern as it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is about this option.
    pub fn matches(&self, option: &MountOption) -> bool {
        let name = self.text.split('=').next().unwrap_or_default();
        let value = || option.value.as_deref().unwrap_or_default();
        let is_value = self.value.as_ref().is_none_or(|pattern| {
            // A value is one word of the helper's: see `policy`.
            pattern.matches(value(), "") && !has_parent(value())
        });
        (name == "*" || name == option.name) && is_value
    }
}

impl From<String> for OptionPattern {
    fn from(text: String) -> Self {
        let value = text.split_once('=').map(|(_, value)| Pattern(value.to_owned()));
        Self { text, value }
    }
}

/// Whether a path has a `..` in it, which would lead out of what a pattern allows.
pub fn has_parent(path: &str) -> bool {
    path.split(['/', ':', '=']).any(|name| name == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_paths() {
        let matches = |pattern: &str, text: &str| Pattern(pattern.into()).matches(text, "");
        for (pattern, text) in [
            ("/srv/a", "/srv/a"),
            ("/srv/*", "/srv/a"),
            ("/srv/*", "/srv/"),
            ("/srv/**", "/srv/a/b"),
            ("**", ""),
            ("*", "bucket"),
            ("*/b/*", "a/b/c"),
            ("*:/export/**", "host:/export/x/y"),
            ("a**z", "az"),
            ("*a*a*", "xaxaxa"),
            ("ä*", "äö"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("/srv/*", "/srv/a/b"),
            ("/srv/**", "/srv"),
            ("/srv/a", "/srv/ab"),
            ("/srv/a", "x/srv/a"),
            ("", "a"),
            ("*", "a/b"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(!Pattern("/srv/**".into()).matches("/srv/a:/etc", ":"));
        assert!(Pattern("/srv/*:/srv/*".into()).matches("/srv/a:/srv/b", ":"));
    }

    #[test]
    fn options_by_name_or_with_a_value() {
        let matches = |pattern: &str, option: &str| {
            let options = MountOptions::parse(option).unwrap();
            OptionPattern::from(pattern.to_owned()).matches(options.iter().next().unwrap())
        };
        assert!(matches("uid", "uid=5") && matches("uid", "uid") && matches("*", "x=y"));
        assert!(matches("lower=/srv/**", "lower=/srv/a") && !matches("lower=/srv/**", "lower=/etc"));
        assert!(!matches("lower=/srv/**", "lower=/srv/../etc") && !matches("lower=/srv/**", "lower"));
        assert!(!matches("uid", "UID=5") && !matches("uid", "uidx"));
    }
}
