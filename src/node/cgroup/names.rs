//! What cgroups of ours are called, and by that what each is for.
//!
//! Pure.

use std::fmt::Write as _;
use std::path::Path;

/// What a cgroup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resident {
    /// A helper, or its heir.
    Helper,
    /// A volume's placeholder, in whose mount namespace volumes are looked for as in a pod's.
    Placeholder,
}

/// Before the target, in the name of a placeholder's cgroup. In no helper's.
const PLACEHOLDERS: &str = "placeholder:";

/// The target, for people who read it, and a number: a target may have several helpers for a while.
pub(super) fn name(resident: Resident, target: &Path, number: u32) -> String {
    let first = if resident == Resident::Placeholder { PLACEHOLDERS } else { "" };
    let target = target.to_string_lossy();
    let mut name: String = first.chars().chain(target.trim_start_matches('/').chars().map(plain).take(200)).collect();
    let _ = write!(name, ".{number}");
    name
}

fn plain(character: char) -> char {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' => character,
        _ => '-',
    }
}

/// Whether a cgroup of this name is a placeholder's.
pub(super) fn is_placeholders(name: &str) -> bool {
    name.starts_with(PLACEHOLDERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_where_they_are() {
        let helpers = |target: &str, number| name(Resident::Helper, Path::new(target), number);
        assert_eq!(helpers("/var/lib/kubelet/pods/a b", 3), "var-lib-kubelet-pods-a-b.3");
        assert_eq!(helpers("/é/../x\n", 0), "--..-x-.0");
        assert!(!helpers("/placeholder:x", 0).starts_with(PLACEHOLDERS));
        let long = "/long".repeat(900);
        assert!(name(Resident::Placeholder, Path::new(&long), u32::MAX).len() <= 255);
    }
}
