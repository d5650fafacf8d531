//! The helpers in the container, and the versions of their packages.
//!
//! Runs in the container; it reads files.

use super::finding::Trial;
use crate::config::Config;
use crate::helper::find;
use crate::helper::packages::versions;
use std::path::Path;

/// Each type and its program, with its package's version where there is one.
pub(super) fn types(config: &Config) -> Trial {
    let configured: Vec<&str> = config.types_with_command().collect();
    let mut found = Vec::new();
    for fstype in find::types().iter().map(String::as_str).filter(|fstype| !configured.contains(fstype)) {
        found.push((fstype.to_owned(), Ok(find::helper(fstype, "", config.settings_of(fstype))?.path), ""));
    }
    for fstype in configured {
        let program = find::helper(fstype, "", config.settings_of(fstype)).map(|program| program.path);
        found.push((fstype.to_owned(), program, " (configured)"));
    }
    let paths: Vec<&Path> = found.iter().filter_map(|(_, path, _)| path.as_deref().ok()).collect();
    let versions = versions(&paths);
    let line = |(fstype, program, note): &(String, Result<std::path::PathBuf, find::NoHelper>, &str)| match program {
        Ok(path) => {
            let version = versions.get(path.as_path()).map(|version| format!("  {version}")).unwrap_or_default();
            format!("{fstype:<24}{}{note}{version}", path.display())
        }
        Err(error) => format!("{fstype:<24}not served: {error}"),
    };
    let lines: Vec<_> = found.iter().map(line).collect();
    if lines.is_empty() { Err("there is no helper in this container".into()) } else { Ok(lines.join("\n")) }
}
