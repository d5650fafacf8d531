//! The policy that is in force, as text: the defaults, and what an administrator has written.
//!
//! Runs in the mounter; pure.

use super::known_types::{FUSE_OPTIONS, KNOWN_TYPES, KnownType, Source};
use super::rules::RulesFor;
use crate::config::Config;
use crate::config::policy::{OptionPattern, Pattern};
use api::about::Configuration;
use api::mount_words::{Kind, MOUNT_WORDS};
use api::origin::Origin;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// What callers from each origin may have, as TOML: the keys are those of `[policy]`. A source in words (`HOST:/PATH`) is a form
/// that sources must have whatever the patterns say.
pub fn show(config: &Config, told: &Configuration) -> String {
    let mut text = String::from("# What is in force: the defaults and config.toml. \"*\" is any.\n");
    if let Some(problem) = &told.problem {
        text.push_str(&format!("# Not what is in {} now: {}\n", told.file, problem.replace('\n', "\n# ")));
    }
    if !told.at_restart.is_empty() {
        text.push_str(&format!("# Taken over when the mounter is restarted: {}\n", told.at_restart.join(", ")));
    }
    for origin in Origin::ALL {
        let mut table = Table::new();
        table.insert(origin.name().to_owned(), Value::Table(of_origin(config, origin)));
        text.push('\n');
        // A table of strings can be written.
        text.push_str(&toml::to_string_pretty(&table).unwrap_or_default());
    }
    text
}

fn of_origin(config: &Config, origin: Origin) -> Table {
    let open = origin == Origin::Operator;
    let written = config.policy.rules(origin);
    let any = || vec!["*".to_owned()];
    let sections = written.filesystem.keys().cloned();
    let types: BTreeSet<String> = match &written.types {
        Some(types) => types.iter().cloned().chain(sections).collect(),
        None if open => any().into_iter().collect(),
        None => {
            KNOWN_TYPES.iter().flat_map(|known| known.names).map(|name| (*name).to_owned()).chain(sections).collect()
        }
    };
    let targets = match &written.targets {
        Some(targets) => texts(targets),
        None if open => vec!["**".to_owned()],
        None => vec![format!("{}/**", config.kubelet_dir.display())],
    };
    let mut options = if open && written.options.is_none() { any() } else { generic() };
    options.extend(written.options.iter().flatten().map(|pattern| pattern.text().to_owned()));
    let mut table = Table::new();
    insert(&mut table, "door", vec![if config.doors.is_open(origin) { "open" } else { "closed" }.to_owned()]);
    insert(&mut table, "targets", targets);
    insert(&mut table, "options", options);
    insert(&mut table, "forbidden_options", names(&written.forbidden_options));
    insert(&mut table, "forced_options", forced(written.forced_options.to_string()));
    let shown = types
        .iter()
        .filter(|name| *name != "*")
        .map(String::as_str)
        .chain(written.filesystem.keys().map(String::as_str));
    let by_type: Table = shown.map(|name| (name.to_owned(), Value::Table(of_type(config, origin, name)))).collect();
    insert(&mut table, "types", types.into_iter().collect());
    table.insert("filesystem".to_owned(), Value::Table(by_type));
    table
}

fn of_type(config: &Config, origin: Origin, name: &str) -> Table {
    let rules = RulesFor::new(config, origin, name);
    let mut table = Table::new();
    let known = rules.known.filter(|_| origin != Origin::Operator);
    match known.and_then(|_| rules.source()) {
        Some(Source::Elsewhere(form, _)) => _ = table.insert("source".to_owned(), form.into()),
        Some(Source::Container) => {
            _ = table.insert("source".to_owned(), "in the container: none but those of the rules".into())
        }
        None => {}
    }
    let mut options = known.map(own_options).unwrap_or_default();
    if let Some(of_type) = rules.of_type {
        insert(&mut table, "sources", of_type.sources.as_deref().map(texts).unwrap_or_default());
        options.extend(names(&of_type.options));
        insert(&mut table, "forbidden_options", names(&of_type.forbidden_options));
        insert(&mut table, "forced_options", forced(of_type.forced_options.to_string()));
    }
    insert(&mut table, "options", options);
    table
}

/// The options of a type's own that are allowed by default.
fn own_options(known: &KnownType) -> Vec<String> {
    let fuse = if known.is_the_kernels() { "" } else { FUSE_OPTIONS };
    let names = [known.words, known.texts, fuse].into_iter().flat_map(str::split_ascii_whitespace);
    let words = names.map(str::to_owned);
    words.chain(known.exactly.iter().map(|(name, value)| format!("{name}={value}"))).collect()
}

/// mount(8)'s own words.
fn generic() -> Vec<String> {
    let words = MOUNT_WORDS.iter().filter(|known| known.kind != Kind::Existing);
    // `suid` and `dev` are never granted.
    let words = words.flat_map(|known| [Some(known.word), known.opposite]).flatten();
    words.filter(|word| !["suid", "dev"].contains(word)).map(str::to_owned).collect()
}

fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(|pattern| pattern.text().to_owned()).collect()
}

fn names(patterns: &[OptionPattern]) -> Vec<String> {
    patterns.iter().map(|pattern| pattern.text().to_owned()).collect()
}

fn forced(text: String) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text] }
}

fn insert(table: &mut Table, key: &str, texts: Vec<String>) {
    let one = ["door", "forced_options"].contains(&key);
    match texts.as_slice() {
        [] => {}
        [text] if one => _ = table.insert(key.to_owned(), text.as_str().into()),
        _ => _ = table.insert(key.to_owned(), Value::Array(texts.into_iter().map(Value::from).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in docs/policy.md, as it must be.
    fn documented() -> String {
        let mut text = String::from(
            "| type | its source | options beside the generic ones | refused, and why |\n|---|---|---|---|\n",
        );
        for known in KNOWN_TYPES {
            let names = known.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let source = match known.source {
                Source::Elsewhere(form, _) => form.replace('|', "\\|"),
                Source::Container => "in the container: only with a rule".to_owned(),
            };
            let fuse = if known.is_the_kernels() { "" } else { "FUSE's" };
            let exactly = known.exactly.iter().map(|(name, value)| format!("{name}={value}"));
            let own = [known.words, known.texts].into_iter().flat_map(str::split_ascii_whitespace).map(str::to_owned);
            let own = own.chain(exactly).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
            let refused = known.refused.iter().map(|(names, why)| format!("`{}`: {why}", names.replace(' ', "` `")));
            let refused = refused.collect::<Vec<_>>().join("; ");
            let options = [fuse, &own].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(", ");
            text.push_str(&format!("| {names} | {source} | {options} | {refused} |\n"));
        }
        text
    }

    #[test]
    fn the_documentation_has_the_table() {
        let text = include_str!("../../docs/policy.md");
        let table = documented();
        assert!(text.contains(&table), "docs/policy.md must have:\n{table}");
        let fuse = format!("`{}`", FUSE_OPTIONS.replace(' ', "` `"));
        assert!(text.contains(&fuse), "docs/policy.md must have:\n{fuse}");
    }

    #[test]
    fn what_is_shown_is_toml_and_what_is_written_is_in_it() {
        let config = Config::parse(
            "[policy.flexvolume]\nforced_options = 'noexec'\n[policy.flexvolume.filesystem.bindfs]\nsources = ['/srv/**']\n\
             [policy.operator.filesystem.mine]\noptions = ['a']",
            std::path::Path::new("config.toml"),
        );
        let shown: Table = show(&config.unwrap(), &Configuration::default()).parse().unwrap();
        assert_eq!(shown["operator"]["types"], Value::from(vec!["*"]));
        assert_eq!(shown["operator"]["filesystem"]["mine"]["options"], Value::from(vec!["a"]));
        assert_eq!(shown["flexvolume"]["forced_options"], "noexec".into());
        assert_eq!(shown["flexvolume"]["filesystem"]["bindfs"]["sources"], Value::from(vec!["/srv/**"]));
        assert_eq!(shown["kubelet"]["targets"], Value::from(vec!["/var/lib/kubelet/**"]));
        assert_eq!(shown["csi"]["door"], "closed".into());
        assert!(shown["csi"]["filesystem"]["sshfs"]["options"].to_string().contains("reconnect"));
    }
}
